"""Verdicts of the GPU check on made-up rows and traces: what holds, what does not, and what cannot be said."""

from __future__ import annotations

import math
from typing import Any

import pytest
from gpu_check import compare, ratio
from gpu_check.cuda_trace import Launch, Trace
from gpu_check.rows import Pass

SPAN_NS = 4_000_000


def one_pass(number: int, mode: str = "FULL", graphs: int = 1, device_ns: int | None = None) -> Pass:
    return Pass(1000 * number, mode, graphs, 8, 500, device_ns)


def a_launch(number: int, span_ns: int = SPAN_NS, kernels: int = 9) -> Launch:
    start = number * 10 * SPAN_NS
    return Launch(start, number, kernels, start + 1000, start + 1000 + span_ns)


def trace_of(*launches: Launch, **synchronisations: int) -> Trace:
    trace = Trace(launches=list(launches))
    trace.synchronisations.update(synchronisations)
    return trace


def passes_and_trace(error: float, count: int = 30, late: int = 0) -> tuple[list[Pass], Trace]:
    """FULL passes whose device time is off by a share, the last `late` ones by half as much again."""
    passes = [one_pass(number, device_ns=round(SPAN_NS * (1 + error))) for number in range(count - late)]
    passes += [one_pass(number, device_ns=round(SPAN_NS * 1.5)) for number in range(count - late, count)]
    return passes, trace_of(*map(a_launch, range(count)))


# -- graphs -------------------------------------------------------------------------------------------------------------


def test_replays_must_be_equal() -> None:
    passes = [one_pass(1), one_pass(2, "PIECEWISE", 3), Pass(5, "FULL", 1, is_main=False), one_pass(6, "NONE", 0)]
    exact = compare.replays(passes, trace_of(*map(a_launch, range(5))))
    assert exact.holds is True
    assert (exact.numbers["main"], exact.numbers["other"], exact.numbers["launches"]) == (4, 1, 5)
    assert compare.replays(passes, trace_of(*map(a_launch, range(4)))).holds is False
    assert compare.replays(passes, trace_of(*map(a_launch, range(6)))).holds is False


def test_no_replay_and_no_launch_prove_nothing() -> None:
    assert compare.replays([one_pass(1, "NONE", 0)], trace_of()).holds is False


@pytest.mark.parametrize(
    ("full", "piecewise", "modes", "holds"),
    [
        (20, 1, ("FULL", "PIECEWISE"), True),
        (19, 1, ("FULL", "PIECEWISE"), False),
        (20, 0, ("FULL", "PIECEWISE"), False),
        (0, 1, ("PIECEWISE",), True),
        (0, 0, ("PIECEWISE",), False),
    ],
)
def test_a_window_without_enough_passes_is_told(full: int, piecewise: int, modes: tuple[str, ...], holds: bool) -> None:
    passes = [one_pass(1)] * full + [one_pass(2, "PIECEWISE", 3)] * piecewise
    assert compare.coverage(passes, modes).holds is holds


@pytest.mark.parametrize(
    ("error", "holds"), [(0.0, True), (0.049, True), (-0.049, True), (0.051, False), (-0.051, False)]
)
def test_device_time_is_within_five_percent_at_the_median(error: float, holds: bool) -> None:
    check = compare.device_time(*passes_and_trace(error), "FULL")
    assert check.holds is holds
    assert check.numbers["median_error"] == pytest.approx(error, abs=1e-6)
    assert check.numbers["median_span_ns"] == SPAN_NS


def test_single_late_launches_do_not_decide_and_are_shown() -> None:
    check = compare.device_time(*passes_and_trace(0.01, late=10), "FULL")
    assert check.holds is True
    assert check.numbers["largest_error"] == pytest.approx(0.5)


def test_a_pass_of_pieces_spans_from_its_first_to_its_last_launch_and_informs_only() -> None:
    passes = [one_pass(1), one_pass(2, "PIECEWISE", 3, device_ns=20 * SPAN_NS + SPAN_NS), one_pass(3)]
    check = compare.device_time(passes, trace_of(*map(a_launch, range(5))), "PIECEWISE")
    assert check.holds is None
    assert check.numbers["median_span_ns"] == 21 * SPAN_NS
    assert check.numbers["median_error"] == 0


def test_device_time_fails_where_passes_cannot_be_matched_to_launches() -> None:
    passes, trace = passes_and_trace(0.0)
    trace.launches.pop()
    assert compare.device_time(passes, trace, "FULL").holds is False


def test_device_time_fails_where_the_trace_has_no_kernels_or_the_rows_no_device_time() -> None:
    passes, _ = passes_and_trace(0.0)
    hollow = compare.device_time(passes, trace_of(*(a_launch(number, kernels=0) for number in range(30))), "FULL")
    assert (hollow.holds, hollow.numbers["timed"], hollow.numbers["with_kernels"]) == (False, 30, 0)
    untimed = compare.device_time([one_pass(number) for number in range(30)], passes_and_trace(0.0)[1], "FULL")
    assert (untimed.holds, untimed.numbers["timed"]) == (False, 0)


def capture_rows(**graphs: int) -> list[dict[str, str]]:
    return [{"purpose": purpose, "graphs": str(count)} for purpose, count in graphs.items()]


def counters(captured: int, at_end: int) -> dict[str, int]:
    return {"captured": captured, "captured_at_end": at_end}


def test_captures_equal_vllms_count_with_estimates_apart() -> None:
    assert compare.captures(capture_rows(serving=40, estimate=12), counters(40, 40)).holds is True
    assert compare.captures(capture_rows(serving=52), counters(40, 40)).holds is False
    assert compare.captures(capture_rows(estimate=12), counters(0, 0)).holds is False
    assert compare.captures(capture_rows(serving=40, lazy=2), counters(40, 42)).holds is True
    assert compare.captures(capture_rows(serving=40), counters(40, 42)).holds is False


def test_dispatches_are_compared_one_by_one() -> None:
    rows = [{"runtime_mode": "FULL", "unpadded_tokens": "3", "num_tokens": "4"}] * 2
    assert compare.dispatches(rows, [["FULL", 3, 4], ["FULL", 3, 4]]).holds is True
    assert compare.dispatches(rows, [["FULL", 3, 4], ["PIECEWISE", 3, 4]]).holds is False
    assert compare.dispatches(rows, [["FULL", 3, 4]]).numbers["different"] == 1
    assert compare.dispatches(rows, []).holds is None


def phase_row(phase: str, explained: int, actual: str) -> dict[str, str]:
    return {"phase": phase, "explained": str(explained), "actual": actual}


def test_check_mode_wants_every_replay_explained_in_the_newest_row_of_each_phase() -> None:
    good = [phase_row("serving", 1, "2"), phase_row("capture", 3, "3"), phase_row("serving", 5, "5")]
    assert compare.check_mode(good).holds is True
    assert compare.check_mode([*good, phase_row("serving", 5, "6")]).holds is False
    assert compare.check_mode([phase_row("serving", 5, "")]).holds is False
    assert compare.check_mode([phase_row("capture", 3, "3")]).holds is False


# -- KV cache -----------------------------------------------------------------------------------------------------------


def kv_oracle(**changes: Any) -> dict[str, Any]:
    counts = {theirs: 10 * number + 10 for number, theirs in enumerate(compare.KV_COUNTS.values())}
    prefix = {theirs: 7 + number for number, theirs in enumerate(compare.KV_PREFIX.values())}
    rows = [(5, 2, 3, 5), (4, 4, 2, 6)]
    trust = {"mismatch_count": 0, "mismatches": [], "unmirrored": {}}
    return {**counts, "prefix": prefix, "rows": rows, **trust, **changes}


def kv_rows(**changes: str) -> list[dict[str, str]]:
    oracle = kv_oracle()
    last = {ours: str(oracle[theirs]) for ours, theirs in compare.KV_COUNTS.items()}
    last |= {ours: str(oracle["prefix"][theirs]) for ours, theirs in compare.KV_PREFIX.items()}
    split = [dict(zip(compare.POOL_SPLIT, map(str, row), strict=True)) for row in oracle["rows"]]
    return [{**last, "step": "1", **split[0]}, {**last, **split[1], **changes}]


def test_kv_totals_and_every_steps_split_equal_the_oracles() -> None:
    assert compare.kv_cache(kv_rows(), kv_oracle()).holds is True
    assert compare.kv_cache([], kv_oracle()).holds is False


@pytest.mark.parametrize("column", [*compare.KV_COUNTS, *compare.KV_PREFIX])
def test_one_wrong_total_of_the_kv_cache_fails(column: str) -> None:
    check = compare.kv_cache(kv_rows(**{column: "9999"}), kv_oracle())
    assert check.holds is False
    assert list(check.numbers["different"]) == [column]


@pytest.mark.parametrize("column", compare.POOL_SPLIT)
def test_one_wrong_step_of_the_kv_cache_fails(column: str) -> None:
    check = compare.kv_cache(kv_rows(**{column: "99"}), kv_oracle())
    assert (check.holds, check.numbers["wrong_steps"]) == (False, 1)


@pytest.mark.parametrize(
    "changes",
    [{"mismatch_count": 1}, {"unmirrored": {"move_block_hashes": 2}}, {"rows": [(5, 2, 3, 5)]}],
)
def test_an_oracle_that_doubts_itself_or_saw_other_steps_proves_nothing(changes: dict[str, Any]) -> None:
    assert compare.kv_cache(kv_rows(), kv_oracle(**changes)).holds is False


def test_a_run_without_evictions_proves_nothing() -> None:
    assert compare.kv_cache(kv_rows(evicted="0"), kv_oracle(evicted=0)).holds is False


# -- harm ---------------------------------------------------------------------------------------------------------------


def test_no_more_synchronisations_per_step_than_without() -> None:
    bare = trace_of(cudaEventSynchronize=50)
    assert compare.synchronisations(trace_of(cudaEventSynchronize=50), 50, bare, 50).holds is True
    assert compare.synchronisations(trace_of(cudaEventSynchronize=51), 51, bare, 50).holds is True
    assert compare.synchronisations(trace_of(cudaEventSynchronize=50), 49, bare, 50).holds is False
    assert (
        compare.synchronisations(trace_of(cudaEventSynchronize=50, cudaDeviceSynchronize=1), 50, bare, 50).holds
        is False
    )


def test_answers_differ_only_where_they_always_do() -> None:
    mine, same, other, third = {"a": [1, 2]}, {"a": [1, 2]}, {"a": [1, 3]}, {"a": [1, 4]}
    assert compare.answers(mine, [same]).holds is True
    assert compare.answers(mine, [other, same]).holds is True
    assert compare.answers(mine, [other, other]).holds is False
    assert compare.answers(mine, [other]).holds is False
    assert compare.answers(mine, [other, third]).holds is None
    assert compare.answers(mine, [{**same, "b": [1]}]).holds is False
    assert compare.answers({**mine, "b": [1]}, [same]).holds is False
    assert compare.answers({}, [{}]).holds is False


@pytest.mark.parametrize(
    "line",
    [
        "torch.AcceleratorError: CUDA error: operation not permitted when stream is capturing",
        "RuntimeError: CUDA error: operation failed due to a previous error during capture",
        "cudaErrorStreamCaptureInvalidated",
        "CUDA error 900",
    ],
)
def test_capture_errors_are_found_in_the_log(line: str) -> None:
    assert compare.capture_errors(f"INFO fine\n{line}\n").holds is False


def test_a_plain_log_has_no_capture_error() -> None:
    log = "INFO Capturing CUDA graphs (mixed prefill-decode, PIECEWISE): 100%\nGraph capturing finished in 900 secs"
    assert compare.capture_errors(log).holds is True


def test_hooks_must_fit_and_not_fail() -> None:
    fine = [
        {"name": "a", "state": "put_in"},
        {"name": "b", "state": "not_in_this_version"},
        {"name": "c", "state": "waiting"},
    ]
    health = [{"hook": "a", "failures": "0"}]
    assert compare.hooks(health, fine).holds is True
    assert compare.hooks([{"hook": "a", "failures": "1"}], fine).holds is False
    assert compare.hooks(health, [*fine, {"name": "d", "state": "does_not_fit"}]).holds is False
    assert compare.hooks([], []).holds is False


def test_both_sides_must_be_what_they_are_called() -> None:
    with_us, without = {"profiled": True}, {"profiled": False}
    assert compare.sides(with_us, without).holds is True
    assert compare.sides(with_us, with_us).holds is False
    assert compare.sides(without, without).holds is False


def test_exit_codes_are_the_same_on_both_sides() -> None:
    assert compare.exit_codes([0, 0, 0], [0, 0, 0]).holds is True
    assert compare.exit_codes([0, None, 0], [0, 0, 0]).holds is False


# -- cost ---------------------------------------------------------------------------------------------------------------


def test_the_interval_of_a_ratio_is_students() -> None:
    found = ratio.of_pairs([99.0, 98.0, 101.0], [100.0, 100.0, 100.0])
    logs = [math.log(0.99), math.log(0.98), math.log(1.01)]
    mean = sum(logs) / 3
    deviation = math.sqrt(sum((log - mean) ** 2 for log in logs) / 2)
    assert found.mean == pytest.approx(math.exp(mean))
    assert found.high == pytest.approx(math.exp(mean + 4.303 * deviation / math.sqrt(3)))
    assert found.low < found.mean < found.high
    assert ratio.of_pairs([1.0], [2.0])[:3] == (pytest.approx(0.5), 0.0, math.inf)


def test_more_pairs_than_the_table_are_fine_and_sides_of_different_length_are_not() -> None:
    many = ratio.of_pairs([99.0, 100.0] * 30, [100.0] * 60)
    assert many.pairs == 60
    assert 0.99 < many.low < many.high < 1.0
    with pytest.raises(ValueError, match="longer"):
        ratio.of_pairs([1.0], [1.0, 2.0])


def test_throughput_fails_only_where_the_interval_lies_below_the_bound() -> None:
    base = [100.0] * 8
    assert compare.throughput("t", [99.6, 99.4] * 4, base).holds is True
    assert compare.throughput("t", [97.0, 97.2] * 4, base).holds is False
    assert compare.throughput("t", [90.0, 108.0] * 4, base).holds is True


def a_turn(start: int) -> dict[str, dict[str, int]]:
    return {"in": {"began_ns": start, "ended_ns": start + 9}, "out": {"began_ns": start + 10, "ended_ns": start + 19}}


def test_turns_have_rows_with_the_hooks_in_and_none_with_them_out() -> None:
    both = [a_turn(0), a_turn(100)]
    assert compare.turns(both, [5, 105]).holds is True
    assert compare.turns(both, [5]).holds is False
    assert compare.turns(both, [5, 15, 105]).holds is False
    assert compare.turns([], [5]).holds is False


def memory_of(allocated: int, used: int) -> dict[str, int]:
    return {"peak_allocated_bytes": allocated, "peak_reserved_bytes": allocated, "device_used_bytes": used}


def test_the_allocators_peak_must_not_grow() -> None:
    bare = [memory_of(5 << 30, 6 << 30)] * 3
    assert compare.memory([memory_of(5 << 30, 7 << 30)] * 3, bare).holds is True
    assert compare.memory([memory_of((5 << 30) + (2 << 20), 6 << 30)] * 3, bare).holds is False
    assert compare.memory([{}], [{}]).holds is None
