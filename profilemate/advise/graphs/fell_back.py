"""Passes that ran in a lower mode than their configuration has, by cause, and what that cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from profilemate.advise.finding import ACT, FINE, LOOK, Evidence, Finding
from profilemate.advise.graphs import causes, words
from profilemate.advise.graphs.costs import CostModel, cost_model
from profilemate.advise.graphs.rules import FULL
from profilemate.advise.graphs.use_finding import MIN_PASSES, MOST_NAMED, use_finding

if TYPE_CHECKING:
    from profilemate.advise.graphs.causes import Fallback
    from profilemate.advise.graphs.reading import GraphData
    from profilemate.frames.session import Session

MOST_SIZES = 20


def times_by_mode(session: Session, data: GraphData) -> CostModel:
    """Device times of every mode that passes ran in."""
    modes = {batch.mode for batch in data.batches.groups}
    return cost_model(session, data.setup.config.get("device"), modes)


def fallback_findings(data: GraphData, times: CostModel) -> list[Finding]:
    """One finding over all causes; those that nobody would mend do not raise its level."""
    rows = causes.fallbacks(data)
    total = data.batches.passes
    if not rows:
        return [
            use_finding(
                "fallbacks", FINE, "No pass fell back to a lower mode", f"{words.passes(total)}, each in the best graph "
                "that its configuration has.", evidence=(Evidence("forward_passes", total),), numbers={"fallbacks": []},
            )
        ]  # fmt: skip
    to_mend = [row for row in rows if not row.cause.is_normal]
    return [
        use_finding(
            "fallbacks",
            _fallback_level(to_mend, total),
            _fallback_title(rows, to_mend, total),
            " ".join(_fallback_says(row, data, times) for row in rows),
            evidence=tuple(
                Evidence("forward_passes", row.passes, f"{row.mode}: {row.cause.says}") for row in rows[:MOST_NAMED]
            ),
            flags=_mode_flags(to_mend, total),
            to_be_sure="" if to_mend else "Launch cost weighs little on large prefills; their device time tells.",
            numbers={
                "fallbacks": [_row(row, data, times) for row in rows], "passes": total,
                "passes_without_rows": data.batches.lost, "cost_from": times.why,
            },
        )
    ]  # fmt: skip


MUCH = 0.01
"""Share of all passes that a cause must have before its passes are more than something to look at."""


def _fallback_level(to_mend: list[Fallback], total: int) -> str:
    if not to_mend:
        return FINE
    return ACT if _mode_flags(to_mend, total) else LOOK


def _mode_flags(to_mend: list[Fallback], total: int) -> tuple[str, ...]:
    """The mode is the cause of no graph for mixed batches; sizes are capture_sizes' matter."""
    mixed = sum(row.passes for row in to_mend if row.cause is causes.MIXED_DECODE_ONLY)
    if total < MIN_PASSES or mixed < MUCH * total:
        return ()
    return ('--compilation-config \'{"cudagraph_mode": "FULL_AND_PIECEWISE"}\'',)


def _fallback_title(rows: list[Fallback], to_mend: list[Fallback], total: int) -> str:
    if not to_mend:
        return (
            f"{words.of(sum(row.passes for row in rows), total)} passes ran without a graph, none for a reason to mend"
        )
    count = sum(row.passes for row in to_mend)
    return f"{words.of(count, total)} passes fell back; most: {to_mend[0].cause.says}"


def _fallback_says(row: Fallback, data: GraphData, times: CostModel) -> str:
    smallest, largest = min(size for size, _ in row.sizes), max(size for size, _ in row.sizes)
    span = f"{smallest}" if smallest == largest else f"{smallest} to {largest}"
    sentence = f"{words.passes(row.passes)} in {row.mode} ({span} tokens): {row.cause.says}"
    seconds = _seconds_more(row, data, times)
    return (
        f"{sentence}." if seconds is None else f"{sentence}; about {seconds:.2f} s more of device time than in a graph."
    )


def _seconds_more(row: Fallback, data: GraphData, times: CostModel) -> float | None:
    """Modelled device time of these passes above that of the graphs they would have had; None where none is known."""
    best = FULL if row.cause in (causes.DECODE_ABOVE, causes.DECODE_RESERVED) else data.setup.rules.mixed_mode
    if not times.is_time or best not in times.curves or row.mode not in times.curves or row.cause.is_normal:
        return None
    more = sum(count * (times.of(row.mode, size) - times.of(best, size)) for size, count in row.sizes)
    return more / 1e9


def _row(row: Fallback, data: GraphData, times: CostModel) -> dict[str, Any]:
    return {
        "runtime_mode": row.mode, "cause": row.cause.name, "passes": row.passes, "tokens": row.tokens,
        "is_normal": row.cause.is_normal, "seconds_more": _seconds_more(row, data, times),
        "sizes": [{"tokens": size, "passes": count} for size, count in row.sizes[:MOST_SIZES]],
        "sizes_left_out": max(0, len(row.sizes) - MOST_SIZES),
    }  # fmt: skip
