"""The summary as plain data: what metadata.json keeps and `profilemate summary` shows."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from profilemate.export.analysis import Analysis
from profilemate.session.health import Health, HookHealth
from profilemate.session.own_cost import ProcessCost
from profilemate.trackers.cuda_graphs.analyze import GraphSummary, GraphUsage
from profilemate.trackers.kv_cache.analyze import KvSummary

TOP_GRAPHS = 10
NAMED_HOOKS = 40
Record = dict[str, Any]


def summary_record(analysis: Analysis) -> Record:
    """Graphs, KV cache and health of a session."""
    return {
        "cuda_graphs": graph_record(analysis.graphs),
        "kv_cache": kv_record(analysis.kv),
        "health": health_record(analysis.health),
        "own_cost": [own_cost_record(cost) for cost in analysis.own_cost],
    }


def graph_record(graphs: GraphSummary) -> Record:
    """Coverage, padding and the most replayed graphs."""
    coverage = graphs.coverage
    return {
        "forward_passes": {
            "total": coverage.forwards,
            "full_graph": coverage.full,
            "piecewise_graph": coverage.piecewise,
            "no_graph": coverage.none,
            "faults": dict(coverage.faults),
        },
        "graphs_captured": sum(1 for usage in graphs.usages if usage.captures),
        "capture_seconds": _seconds(sum(capture.duration_ns or 0 for capture in graphs.captures)),
        "replays": graphs.replays,
        "padded_tokens": graphs.padded_tokens,
        "padding_tokens": graphs.padding_tokens,
        "padding_fraction": _rounded(graphs.padding_fraction),
        "top": [_usage_record(usage) for usage in graphs.usages[:TOP_GRAPHS] if usage.replays],
        "never_replayed": [usage.descriptor.label for usage in graphs.never_replayed],
        "other_replays": sum(usage.replays for usage in graphs.others),
        "phases": [
            {
                "phase": phase.phase,
                "explained": phase.explained,
                "actual": phase.actual,
                "unexplained": phase.unexplained,
            }
            for phase in graphs.phases
        ],
    }


def _usage_record(usage: GraphUsage) -> Record:
    return {
        "graph": usage.descriptor.label,
        "replay_count": usage.replays,
        "pieces": usage.pieces,
        "captures": usage.captures,
        "padded_tokens": usage.padded_tokens,
        "unpadded_tokens": usage.unpadded_tokens,
    }


def kv_record(kv: KvSummary) -> Record:
    """Peak, totals, hit rate and evictions, summed over engines."""
    totals = kv.totals
    counters: Record = {name: value for name, value in asdict(totals).items() if not name.endswith("_ns")}
    counters["steps"] = counters.pop("step")
    if not kv.engines:
        counters = dict.fromkeys(counters)
    peak, last = kv.peak, kv.last
    return {
        "engines": [
            {
                "engine": engine.engine,
                "process": engine.process,
                "total_blocks": engine.total_blocks,
                "peak_blocks": engine.peak,
                "blocks_in_use": engine.in_use,
                "steps": engine.totals.step,
            }
            for engine in kv.engines
        ],
        "total_blocks": last.total_blocks if last else None,
        "blocks_in_use": last.in_use if last else None,
        "peak_blocks": peak.in_use if peak else None,
        "peak_total_blocks": peak.total_blocks if peak else None,
        "peak_time_sec": _seconds(peak.time_ns) if peak else None,
        "peak_is_exact": kv.peak_is_exact,
        "as_of_sec": _seconds(kv.as_of_ns),
        **counters,
        "hit_rate": _rounded(totals.hit_rate),
        "mean_lifetime_sec": _rounded(totals.mean_lifetime_seconds),
        "mean_idle_sec": _rounded(totals.mean_idle_seconds),
    }


def health_record(health: Health) -> Record:
    """Hooks that did not do their work, and lost rows by table and reason."""
    lost: dict[tuple[str, str], int] = {}
    for row in health.lost:
        lost[row.table, row.reason] = lost.get((row.table, row.reason), 0) + row.rows
    return {
        "as_of_sec": _seconds(health.as_of_ns),
        "hooks_in_place": len(health.in_state("put_in")),
        "did_not_fit": [_hook_record(hook) for hook in health.misfits[:NAMED_HOOKS]],
        "never_called": [hook.name for hook in health.never_called[:NAMED_HOOKS]],
        "not_in_use": dict(list(health.not_in_use.items())[:NAMED_HOOKS]),
        "failed": [{**_hook_record(hook), "failures": hook.failures} for hook in health.failed[:NAMED_HOOKS]],
        "lost_rows": [{"table": table, "reason": why, "rows": rows} for (table, why), rows in sorted(lost.items())],
    }


def _hook_record(hook: HookHealth) -> Record:
    return {"name": hook.name, "state": hook.state, "reason": hook.reason}


def own_cost_record(cost: ProcessCost) -> Record:
    """Time in our own code in one process, estimated from `timed_calls` of each hook's calls."""
    return {
        "process": cost.process,
        "role": cost.role,
        "seconds": _seconds(cost.spent_ns),
        "run_seconds": _seconds(cost.run_ns),
        "share": _rounded(cost.share),
        "steps": cost.steps,
        "microseconds_per_step": None if cost.step_ns is None else round(cost.step_ns / 1e3, 3),
        "hooks": [
            {
                "name": hook.hook,
                "calls": hook.calls,
                "timed_calls": hook.timed_calls,
                "seconds": _seconds(hook.spent_ns),
            }
            for hook in cost.hooks
        ],
    }


def _seconds(nanoseconds: float | None) -> float | None:
    return None if nanoseconds is None else round(nanoseconds / 1e9, 6)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 9)
