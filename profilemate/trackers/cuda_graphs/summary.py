"""What the summary says about the CUDA graphs: as plain data for metadata.json, and as lines for people."""

from __future__ import annotations

from typing import Any

from profilemate.export.values import in_seconds, rounded
from profilemate.export.words import NAMED, count_text, seconds_text, share_text
from profilemate.session.records import items_of, table_of, text
from profilemate.trackers.cuda_graphs.analyze import GraphSummary, GraphUsage
from profilemate.trackers.view import Record

TOP_GRAPHS = 10
WIDEST_NAME = 46


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
        "capture_seconds": in_seconds(sum(capture.duration_ns or 0 for capture in graphs.captures)),
        "replays": graphs.replays,
        "padded_tokens": graphs.padded_tokens,
        "padding_tokens": graphs.padding_tokens,
        "padding_fraction": rounded(graphs.padding_fraction),
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


def lines(graphs: Record) -> list[str]:
    """Coverage, padding, what was captured in vain, and the most replayed graphs."""
    return [*graph_lines(graphs), *top_lines(graphs)]


def graph_lines(graphs: dict[str, Any]) -> list[str]:
    """Coverage, padding and what was captured in vain."""
    passes = table_of(graphs.get("forward_passes"))
    total = passes.get("total")
    if not total and not graphs.get("graphs_captured"):
        return ["no serving forward pass and no captured graph was recorded"]
    modes = ", ".join(
        f"{name} {count_text(passes.get(key))} ({share_text(passes.get(key), total)})"
        for name, key in (("full graph", "full_graph"), ("piecewise", "piecewise_graph"), ("no graph", "no_graph"))
    )
    lines = [f"forward passes {count_text(total)}: {modes}"]
    padded = graphs.get("padded_tokens")
    lines.append(
        f"padding: {share_text(graphs.get('padding_tokens'), padded)} of {count_text(padded)} tokens in replayed graphs"
        if padded
        else "padding: no graph was replayed"
    )
    never = items_of(graphs.get("never_replayed"))
    lines.append(
        f"captured {count_text(graphs.get('graphs_captured'))} graphs in {seconds_text(graphs.get('capture_seconds'))}, "
        f"never replayed {len(never)}"
    )
    if never:
        lines.append(
            f"never replayed: {'; '.join(text(name) for name in never[:NAMED])}"
            + (" ..." if len(never) > NAMED else "")
        )
    if graphs.get("other_replays"):
        lines.append(f"drafter, encoder and micro-batch replays: {count_text(graphs.get('other_replays'))}")
    faults = table_of(passes.get("faults"))
    if faults:
        lines.append("not plain passes: " + ", ".join(f"{text(name)} {count_text(n)}" for name, n in faults.items()))
    return lines + _phase_lines(items_of(graphs.get("phases")))


def _phase_lines(phases: list[Any]) -> list[str]:
    checked = [table_of(phase) for phase in phases if table_of(phase).get("unexplained") is not None]
    if not checked:
        return []
    words = ", ".join(f"{text(phase.get('phase'))} {count_text(phase.get('unexplained'))}" for phase in checked)
    return [f"replays that no hook explained, by phase: {words}"]


def top_lines(graphs: dict[str, Any]) -> list[str]:
    """A table of the most replayed graphs."""
    top = [table_of(usage) for usage in items_of(graphs.get("top"))]
    if not top:
        return []
    total = graphs.get("replays")
    lines = [f"{'most replayed graphs':<{WIDEST_NAME}} {'replays':>10} {'share':>8} {'padding':>8}"]
    for usage in top:
        padded = usage.get("padded_tokens") or 0
        padding = share_text(padded - (usage.get("unpadded_tokens") or 0), padded)
        count = usage.get("replay_count")
        lines.append(
            f"{text(usage.get('graph')):<{WIDEST_NAME}} {count_text(count):>10} {share_text(count, total):>8} {padding:>8}"
        )
    return lines
