"""The checks: each holds, does not hold, or only informs, and carries the numbers that it was judged by."""

from __future__ import annotations

import re
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from gpu_check import ratio
from gpu_check.cuda_trace import Launch, Trace
from gpu_check.places import helper
from gpu_check.rows import Cells, Pass

DEVICE_TIME_TOLERANCE = 0.05
LEAST_FULL_PASSES = 20
LEAST_RATIO_HIGH = 0.99
ALLOCATED_TOLERANCE_BYTES = 1 << 20
CAPTURE_ERROR = re.compile(
    r"cudaErrorStreamCapture\w*|operation not permitted when stream is capturing|"
    r"operation failed due to a previous error during capture|error 90[01]\b",
    re.IGNORECASE,
)
KV_COUNTS: dict[str, str] = helper("kv_columns").COUNTS
KV_PREFIX: dict[str, str] = helper("kv_columns").PREFIX
POOL_SPLIT = ("in_use", "cached_free", "empty", "step_peak")


Answers = Mapping[str, Sequence[int]]
"""Token ids by request."""


class Check(NamedTuple):
    """One comparison. `holds` is None where it informs only."""

    name: str
    holds: bool | None
    says: str
    numbers: dict[str, Any]


# -- graphs -------------------------------------------------------------------------------------------------------------


def replays(passes: Sequence[Pass], trace: Trace) -> Check:
    """Graphs of our rows in the window against graph launches in the trace of the same window."""
    main = sum(one.graphs for one in passes if one.is_main)
    other = sum(one.graphs for one in passes if not one.is_main)
    launches = len(trace.launches)
    says = f"{main + other} graphs in our rows, {launches} cudaGraphLaunch in the trace"
    numbers = {"main": main, "other": other, "launches": launches, "unusable_events": dict(trace.unusable)}
    return Check("replays", main + other == launches > 0, says, numbers)


def coverage(passes: Sequence[Pass], modes: Sequence[str]) -> Check:
    """Whether the window held enough of what the other checks are about."""
    counts = Counter(one.mode for one in passes if one.is_main)
    enough = counts["FULL"] >= LEAST_FULL_PASSES or "FULL" not in modes
    holds = enough and all(counts[mode] for mode in modes)
    says = ", ".join(f"{counts[mode]} {mode}" for mode in sorted(counts)) + " passes in the window"
    return Check("coverage", holds, says, dict(counts))


def launches_of(passes: Sequence[Pass], launches: Sequence[Launch]) -> list[tuple[Pass, list[Launch]]] | None:
    """Each pass with its launches, in order; None where the totals differ, so that no order can be right."""
    if sum(one.graphs for one in passes) != len(launches):
        return None
    pairs, start = [], 0
    for one in passes:
        pairs.append((one, list(launches[start : start + one.graphs])))
        start += one.graphs
    return pairs


def device_time(passes: Sequence[Pass], trace: Trace, mode: str) -> Check:
    """Our event pair around a pass against the span of its graphs' kernels: first start to last end.

    The pair begins when the device reaches the first event, so it also holds the wait for a launch that comes late.
    Compared is the median over the passes.
    """
    name = f"device_time_{mode.lower()}"
    decides = mode == "FULL"
    pairs = launches_of(passes, trace.launches)
    if pairs is None:
        return Check(name, False if decides else None, "replays and launches differ, so no pass has its span", {})
    mine = [(one, launches) for one, launches in pairs if one.is_main and one.mode == mode and launches]
    timed = [(one, launches) for one, launches in mine if one.device_ns is not None]
    spans = [(one.device_ns or 0, _span(launches)) for one, launches in timed if all(part.kernels for part in launches)]
    numbers: dict[str, Any] = {"passes": len(mine), "timed": len(timed), "with_kernels": len(spans)}
    usable = [(device, span) for device, span in spans if span > 0]
    if not usable:
        says = (
            f"of {len(mine)} {mode} passes {len(timed)} have a device time and {len(spans)} their kernels in the trace"
        )
        return Check(name, False if decides else None, says, numbers)
    errors = [device / span - 1 for device, span in usable]
    middle = statistics.median(errors)
    numbers |= {
        "median_error": middle,
        "least_error": min(errors),
        "largest_error": max(errors),
        "median_device_ns": statistics.median(device for device, _ in usable),
        "median_span_ns": statistics.median(span for _, span in usable),
    }
    says = f"{100 * middle:+.2f} % at the median of {len(usable)} {mode} passes of {numbers['median_span_ns'] / 1e6:.3f} ms"
    return Check(name, abs(middle) <= DEVICE_TIME_TOLERANCE if decides else None, says, numbers)


def _span(launches: Sequence[Launch]) -> int:
    return max(part.last_end_ns for part in launches) - min(part.first_start_ns for part in launches)


def captures(rows: Sequence[Cells], result: Mapping[str, Any]) -> Check:
    """Our capture rows against vLLM's compilation_counter; estimate captures are apart, none came while serving."""
    graphs: Counter[str] = Counter()
    for row in rows:
        graphs[row["purpose"]] += int(row["graphs"])
    counted, at_end = result["captured"], result["captured_at_end"]
    holds = graphs["serving"] == counted > 0 and graphs["lazy"] == at_end - counted
    says = f"{graphs['serving']} graphs captured in our rows, {counted} counted by vLLM; {graphs['estimate']} estimates apart"
    return Check("captures", holds, says, {**graphs, "vllm": counted, "vllm_at_end": at_end})


def dispatches(rows: Sequence[Cells], stats: Sequence[Sequence[Any]]) -> Check:
    """Every serving pass of the whole run against vLLM's CUDAGraphStat, one by one, where this version makes them."""
    ours = [[row["runtime_mode"], int(row["unpadded_tokens"]), int(row["num_tokens"])] for row in rows]
    theirs = [list(stat) for stat in stats]
    numbers = {"ours": len(ours), "vllm": len(theirs)}
    if not theirs:
        return Check("dispatches", None, "this vLLM makes no CUDAGraphStat for this runner", numbers)
    different = sum(a != b for a, b in zip(ours, theirs, strict=False)) + abs(len(ours) - len(theirs))
    says = f"{len(ours)} passes in our rows, {len(theirs)} in vLLM's statistics, {different} differ"
    return Check("dispatches", not different, says, numbers | {"different": different})


def check_mode(rows: Sequence[Cells]) -> Check:
    """PROFILEMATE_CHECK_REPLAYS: every call of torch.cuda.CUDAGraph.replay was explained by a site, in every phase."""
    last = {row["phase"]: row for row in rows}
    differences = {
        phase: [int(row["explained"]), int(row["actual"] or 0)]
        for phase, row in last.items()
        if row["explained"] != row["actual"]
    }
    serving = int(last["serving"]["actual"] or 0) if "serving" in last else 0
    says = f"{serving} replay calls while serving, {len(differences)} phases not fully explained"
    return Check("check_mode", serving > 0 and not differences, says, {"serving": serving, "differences": differences})


# -- KV cache -----------------------------------------------------------------------------------------------------------


def kv_cache(rows: Sequence[Cells], oracle: Mapping[str, Any]) -> Check:
    """Totals and every step's split of the pool against the oracle on the same scheduler."""
    if not rows:
        return Check("kv_cache", False, "no row of engine_steps", {})
    last = rows[-1]
    expected = {ours: oracle[theirs] for ours, theirs in KV_COUNTS.items()}
    expected |= {ours: oracle["prefix"][theirs] for ours, theirs in KV_PREFIX.items()}
    different = {name: [int(last[name]), value] for name, value in expected.items() if int(last[name]) != value}
    ends: dict[str, list[int]] = {}
    for row in rows:
        ends.setdefault(row["step"], [int(row[name]) for name in POOL_SPLIT])  # a reset adds a second row to its step
    ends.pop("0", None)
    splits = list(ends.values())
    wrong_splits = sum(a != list(b) for a, b in zip(splits, oracle["rows"], strict=False))
    wrong_splits += abs(len(splits) - len(oracle["rows"]))
    trusted = not oracle["mismatch_count"] and not oracle["unmirrored"]
    covered = oracle["evicted"] > 0 and oracle["prefix"]["hits"] > 0
    says = (
        f"{len(different)} of {len(expected)} totals and {wrong_splits} of {len(splits)} steps differ; "
        f"{oracle['evicted']} evictions, {oracle['preemptions']} preemptions"
    )
    numbers = {
        "different": different,
        "wrong_steps": wrong_splits,
        "oracle_doubts": oracle["mismatches"],
        "unmirrored": oracle["unmirrored"],
        "totals": {name: int(last[name]) for name in expected},
    }
    return Check("kv_cache", trusted and covered and not different and not wrong_splits, says, numbers)


# -- harm ---------------------------------------------------------------------------------------------------------------


def synchronisations(with_us: Trace, calls_with: int, without: Trace, calls_without: int) -> Check:
    """Synchronising calls per engine step in the same window, with ProfileMate and without: no more."""
    ours, theirs = with_us.synchronisations.total(), without.synchronisations.total()
    holds = ours * calls_without <= theirs * calls_with
    says = f"{ours} in {calls_with} steps with ProfileMate, {theirs} in {calls_without} without"
    numbers = {"with": dict(with_us.synchronisations), "without": dict(without.synchronisations)}
    return Check("synchronisations", holds, says, numbers | {"steps_with": calls_with, "steps_without": calls_without})


def answers(with_us: Answers, without: Sequence[Answers]) -> Check:
    """Greedy token ids of every request against a run without ProfileMate.

    Where they differ there is a second run without: if two such runs differ too, the answers cannot tell.
    """
    different = [_differing(with_us, other) for other in without]
    requests, tokens = len(without[0]), sum(map(len, without[0].values()))
    says = f"{requests} requests with {tokens} tokens, {min(different)} differ"
    numbers = {"requests": requests, "tokens": tokens, "different": different}
    if min(different) == 0:
        return Check("answers", tokens > 0, says, numbers)
    among_themselves = max(_differing(other, without[0]) for other in without)
    numbers["different_without"] = among_themselves
    return Check("answers", None if among_themselves else False, f"{says}; {among_themselves} without", numbers)


def _differing(one: Answers, other: Answers) -> int:
    return sum(one.get(name) != other.get(name) for name in one.keys() | other.keys())


def capture_errors(log: str) -> Check:
    """CUDA errors 900 and 901 and their like in the engine's log."""
    found = CAPTURE_ERROR.findall(log)
    return Check("capture_errors", not found, f"{len(found)} in the log", {"found": sorted(set(found))[:5]})


def hooks(health: Sequence[Cells], states: Sequence[Mapping[str, Any]]) -> Check:
    """No hook failed, and those that should fit did."""
    failed = sorted({row["hook"] for row in health if row["failures"] != "0"})
    misfits = sorted(str(hook["name"]) for hook in states if hook["state"] in ("does_not_fit", "absent"))
    put_in = sum(hook["state"] == "put_in" for hook in states)
    says = f"{put_in} put in, {len(misfits)} do not fit, {len(failed)} failed"
    return Check("hooks", bool(put_in) and not failed and not misfits, says, {"failed": failed, "misfits": misfits})


def exit_codes(with_us: Sequence[int | None], without: Sequence[int | None]) -> Check:
    """How the engine processes ended; None where one had to be ended from outside."""
    ours, theirs = Counter(map(str, with_us)), Counter(map(str, without))
    says = f"{', '.join(ours)} with ProfileMate, {', '.join(theirs)} without"
    return Check("exit_codes", ours == theirs, says, {"with": dict(ours), "without": dict(theirs)})


def sides(with_us: Mapping[str, Any], without: Mapping[str, Any]) -> Check:
    """That ProfileMate was in one engine and not in the other."""
    profiled = [bool(with_us["profiled"]), bool(without["profiled"])]
    return Check("sides", profiled == [True, False], f"profiled: {profiled[0]} and {profiled[1]}", {})


# -- cost ---------------------------------------------------------------------------------------------------------------


def throughput(name: str, with_us: Sequence[float], without: Sequence[float]) -> Check:
    """Ratio of the token rates pair by pair. It fails where the interval lies wholly below 0.99."""
    found = ratio.of_pairs(with_us, without)
    says = (
        f"{found.mean:.4f} of the rate without, 95 % interval {found.low:.4f} to {found.high:.4f}, {found.pairs} pairs"
    )
    numbers = {
        "ratio": found.mean,
        "low": found.low,
        "high": found.high if found.pairs > 1 else None,
        "pairs": found.pairs,
        "median_tokens_per_second_with": statistics.median(with_us),
        "median_tokens_per_second_without": statistics.median(without),
    }
    return Check(name, found.high >= LEAST_RATIO_HIGH, says, numbers)


def turns(all_turns: Sequence[Mapping[str, Any]], dispatch_times_ns: Sequence[int]) -> Check:
    """That rows came in every round with the hooks in and none with them out."""
    rounds = {"in": 0, "out": 0}
    wrong = 0
    for turn in all_turns:
        for name, part in turn.items():
            rows = sum(part["began_ns"] <= time_ns <= part["ended_ns"] for time_ns in dispatch_times_ns)
            rounds[name] += 1
            wrong += bool(rows) != (name == "in")
    says = f"{rounds['in']} rounds with hooks, {rounds['out']} without, {wrong} of the wrong kind"
    return Check("turns", rounds["in"] == rounds["out"] > 0 and not wrong, says, {**rounds, "wrong": wrong})


def memory(with_us: Sequence[Mapping[str, int]], without: Sequence[Mapping[str, int]]) -> Check:
    """Peak of PyTorch's allocator: ProfileMate allocates no tensor. What the device has in use informs."""
    if not all(with_us) or not all(without):
        return Check("memory", None, "there is no device to ask", {})
    medians = {
        name: [statistics.median(run[name] for run in side) for side in (with_us, without)] for name in without[0]
    }
    more = medians["peak_allocated_bytes"][0] - medians["peak_allocated_bytes"][1]
    used = medians["device_used_bytes"][0] - medians["device_used_bytes"][1]
    says = f"{more / 1e6:+.3f} MB at the allocator's peak, {used / 1e6:+.1f} MB in use on the device"
    return Check("memory", more <= ALLOCATED_TOLERANCE_BYTES, says, {"with_and_without": medians})
