"""What is made of the rows of forward passes: joins, choices and sums, on sessions written by hand."""

from __future__ import annotations

import json
import statistics
from typing import Any

import pytest
from sample_rows import DECODE, dispatch
from session_builder import ProcessBuilder, SessionBuilder, at

from profilemate.export import readme_files
from profilemate.export.text import summary_lines
from profilemate.schema.probe_tables import GAPS
from profilemate.schema.table import Table
from profilemate.session.session import Session
from profilemate.trackers.cuda_graphs import events as graphs
from profilemate.trackers.forward_passes import events

MS = 1_000_000
BOTH = graphs.PASSES._replace(fields=events.PASSES.fields + graphs.PASSES.fields[6:])
"""The row as it is with both trackers on."""


def decode(forward: int, **cells: Any) -> dict[str, Any]:
    """A decode pass of 4 requests that begins `forward` seconds after the session; its host time is `forward` ms."""
    return {
        "time_ns": at(forward), "step": forward, "forward": forward, "runtime_mode": "FULL", "host_ns": forward * MS,
        "clock": "monotonic", "phase": "decode", "requests": 4, "tokens": 4, "context_requests": 0, "context_tokens": 0,
        "execute_ns": 2 * forward * MS, "sample_ns": 100 + forward, **cells,
    }  # fmt: skip


def mixed(forward: int, **cells: Any) -> dict[str, Any]:
    """A pass of three decodes and a prompt's chunk of 97 tokens."""
    return decode(
        forward, phase="mixed", tokens=100, context_requests=1, context_tokens=97, runtime_mode="NONE", **cells
    )


def worker(
    session: SessionBuilder, *rows: dict[str, Any], table: Table = events.PASSES, **record: Any
) -> ProcessBuilder:
    """A worker with these passes."""
    return session.process("Worker", **{"engine_config": {"device": "cpu"}, **record}).rows(table, *rows)


def export(session: SessionBuilder) -> SessionBuilder:
    readme_files.write(Session(session.path))
    return session


def cells(session: SessionBuilder, *columns: str) -> list[list[str]]:
    """Some columns of forward_pass_timing.csv."""
    header = session.text("forward_pass_timing.csv").splitlines()[0].split(",")
    places = [header.index(column) for column in columns]
    return [[line.split(",")[place] for place in places] for line in session.lines("forward_pass_timing.csv")]


def summary(session: SessionBuilder) -> dict[str, Any]:
    """forward_pass_summary.json."""
    return dict(json.loads(session.text("forward_pass_summary.json")))


def test_the_timing_file_on_a_cpu(session: SessionBuilder) -> None:
    worker(session, mixed(2), decode(3), decode(5))
    assert export(session).text("forward_pass_timing.csv") == (
        "timestamp_sec,phase,batch_size,num_tokens,forward_time_ms,throughput_tokens_per_sec,clock,host_ms,"
        "execute_model_ms,sample_tokens_ms,mode,context_requests,context_tokens,decode_requests,decode_tokens,"
        "step,forward,engine\n"
        "2.000000,mixed,4,100,2.000000,50000.000,monotonic,2.000000,4.000000,0.000103,NONE,1,97,3,3,2,2,0\n"
        "3.000000,decode,4,4,3.000000,1333.333,monotonic,3.000000,6.000000,,FULL,0,0,4,4,3,3,0\n"
        "5.000000,decode,4,4,5.000000,800.000,monotonic,5.000000,10.000000,,FULL,0,0,4,4,5,5,0\n"
    )


def test_device_times_join_the_passes_that_were_sampled(session: SessionBuilder) -> None:
    rows = [decode(forward, clock="cuda_event" if forward % 2 else "monotonic") for forward in range(1, 8)]
    times = [{"forward": forward, "device_ns": 10 * forward * MS} for forward in (1, 3, 5)]  # the 7th was never read
    worker(session, *rows, engine_config={"device": "cuda"}, settings={"device_timing_every": 2}).rows(
        events.LATENCIES, *times
    )
    assert cells(export(session), "forward_time_ms", "clock", "host_ms", "throughput_tokens_per_sec") == [
        ["10.000000", "cuda_event", "1.000000", "400.000"],
        ["", "", "2.000000", ""],
        ["30.000000", "cuda_event", "3.000000", "133.333"],
        ["", "", "4.000000", ""],
        ["50.000000", "cuda_event", "5.000000", "80.000"],
        ["", "", "6.000000", ""],
        ["", "", "7.000000", ""],
    ]
    assert any("was sampled: 3 of 7 forward passes have it" in note for note in session.metadata()["notes"])
    told = summary(session)["decode"]
    assert (told["count"], told["timed"], told["mean_ms"]) == (7, 3, 30.0)
    lines = "\n".join(summary_lines(session.metadata()))
    assert "the device's, between two CUDA events, sampled, one pass in 2: 3 of 7" in lines


def test_without_device_times_on_a_gpu_nothing_stands_for_them(session: SessionBuilder) -> None:
    worker(session, decode(1), decode(2), engine_config={"device": "cuda:0"})
    assert cells(export(session), "forward_time_ms", "clock") == [["", ""], ["", ""]]
    assert any("forward_time_ms is empty" in note for note in session.metadata()["notes"])
    assert summary(session)["decode"]["mean_ms"] is None
    assert "decode: not timed" in "\n".join(summary_lines(session.metadata()))


def test_the_summary_is_that_of_the_statistics_module(session: SessionBuilder) -> None:
    host_ns = [1_000_003 * (number * 7919 % 997 + 1) for number in range(1, 501)]
    worker(session, *(decode(number, host_ns=ns) for number, ns in enumerate(host_ns, 1)))
    told = summary(export(session))["decode"]
    in_ms = [ns / MS for ns in host_ns]
    exact = {
        "mean_ms": statistics.fmean(in_ms), "std_ms": statistics.pstdev(in_ms), "min_ms": min(in_ms), "max_ms": max(in_ms),
    }  # fmt: skip
    assert {name: told[name] for name in exact} == pytest.approx(exact)
    ordered = sorted(in_ms)
    for percent in (50, 95, 99):
        assert told[f"p{percent}_ms"] == pytest.approx(ordered[percent * 5 - 1], rel=1 / 256)
    assert (told["requests"], told["tokens"], told["context_tokens"]) == (2000, 2000, 0)
    assert told["tokens_per_sec"] == pytest.approx(2000 / (sum(host_ns) / 1e9))


def test_one_tensor_parallel_rank_of_the_last_stage_stands_for_its_engine(session: SessionBuilder) -> None:
    for stage in (0, 1):
        for rank in (1, 0):
            ranks = {"tp": rank, "tp_size": 2, "pp": stage, "pp_size": 2}
            worker(session, decode(1, host_ns=(10 * stage + rank + 1) * MS), ranks=ranks)
    assert cells(export(session), "forward_time_ms", "engine") == [["11.000000", "0"]]


def test_data_parallel_engines_are_added_up_and_merged_by_time(session: SessionBuilder) -> None:
    worker(session, decode(2), decode(4), ranks={"dp": 1})
    worker(session, decode(1), mixed(3), ranks={"dp": 0})
    assert cells(export(session), "timestamp_sec", "engine") == [
        ["1.000000", "0"], ["2.000000", "1"], ["3.000000", "0"], ["4.000000", "1"],
    ]  # fmt: skip
    assert (summary(session)["decode"]["count"], summary(session)["mixed"]["count"]) == (3, 1)
    assert summary(session)["all"]["engines"] == 2


def test_a_rank_that_was_not_recorded_is_a_finding_once(session: SessionBuilder) -> None:
    worker(session, decode(1), ranks={"tp": 1, "tp_size": 2})
    findings = export(session).metadata()["findings"]
    assert len(findings) == 1 and "rank 0 of the last pipeline stage was not recorded" in findings[0]


def test_counts_are_of_the_session_where_old_rows_are_gone(session: SessionBuilder) -> None:
    block = [
        {"time_ns": at(9), "through_forward": 100, "phase": phase, "passes": passes, "requests": 4 * passes,
         "tokens": tokens, "context_tokens": context}
        for phase, passes, tokens, context in (("decode", 90, 360, 0), ("mixed", 10, 1000, 970))
    ]  # fmt: skip
    older = [{**row, "time_ns": at(8), "through_forward": 50, "passes": 1} for row in block]
    times = [{"forward": forward, "device_ns": forward * MS} for forward in (10, 20, 100)]
    worker(session, decode(99), mixed(100), decode(101), decode(102)).rows(events.TOTALS, *older, *block).rows(
        GAPS, {"time_ns": at(9), "table": "forward_passes", "rows": 98, "reason": "size_cap"}
    ).rows(events.LATENCIES, *times)
    told = summary(export(session))
    decodes, mixes = told["decode"], told["mixed"]
    assert (decodes["count"], decodes["tokens"], decodes["timed"]) == (92, 368, 0)
    assert (mixes["count"], mixes["tokens"], mixes["context_tokens"], mixes["timed"]) == (10, 1000, 970, 1)
    assert [one for (one,) in cells(session, "forward_time_ms")] == ["", "100.000000", "", ""]
    assert any("of all 102 forward passes, times of the 4 whose rows were kept" in note for note in told["notes"])


def test_both_trackers_read_their_cells_of_one_row(session: SessionBuilder) -> None:
    rows = [{**decode(number), **dispatch(number, DECODE, 4, 1), "host_ns": MS} for number in (1, 2)]
    worker(session, *rows, table=BOTH)
    assert len(cells(export(session), "phase")) == 2
    assert session.lines("cuda_graph_usage.csv")[0].startswith("FULL,8,8,True,False,2,2,0,8,16,0.002000")
    assert len(session.lines("cuda_graph_timeline.csv")) == 2


@pytest.mark.parametrize(
    ("on", "off", "file", "table"),
    [
        ("forward_passes", "cuda_graphs", "cuda_graph_usage.csv", events.PASSES),
        ("cuda_graphs", "forward_passes", "forward_pass_timing.csv", graphs.PASSES),
    ],
)
def test_a_tracker_that_was_off_is_not_told_as_zero(
    session: SessionBuilder, on: str, off: str, file: str, table: Table
) -> None:
    row = decode(1) if on == "forward_passes" else dispatch(1, DECODE, 8, 1)
    worker(session, row, table=table, settings={"trackers": [on]})
    metadata = export(session).metadata()
    assert metadata["summary"][off] == {"off": True} and metadata["summary"][on] != {"off": True}
    assert f"{file} is empty: " in " ".join(metadata["notes"])
    assert summary_lines(metadata).count("  off by setting") >= 1


def test_passes_of_a_vllm_that_tells_no_phase_are_unknown(session: SessionBuilder) -> None:
    worker(session, decode(1, phase="", context_requests=None, context_tokens=None))
    assert cells(export(session), "phase", "context_requests", "decode_tokens") == [["unknown", "", ""]]
    assert summary(session)["unknown"]["count"] == 1
    assert any("does not tell which requests" in note for note in session.metadata()["notes"])


def test_a_file_without_passes_is_explained(session: SessionBuilder) -> None:
    session.process("Worker")
    notes = export(session).metadata()["notes"]
    assert "forward_pass_timing.csv is empty: no serving forward pass was recorded" in notes
    assert "no serving forward pass was recorded" in "\n".join(summary_lines(session.metadata()))
