"""The key numbers, one list. Seconds, tokens, requests, shares of one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from profilemate.compare.number import (
    COUNT,
    LESS,
    MORE,
    NEUTRAL,
    RATIO,
    SHARE,
    Fixed,
    Mean,
    Number,
    Quantile,
    Rate,
    Ratio,
    Rows,
)  # fmt: skip
from profilemate.session.records import items_of, table_of
from profilemate.trackers.engine_steps.events import LIMITS
from profilemate.trackers.engine_steps.summary import LIMIT_WORDS

ARRIVED = Rows("requests", "arrival")
ENDED = Rows("requests", "end")
STEPS = Rows("steps")
BUSY = Rows("steps", where="is_busy")
PASSES = Rows("passes")
GRAPH_PASSES = Rows("passes", where="has_graph_cells")
PREEMPTIONS = Rows("preemptions")

LEVELS = (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))


def _kv_peak(metadata: Mapping[str, Any]) -> float | None:
    cache = table_of(table_of(metadata.get("summary")).get("kv_cache"))
    peak, total = cache.get("peak_blocks"), cache.get("peak_total_blocks")
    return peak / total if isinstance(peak, int) and isinstance(total, int) and total else None


def _own_cost(metadata: Mapping[str, Any]) -> float | None:
    costs = items_of(table_of(metadata.get("summary")).get("own_cost"))
    shares = [table_of(cost).get("share") for cost in costs]
    return max((share for share in shares if isinstance(share, float)), default=None)


def _spread(
    name: str, title: str, group: str, rows: Rows, column: str, only: tuple[str, ...] = ("mean", "p50", "p95", "p99")
) -> Iterator[Number]:
    """Mean and quantiles of a duration."""
    if "mean" in only:
        yield Number(f"{name}_mean", f"{title}, mean", "s", LESS, RATIO, group, Mean(rows, column))
    for word, level in LEVELS:
        if word in only:
            yield Number(f"{name}_{word}", f"{title}, {word}", "s", LESS, RATIO, group, Quantile(rows, column, level))


def _throughput() -> Iterator[Number]:
    for name, title, unit, column in (
        ("output_throughput", "output tokens", "tokens/s", "output_tokens"),
        ("prompt_throughput", "prompt tokens", "tokens/s", "prompt_tokens"),
        ("request_throughput", "requests done", "requests/s", ""),
    ):
        yield Number(name, title, unit, MORE, RATIO, "Throughput", Rate(ENDED, column))


def _latencies() -> Iterator[Number]:
    yield from _spread("ttft", "time to first token", "Latency", ARRIVED, "ttft")
    yield from _spread("tpot", "time per output token", "Latency", ARRIVED, "tpot")
    yield from _spread("e2e", "end to end", "Latency", ARRIVED, "e2e")
    yield from _spread("queue", "queue time", "Latency", ARRIVED, "queue")


def _steps() -> Iterator[Number]:
    yield from _spread("step_time", "engine step", "Engine steps", BUSY, "wall")
    yield from _spread("schedule_time", "scheduling", "Engine steps", BUSY, "schedule", ("mean", "p95"))
    yield from _spread("update_time", "update", "Engine steps", BUSY, "update", ("mean", "p95"))
    for name, title, column in (
        ("batch_requests", "requests in a step", "requests"), ("batch_tokens", "tokens in a step", "tokens"),
    ):  # fmt: skip
        yield Number(f"{name}_mean", f"{title}, mean", "", NEUTRAL, RATIO, "Engine steps", Mean(BUSY, column))
        yield Number(f"{name}_p95", f"{title}, p95", "", NEUTRAL, RATIO, "Engine steps", Quantile(BUSY, column, 0.95))
    yield Number("running", "running requests, mean", "", NEUTRAL, COUNT, "Engine steps", Mean(BUSY, "running"))
    yield Number("waiting", "waiting requests, mean", "", LESS, COUNT, "Engine steps", Mean(BUSY, "waiting"))
    for limit in LIMITS:
        title = f"steps bound by {LIMIT_WORDS[limit]}"
        better = LESS if limit == "kv_space" else NEUTRAL
        yield Number(f"bound_by_{limit}", title, "%", better, SHARE, "Engine steps", Mean(STEPS, f"limit_{limit}"))


def _passes() -> Iterator[Number]:
    for phase in ("prefill", "decode", "mixed"):
        rows = Rows("passes", where=f"is_{phase}")
        yield from _spread(f"{phase}_pass", f"{phase} pass", "Forward passes", rows, "seconds", ("mean", "p50", "p95"))


def _graphs() -> Iterator[Number]:
    for name, title, column, better in (
        ("full_graph_share", "passes by FULL graph", "is_full", NEUTRAL),
        ("piecewise_graph_share", "passes by PIECEWISE graph", "is_piecewise", NEUTRAL),
        ("no_graph_share", "passes without a graph", "is_uncovered", LESS),
    ):
        yield Number(name, title, "%", better, SHARE, "CUDA graphs", Mean(GRAPH_PASSES, column))
    padding = Ratio(GRAPH_PASSES, "padding", GRAPH_PASSES, "padded")
    yield Number("padding_share", "padding in replayed passes", "%", LESS, SHARE, "CUDA graphs", padding)
    replays = Rate(GRAPH_PASSES, "is_replayed")
    yield Number("replay_rate", "passes that replayed", "1/s", NEUTRAL, COUNT, "CUDA graphs", replays)


def _kv_cache() -> Iterator[Number]:
    group = "KV cache"
    mean = Ratio(STEPS, "used_block_seconds", STEPS, "block_seconds")
    yield Number("kv_usage_mean", "KV usage over time, mean", "%", NEUTRAL, SHARE, group, mean)
    p95 = Quantile(STEPS, "kv_usage", 0.95, "seconds")
    yield Number("kv_usage_p95", "KV usage over time, p95", "%", NEUTRAL, SHARE, group, p95)
    peak = Fixed(_kv_peak)
    yield Number("kv_usage_peak", "KV usage, peak of the session", "%", NEUTRAL, SHARE, group, peak)
    hits = Ratio(STEPS, "hit_tokens", STEPS, "query_tokens")
    yield Number("hit_rate", "prefix cache hit rate", "%", MORE, SHARE, group, hits)
    for name, title, rows, column in (
        ("evictions", "evicted blocks per request", STEPS, "evicted"),
        ("preemptions", "preemptions per request", STEPS, "preempted"),
        ("lost_tokens", "tokens lost per request", PREEMPTIONS, "lost_tokens"),
    ):
        yield Number(name, title, "", LESS, COUNT, group, Ratio(rows, column, ENDED, ""))


def _rest() -> Iterator[Number]:
    accepted = Ratio(STEPS, "accepted", STEPS, "drafted")
    yield Number("acceptance", "drafted tokens accepted", "%", MORE, SHARE, "Speculative decoding", accepted)
    cost = Fixed(_own_cost)
    yield Number("own_cost", "ProfileMate's part of the busiest process", "%", LESS, SHARE, "Own cost", cost)


def _load() -> Iterator[Number]:
    group = "Load"
    for name, title, unit, measure in (
        ("arrival_rate", "requests that came", "requests/s", Rate(ARRIVED, "")),
        ("prompt_length", "tokens of a prompt, mean", "", Mean(ARRIVED, "prompt_tokens")),
        ("output_length", "tokens of an answer, mean", "", Mean(ARRIVED, "output_tokens")),
        ("in_flight", "requests in the server, mean", "", Rate(ARRIVED, "stay")),
    ):
        yield Number(name, title, unit, NEUTRAL, RATIO, group, measure, is_load=True)


NUMBERS: tuple[Number, ...] = (
    *_load(), *_throughput(), *_latencies(), *_steps(), *_passes(), *_graphs(), *_kv_cache(), *_rest(),
)  # fmt: skip

BY_NAME = {number.name: number for number in NUMBERS}
