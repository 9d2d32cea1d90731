"""Figures of preemptions: when and why, and what became of the tokens that they cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import altair as alt
import polars as pl

from profilemate.figures import style
from profilemate.figures.bars import span_tooltip, stacked_bars
from profilemate.figures.requests import requests_of
from profilemate.figures.source import Drawn, Missing, engine_rows, lost_note, notes, nothing
from profilemate.figures.style import kinds, present
from profilemate.figures.thin import SECOND, Bins, bins, sums
from profilemate.figures.words import duration
from profilemate.schema.step_table import BASE
from profilemate.trackers.requests import events
from profilemate.trackers.requests.life import Preemption

if TYPE_CHECKING:
    from profilemate.frames.session import Session

REASONS = {"no_blocks": "no free KV blocks", "prefix_cache_reset": "prefix cache reset"}
REASON_KINDS = kinds((REASONS["no_blocks"], "vermilion"), (REASONS["prefix_cache_reset"], "orange"), ("other", "grey"))
KEPT, RECOMPUTED, OTHER = "found again in the cache", "computed again", "not computed again"
TOKEN_KINDS = kinds((KEPT, "blue"), (RECOMPUTED, "vermilion"), (OTHER, "grey"))


def _preempted(session: Session) -> list[Preemption]:
    lives = requests_of(session)
    found = sorted((one for life in lives for one in life.preempted), key=lambda one: one.time_ns)
    if not found:
        counted = sum(life.preemptions for life in lives)
        if counted:
            raise Missing(f"preemptions that vLLM counted: {counted:,}; no row tells of them")
        raise nothing(session, f"none of the {len(lives):,} requests was preempted", events.PREEMPTIONS)
    return found


def _grid(session: Session, found: list[Preemption]) -> Bins:
    """Over the whole run of the engine, so that a quiet hour is seen as one."""
    span = (
        engine_rows(session, BASE).select(pl.col("at_ns").min().alias("first"), pl.col("at_ns").max().alias("last"))
    ).collect(engine="streaming")  # fmt: skip
    moments = [found[0].time_ns, found[-1].time_ns, *(moment for moment in span.row(0) if moment is not None)]
    return bins(min(moments), max(moments))


def preemptions(session: Session) -> Drawn:
    """Preemptions by bin of time and reason; the tooltip has the tokens that they cost."""
    found = _preempted(session)
    grid = _grid(session, found)
    rows = pl.LazyFrame(
        {
            "at_ns": [one.time_ns for one in found],
            "kind": [REASONS.get(one.reason, "other") for one in found],
            "lost_tokens": [one.lost_tokens or 0 for one in found],
        }
    )
    counted = sums(rows, grid, ["kind"], "lost_tokens").rename({"rows": "preemptions"})
    lost = counted["lost_tokens"].sum()
    requests = len({one.request for one in found})
    delays = [one.delay_ns for one in found if one.delay_ns is not None]
    says = f"{len(found):,} preemptions of {requests:,} requests lost {lost:,} computed tokens"
    says += (
        f"; a request waited {duration(sum(delays) / len(delays) / SECOND)} on average to run again." if delays else "."
    )
    tooltip = [
        *span_tooltip(grid), *style.tips("kind|reason", "preemptions|preemptions|,", "lost_tokens|lost tokens|,"),
    ]  # fmt: skip
    y = alt.Y("preemptions:Q", title=f"preemptions in {grid.width_text}", axis=alt.Axis(tickMinStep=1))
    chart = stacked_bars(counted, grid, present(REASON_KINDS, counted["kind"].unique().to_list()), y, tooltip)
    return Drawn(style.chart_of(chart, says), says, notes(lost_note(session, events.PREEMPTIONS)))


def preemption_cost(session: Session) -> Drawn:
    """Computed tokens that preemptions lost, by bin of time and by what became of them."""
    found = _preempted(session)
    grid = _grid(session, found)
    parts = [(one.time_ns, kind, tokens) for one in found for kind, tokens in _parts(one)]
    rows = pl.LazyFrame(parts, schema={"at_ns": pl.Int64, "kind": pl.String, "tokens": pl.Int64}, orient="row")
    counted = sums(rows, grid, ["kind"], "tokens").filter(pl.col("tokens") > 0)
    total = dict(counted.group_by("kind").agg(pl.col("tokens").sum()).rows())
    whole = sum(total.values())
    if not whole:
        raise Missing(f"the {len(found):,} preemptions lost no computed token")
    recomputing = [one.recompute_ns for one in found if one.recompute_ns is not None]
    said = ", ".join(f"{total[kind.label]:,} {kind.label}" for kind in TOKEN_KINDS if total.get(kind.label))
    says = f"{whole:,} computed tokens were lost: {said}"
    says += f"; computing again took {duration(sum(recomputing) / SECOND)} in all." if recomputing else "."
    tooltip = [
        *span_tooltip(grid), *style.tips("kind|tokens", "tokens|number|,"),
    ]  # fmt: skip
    y = alt.Y("tokens:Q", title=f"lost tokens in {grid.width_text}", axis=style.amounts())
    chart = stacked_bars(counted, grid, present(TOKEN_KINDS, list(total)), y, tooltip)
    return Drawn(
        style.chart_of(chart, says), says,
        notes(
            "Not computed again: the request ended, or was preempted once more, before that.",
            lost_note(session, events.PREEMPTIONS),
        ),
    )  # fmt: skip


def _parts(one: Preemption) -> list[tuple[str, int]]:
    lost = one.lost_tokens or 0
    kept = min(one.kept_tokens or 0, lost)
    again = min(one.recomputed_tokens or 0, lost - kept)
    return [(KEPT, kept), (RECOMPUTED, again), (OTHER, lost - kept - again)]
