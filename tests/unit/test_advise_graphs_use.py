"""Graphs in vain, passes that fell back and sizes that became no graph, from sessions written by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from graph_sessions import (
    Pass,
    add_worker,
    captures,
    config,
    decode_graph,
    eager,
    full,
    mixed_graph,
    piecewise,
    session_of,
)
from session_builder import SessionBuilder

import profilemate
from profilemate.advise import graph_use
from profilemate.advise.finding import ACT, FINE, LOOK, THIN, Finding
from profilemate.advise.graphs.replays import count_replays
from profilemate.advise.graphs.setup import read_setup
from profilemate.frames.session import Session
from profilemate.trackers.cuda_graphs import analyze, events

SIZES = [1, 2, 8, 16]
CAPTURES = captures([1, 2, 8], SIZES)
ALL = captures([1, 2, 8], [2, 8, 16])
"""Without PIECEWISE 1: a batch of one token is a uniform one, and has its FULL graph."""
USED = [full(1, 1), full(2, 2), full(8, 3), piecewise(2, 2, 1), piecewise(8, 5), piecewise(16, 9)]


def advise(session: Session) -> dict[str, Finding]:
    return {finding.name.removeprefix("graph_use."): finding for finding in graph_use.advise(session)}


def causes(session: Session) -> dict[tuple[str, str], int]:
    rows = advise(session)["fallbacks"].numbers["fallbacks"]
    return {(row["runtime_mode"], row["cause"]): row["passes"] for row in rows}


def test_never_replayed_graphs_with_their_time_and_memory(tmp_path: Path) -> None:
    """The join is by the whole descriptor: FULL 2 is used, PIECEWISE 2 is not."""
    passes = [full(2, 2), full(8, 3), piecewise(16, 9)] * 100
    finding = advise(session_of(tmp_path, config(SIZES), CAPTURES, passes))["never_replayed"]
    assert finding.level == LOOK
    unused = [(graph["runtime_mode"], graph["num_tokens"]) for graph in finding.numbers["never_replayed"]]
    assert sorted(unused) == [("FULL", 1), ("PIECEWISE", 1), ("PIECEWISE", 2), ("PIECEWISE", 8)]
    assert finding.numbers["seconds_in_captures"] == pytest.approx(0.01 * (1 + 1 + 2 + 8))
    assert finding.numbers["all_seconds_in_captures"] == pytest.approx(0.01 * (27 + 11))
    assert finding.numbers["memory_bytes"] == 12 << 20
    assert finding.alternatives == ("--cudagraph-capture-sizes 2 8 16",)


def test_the_ends_of_the_ladder_are_kept_though_unused(tmp_path: Path) -> None:
    finding = advise(session_of(tmp_path, config(SIZES), CAPTURES, [full(2, 2)] * 300))["never_replayed"]
    assert finding.alternatives == ("--cudagraph-capture-sizes 2 8 16",)


def test_a_short_session_says_nothing_against_a_graph(tmp_path: Path) -> None:
    finding = advise(session_of(tmp_path, config(SIZES), CAPTURES, [full(2, 2)] * 199))["never_replayed"]
    assert (finding.level, finding.alternatives) == (THIN, ())


def test_all_replayed(tmp_path: Path) -> None:
    finding = advise(session_of(tmp_path, config(SIZES), ALL, USED))["never_replayed"]
    assert (finding.level, finding.numbers["never_replayed"]) == (FINE, [])


def test_estimate_captures_are_apart(tmp_path: Path) -> None:
    rows = [*ALL, decode_graph(8, purpose="estimate"), mixed_graph(16, purpose="estimate")]
    numbers = advise(session_of(tmp_path, config(SIZES), rows, USED))["never_replayed"].numbers
    assert (numbers["graphs"], numbers["estimate_captures"]) == (6, 2)
    assert numbers["seconds_in_estimate_captures"] == pytest.approx(0.24)


def test_replays_whose_rows_the_size_cap_removed_still_count(tmp_path: Path) -> None:
    builder = SessionBuilder(tmp_path)
    worker = add_worker(builder, config([2, 8]), captures([2, 8], []), [full(8, 8)] * 300)
    graph = {"runtime_mode": "FULL", "num_reqs": 2, "num_tokens": 2, "uniform": True, "has_lora": False}
    sums = {"forwards": 4, "replays": 4, "graphs": 4, "unpadded_tokens": 8, "padded_tokens": 8, "host_ns": 1}
    key = {"time_ns": 1, "through_forward": 4, "owner": "main", "num_active_loras": 0}
    worker.rows(events.TOTALS, {**key, **graph, **sums})
    finding = advise(profilemate.open(builder.path))["never_replayed"]
    assert finding.numbers["never_replayed"] == []
    assert finding.numbers["forward_passes"] == 4 + 296


def test_replays_are_those_of_the_trackers_own_analysis(tmp_path: Path) -> None:
    """Two engines, one with totals for passes whose rows are gone, a pass that replayed nothing, and passes without graph."""
    builder = SessionBuilder(tmp_path)
    for engine in (0, 1):
        worker = add_worker(
            builder,
            config(SIZES),
            ALL,
            [*USED * 3, eager(100, 1, "prefill")],
            ranks={"dp": engine},
            engine_index=engine,
        )
        cells = {
            "time_ns": 1,
            "through_forward": 5,
            "owner": "main",
            "num_active_loras": 0,
            "forwards": 9,
            "replays": 7,
        }
        graph = {"runtime_mode": "FULL", "num_tokens": 2, "num_reqs": 2, "uniform": True, "has_lora": False}
        sums = {"graphs": 7, "unpadded_tokens": 14, "padded_tokens": 14, "host_ns": 1}
        if engine:
            worker.rows(events.TOTALS, {**cells, **graph, **sums}, {**cells, "owner": "drafter", **graph, **sums})
    session = profilemate.open(builder.path)
    ours, theirs = count_replays(session), analyze.analyze(session)
    assert ours.by_graph == {usage.descriptor: usage.replays for usage in theirs.usages if usage.replays}
    assert ours.forwards == theirs.coverage.forwards
    assert len(read_setup(session).first_engine) == len(ALL)
    unused = {finding.descriptor for finding in theirs.never_replayed}
    assert set(read_setup(session).never_replayed) == unused


def test_a_mode_that_was_captured_and_never_dispatched(tmp_path: Path) -> None:
    """All decodes have unequal tokens: FULL is for nothing."""
    rows = captures([3, 6], [3, 6], query_len=3)
    passes = [piecewise(6, 4, 2, "decode")] * 300
    found = advise(session_of(tmp_path, config([3, 6], max_num_seqs=2), rows, passes))
    finding = found["full_never_dispatched"]
    assert (finding.level, finding.numbers["graphs"]) == (LOOK, 2)
    assert finding.alternatives == ('--compilation-config \'{"cudagraph_mode": "PIECEWISE"}\'',)
    assert "No batch was a uniform decode" in finding.says
    assert "piecewise_never_dispatched" not in found
    assert found["fallbacks"].numbers["fallbacks"][0]["cause"] == "not_uniform"


def test_piecewise_that_only_larger_prefills_would_have_used(tmp_path: Path) -> None:
    passes = [full(8, 8), eager(100, 1, "prefill")] * 150
    finding = advise(session_of(tmp_path, config(SIZES), CAPTURES, passes))["piecewise_never_dispatched"]
    assert finding.alternatives == ('--compilation-config \'{"cudagraph_mode": "FULL_DECODE_ONLY"}\'',)


CAUSES: dict[str, tuple[Pass, dict[str, Any], list[dict[str, Any]], tuple[str, str] | None]] = {
    "in its graph": (full(8, 5), {}, CAPTURES, None),
    "mixed in PIECEWISE": (piecewise(16, 9), {}, CAPTURES, None),
    "prefill above": (eager(100, 1, "prefill"), {}, CAPTURES, ("NONE", "prefill_above_largest")),
    "mixed above": (eager(17, 3), {}, CAPTURES, ("NONE", "mixed_above_largest")),
    "decode above, PIECEWISE": (
        piecewise(16, 9, 9, "decode"), {"max_num_seqs": 20}, CAPTURES, ("PIECEWISE", "decode_above_largest"),
    ),
    "decode above all": (
        eager(20, 20, "decode"), {"max_num_seqs": 20}, CAPTURES, ("NONE", "decode_above_largest"),
    ),
    "mixed, decode only": (eager(5, 2), {}, captures([8], []), ("NONE", "mixed_under_decode_only")),
    "prefill, decode only": (eager(5, 1, "prefill"), {}, captures([8], []), ("NONE", "prefill_under_decode_only")),
    "computed again": (piecewise(16, 12, 2, "decode"), {}, CAPTURES, ("PIECEWISE", "computed_again")),
    "missing drafts": (
        piecewise(6, 5, 2, "decode"), {}, captures([3, 6], [3, 6], query_len=3), ("PIECEWISE", "not_uniform"),
    ),
    "fits, not taken": (eager(5, 5, "decode"), {}, CAPTURES, ("NONE", "not_explained")),
    "ranks": (eager(5, 5, "decode"), {"data_parallel_size": 2}, CAPTURES, ("NONE", "ranks_step_together")),
    "encoder": (eager(5, 2), {"is_encoder_decoder": True}, CAPTURES, ("NONE", "encoder_input")),
    "lora": (
        eager(5, 5, "decode"), {}, [decode_graph(8, has_lora=True, num_active_loras=2)], ("NONE", "lora"),
    ),
    "PIECEWISE alone, decode above": (
        eager(20, 20, "decode"), {"max_num_seqs": 20}, captures([], [8]), ("NONE", "decode_above_largest"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CAUSES)
def test_each_fallback_has_its_cause(tmp_path: Path, case: str) -> None:
    one, settings, rows, expected = CAUSES[case]
    found = causes(session_of(tmp_path, config(SIZES, **settings), rows, [one] * 3))
    assert found == ({} if expected is None else {expected: 3})


def test_causes_are_counted_by_size_and_normal_ones_raise_no_alarm(tmp_path: Path) -> None:
    passes = USED * 50 + [eager(17, 3)] * 4 + [eager(100, 1, "prefill")] * 5 + [eager(101, 1, "prefill")]
    finding = advise(session_of(tmp_path, config(SIZES), CAPTURES, passes))["fallbacks"]
    assert finding.level == FINE
    prefill = finding.numbers["fallbacks"][0]
    assert prefill["sizes"] == [{"tokens": 100, "passes": 5}, {"tokens": 101, "passes": 1}]
    assert prefill["tokens"] == 601


def test_mixed_batches_under_decode_only_are_a_matter_of_the_mode(tmp_path: Path) -> None:
    passes = [full(8, 8)] * 200 + [eager(5, 2)] * 10
    settings = config([8], cudagraph_mode="FULL_DECODE_ONLY")
    finding = advise(session_of(tmp_path, settings, captures([8], []), passes))["fallbacks"]
    assert (finding.level, finding.numbers["fallbacks"][0]["passes"]) == (ACT, 10)
    assert finding.flags == ('--compilation-config \'{"cudagraph_mode": "FULL_AND_PIECEWISE"}\'',)
    few = session_of(tmp_path / "few", settings, captures([8], []), passes[:201])
    assert (advise(few)["fallbacks"].level, advise(few)["fallbacks"].flags) == (LOOK, ())


def test_what_a_fallback_costs_where_the_device_told_times(tmp_path: Path) -> None:
    """Decodes of 9 and 10 run in PIECEWISE 16 at 5 ms; FULL 8 takes 1 ms, so 9 and 10 take 1.125 and 1.25 ms there."""
    passes = [
        full(2, 2, device_ns=1_000_000), full(8, 8, device_ns=1_000_000),
        piecewise(16, 9, 9, "decode", device_ns=5_000_000), piecewise(8, 6, device_ns=3_000_000),
    ]  # fmt: skip
    session = session_of(tmp_path, config(SIZES, max_num_seqs=20), CAPTURES, passes * 60)
    row = advise(session)["fallbacks"].numbers["fallbacks"][0]
    assert row["cause"] == "decode_above_largest"
    at_9 = 3_000_000 + (5_000_000 - 3_000_000) / 8
    assert row["seconds_more"] == pytest.approx(60 * (at_9 - 1_125_000) / 1e9)


def test_listed_sizes_that_became_no_graph(tmp_path: Path) -> None:
    """FULL_DECODE_ONLY with max_num_seqs=8: 16 and 32 are listed, and vLLM makes nothing of them without a word."""
    settings = config([2, 8, 16, 32], cudagraph_mode="FULL_DECODE_ONLY")
    finding = advise(session_of(tmp_path, settings, captures([2, 8], []), [full(8, 8)] * 9))["dropped_sizes"]
    assert finding.level == LOOK
    assert finding.numbers["without_graph"] == [16, 32]
    assert "16 32 exceed the largest decode batch (8 tokens)" in finding.says


def test_sizes_that_were_asked_for_and_dropped(tmp_path: Path) -> None:
    """The front end noted what was asked; vLLM's configuration no longer has the 4096 that exceeds a step."""
    builder = SessionBuilder(tmp_path)
    builder.process("LLM", engine_config={"asked_cudagraph_capture_sizes": [8, 2, 4096, 2]})
    add_worker(builder, config([2, 8]), captures([2, 8], [2, 8]), [full(8, 8)] * 9)
    finding = advise(profilemate.open(builder.path))["dropped_sizes"]
    assert (finding.level, finding.numbers["without_graph"]) == (LOOK, [4096])
    assert "Asked: 8 2 4096 2;" in finding.says
    assert "4096 exceed max_num_batched_tokens (256)" in finding.says


def test_sizes_that_speculative_decoding_rounds(tmp_path: Path) -> None:
    rows = captures([3, 6, 24], [3, 6, 24], query_len=3)
    found = advise(session_of(tmp_path, config([1, 4, 24]), rows, [full(24, 24, query_len=3)] * 9))
    finding = found["dropped_sizes"]
    assert (finding.numbers["without_graph"], finding.numbers["not_listed"]) == ([1, 4], [3, 6])
    assert "multiples of the decode query length 3" in finding.says
    assert "do not give this" not in finding.says


def test_every_listed_size_has_a_graph(tmp_path: Path) -> None:
    assert advise(session_of(tmp_path, config(SIZES), ALL, USED))["dropped_sizes"].level == FINE


def test_a_server_without_graphs_is_worth_a_look(tmp_path: Path) -> None:
    settings = config([], cudagraph_mode="NONE")
    (finding,) = graph_use.advise(session_of(tmp_path, settings, [], [eager(3, 3, "decode")] * 9))
    assert (finding.name, finding.level, finding.numbers["decode_passes"]) == ("graph_use.off", LOOK, 9)
    assert "cudagraph_mode NONE" in finding.says


def test_captures_that_no_hook_saw_are_not_taken_for_none(tmp_path: Path) -> None:
    (finding,) = graph_use.advise(session_of(tmp_path, config(SIZES), [], [full(8, 8)] * 9))
    assert "Captures were not recorded" in finding.title


def test_no_rows_at_all(tmp_path: Path) -> None:
    (finding,) = graph_use.advise(profilemate.open(SessionBuilder(tmp_path).path))
    assert (finding.level, "no worker process" in finding.says.lower()) == (THIN, True)
