"""encoder_decoder_timing.csv and encoder_decoder_summary.json, exactly."""

from __future__ import annotations

import json
from typing import Any

import pytest
from session_builder import ProcessBuilder, SessionBuilder, at

from profilemate.cli import main as cli
from profilemate.export import readme_files
from profilemate.schema import pass_table
from profilemate.session.session import Session
from profilemate.trackers.encoder_decoder import events
from profilemate.trackers.forward_passes import events as forward_passes

MS = 1_000_000
WHISPER = {"device": "cpu", "model_type": "whisper", "is_multimodal": True, "is_encoder_decoder": True}


def encoded(number: int, seconds: float, host_ms: int, **cells: Any) -> dict[str, Any]:
    """An encoder pass of two items, 100 tokens and one request; each step before it had one as well."""
    return {
        "time_ns": at(seconds), "step": 2 * number, "number": number, "items": 2, "tokens": 100, "requests": 1,
        "modality": "audio", "host_ns": host_ms * MS, "clock": "monotonic", "items_so_far": 2 * number,
        "tokens_so_far": 100 * number, "requests_so_far": number, "graph_hits_so_far": 0, "graph_misses_so_far": 0,
        **cells,
    }  # fmt: skip


def forward(number: int, seconds: float, host_ms: int, **cells: Any) -> dict[str, Any]:
    """A forward pass of three tokens in one request."""
    return {
        "time_ns": at(seconds), "step": number, "forward": number, "runtime_mode": "NONE", "host_ns": host_ms * MS,
        "clock": "monotonic", "phase": "decode", "requests": 1, "tokens": 3, "context_requests": 0, "context_tokens": 0,
        **cells,
    }  # fmt: skip


def add_worker(session: SessionBuilder, config: dict[str, Any] = WHISPER, **record: Any) -> ProcessBuilder:
    """Two encoder passes, four forward passes."""
    return (
        session.process("Worker", **{"engine_config": config, **record})
        .rows(events.PASSES, encoded(1, 1.0, 40), encoded(2, 2.0, 60, graph_hits=1, graph_misses=1,
                                                          graph_hits_so_far=1, graph_misses_so_far=1))
        .rows(
            forward_passes.PASSES,
            forward(1, 0.5, 5), forward(2, 1.05, 10, phase="prefill"), forward(3, 1.5, 4), forward(4, 2.1, 6),
        )
    )  # fmt: skip


def export(session: SessionBuilder) -> SessionBuilder:
    readme_files.write(Session(session.path))
    return session


def summary(session: SessionBuilder) -> dict[str, Any]:
    return dict(json.loads(session.text("encoder_decoder_summary.json")))


def test_rows_are_in_order_of_time_and_decoder_rows_have_what_the_forward_passes_say(session: SessionBuilder) -> None:
    add_worker(session)
    assert export(session).text("encoder_decoder_timing.csv") == (
        "timestamp_sec,component,duration_ms,context,items,tokens,requests,clock,host_ms,graph_hits,graph_misses,step,"
        "engine\n"
        "0.500000,decoder,5.000000,decode,,3,1,monotonic,5.000000,,,1,0\n"
        "1.000000,encoder,40.000000,audio,2,100,1,monotonic,40.000000,,,2,0\n"
        "1.050000,decoder,10.000000,prefill,,3,1,monotonic,10.000000,,,2,0\n"
        "1.500000,decoder,4.000000,decode,,3,1,monotonic,4.000000,,,3,0\n"
        "2.000000,encoder,60.000000,audio,2,100,1,monotonic,60.000000,1,1,4,0\n"
        "2.100000,decoder,6.000000,decode,,3,1,monotonic,6.000000,,,4,0\n"
    )


def test_summary(session: SessionBuilder) -> None:
    add_worker(session)
    told = summary(export(session))
    assert told == {
        "model_type": "whisper",
        "encoder": {
            "count": 2, "timed": 2, "total_ms": 100.0, "mean_ms": 50.0, "std_ms": 10.0, "min_ms": 40.0, "max_ms": 60.0,
            "p50_ms": pytest.approx(40.0, rel=1 / 256), "p95_ms": 60.0, "items": 4, "tokens": 200, "requests": 2,
            "graph_hits": 1, "graph_misses": 1,
        },
        "decoder": {
            "count": 4, "timed": 4, "total_ms": 25.0, "mean_ms": 6.25, "std_ms": pytest.approx(2.277608, abs=1e-6),
            "min_ms": 4.0, "max_ms": 10.0, "p50_ms": pytest.approx(5.0, rel=1 / 256), "p95_ms": 10.0,
        },
        "encoder_pct": 80.0,
        "decoder_pct": 20.0,
        "cross_attention": "not measured apart: it runs inside the decoder's forward pass",
        "notes": [],
    }  # fmt: skip


def test_lines_for_people(session: SessionBuilder, capsys: pytest.CaptureFixture[str]) -> None:
    add_worker(session)
    assert cli.main(["summary", str(session.path)]) == 0
    told = capsys.readouterr().out.split("Encoder and decoder\n")[1].split("\n\n")[0]
    assert told == (
        "  4 items (200 tokens) in 2 encoder passes, mean 50.000 ms, p95 60.000 ms\n"
        "  forward passes of the same workers 4, mean 6.250 ms, p95 10.000 ms\n"
        "  the encoder's share of both is 80.0 %\n"
        "  encoder graphs: 1 items replayed one, 1 fitted none"
    )


def test_on_a_device_durations_are_its_own_and_shares_take_the_mean_for_what_was_not_timed(
    session: SessionBuilder,
) -> None:
    (
        add_worker(session, {**WHISPER, "device": "cuda"})
        .rows(events.LATENCIES, {"number": 1, "device_ns": 90 * MS})
        .rows(forward_passes.LATENCIES, {"forward": 2, "device_ns": 30 * MS}, {"forward": 4, "device_ns": 20 * MS})
    )
    cells = [line.split(",") for line in export(session).lines("encoder_decoder_timing.csv")]
    assert [(row[1], row[2], row[7]) for row in cells] == [
        ("decoder", "", ""),
        ("encoder", "90.000000", "cuda_event"),
        ("decoder", "30.000000", "cuda_event"),
        ("decoder", "", ""),
        ("encoder", "", ""),
        ("decoder", "20.000000", "cuda_event"),
    ]
    told = summary(session)
    assert (told["encoder"]["count"], told["encoder"]["timed"], told["encoder"]["total_ms"]) == (2, 1, 90.0)
    assert (told["decoder"]["count"], told["decoder"]["timed"], told["decoder"]["mean_ms"]) == (4, 2, 25.0)
    assert told["encoder_pct"] == pytest.approx(100 * 180 / 280)
    assert told["notes"] == [
        "encoder_decoder_timing.csv: 1 of 2 encoder passes have a device time; the shares take their mean for the others",
        "encoder_decoder_timing.csv: 2 of 4 decoder passes have a device time; the shares take their mean for the others",
    ]


def test_on_a_device_whose_times_nobody_read_there_is_no_duration(session: SessionBuilder) -> None:
    add_worker(session, {**WHISPER, "device": "xpu"})
    cells = [line.split(",") for line in export(session).lines("encoder_decoder_timing.csv")]
    assert {(row[2], row[7]) for row in cells} == {("", "")} and cells[1][8] == "40.000000"
    told = summary(session)
    assert told["encoder_pct"] is None and told["encoder"]["mean_ms"] is None
    assert told["notes"] == [
        f"encoder_decoder_timing.csv: no {name} pass has a device time; duration_ms is empty, host_ms is the launch alone"
        for name in ("encoder", "decoder")
    ]


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"is_multimodal": False}, "no request brought anything to encode (the model has no encoder)"),
        (WHISPER, "no request brought anything to encode"),
        ({}, "no request brought anything to encode"),
    ],
)
def test_without_an_encoder_pass_there_are_no_decoder_rows(
    session: SessionBuilder, config: dict[str, Any], reason: str
) -> None:
    session.process("Worker", engine_config=config).rows(forward_passes.PASSES, forward(1, 0.5, 5))
    assert export(session).lines("encoder_decoder_timing.csv") == []
    assert f"encoder_decoder_timing.csv is empty: {reason}" in session.metadata()["notes"]
    told = summary(session)
    assert told["encoder"]["count"] == told["decoder"]["count"] == 0 and told["encoder_pct"] is None
    assert told["notes"] == [f"encoder_decoder_timing.csv is empty: {reason}"]


def test_totals_stand_for_rows_that_the_size_cap_removed(session: SessionBuilder) -> None:
    session.process("Worker", engine_config=WHISPER).rows(events.PASSES, encoded(9, 5.0, 40)).rows(
        forward_passes.PASSES, forward(19, 5.1, 5), forward(20, 5.2, 5)
    )
    told = summary(export(session))
    assert [told["encoder"][name] for name in ("count", "timed", "items", "tokens", "requests")] == [9, 1, 18, 900, 9]
    assert (told["decoder"]["count"], told["decoder"]["timed"]) == (20, 2)
    assert told["encoder_pct"] == pytest.approx(100 * 9 * 40 / (9 * 40 + 20 * 5))
    assert told["notes"] == [
        "encoder_decoder_timing.csv lacks the oldest of 9 encoder passes; their times are over the 1 that it has",
        "encoder_decoder_timing.csv lacks the oldest of 20 decoder passes; their times are over the 2 that it has",
    ]


def test_one_worker_stands_for_each_engine_and_engines_are_added_up(session: SessionBuilder) -> None:
    for data_parallel in (0, 1):
        for tensor_parallel in (0, 1):
            ranks = {"dp": data_parallel, "tp": tensor_parallel}
            add_worker(session, ranks={**ranks, "pp": 0})
            later = session.process("Worker", engine_config=WHISPER, ranks={**ranks, "pp": 1})
            later.rows(forward_passes.PASSES, forward(1, 0.6, 5))
    engines = [line.rpartition(",")[2] for line in export(session).lines("encoder_decoder_timing.csv")]
    assert engines == ["0", "1"] * 6
    assert summary(session)["encoder"]["items"] == 8 and summary(session)["decoder"]["count"] == 8


def test_a_torn_last_row_is_left_out(session: SessionBuilder) -> None:
    add_worker(session).rows(events.PASSES, tail="123,4,3,2,10")
    assert summary(export(session))["encoder"]["items"] == 4


def test_without_forward_passes_there_is_a_note(session: SessionBuilder) -> None:
    session.process("Worker", engine_config=WHISPER).rows(events.PASSES, encoded(1, 1.0, 40, step=None, tokens=None))
    assert export(session).lines("encoder_decoder_timing.csv") == [
        "1.000000,encoder,40.000000,audio,2,,1,monotonic,40.000000,,,,0"
    ]
    told = summary(session)
    assert told["encoder_pct"] is None
    assert told["notes"] == [
        "encoder_decoder_timing.csv has no decoder rows: no forward pass of these workers was recorded"
    ]


def test_forward_passes_to_which_another_tracker_alone_contributed_are_shown(session: SessionBuilder) -> None:
    bare = {name: cell for name, cell in forward(1, 1.1, 5).items() if name in pass_table.BASE.columns}
    session.process("Worker", engine_config=WHISPER).rows(events.PASSES, encoded(1, 1.0, 40)).rows(
        pass_table.BASE, bare
    )
    assert export(session).lines("encoder_decoder_timing.csv")[1] == (
        "1.100000,decoder,5.000000,,,,,monotonic,5.000000,,,1,0"
    )
