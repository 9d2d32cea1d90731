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

if TYPE_CHECKING:
    from profilemate.frames.session import Session

REASONS = {"no_blocks": "no free KV blocks", "prefix_cache_reset": "prefix cache reset"}
OTHER_REASON = "other"
REASON_KINDS = kinds(
    (REASONS["no_blocks"], "vermilion"), (REASONS["prefix_cache_reset"], "orange"), (OTHER_REASON, "grey")
)
KEPT, RECOMPUTED, OTHER = "found again in the cache", "computed again", "not computed again"
TOKEN_KINDS = kinds((KEPT, "blue"), (RECOMPUTED, "vermilion"), (OTHER, "grey"))


def _preempted(session: Session) -> pl.DataFrame:
    """A row for each, in order of time. Raises Missing."""
    requests = requests_of(session)
    if requests.preemptions.is_empty():
        counted = requests.counted_preemptions
        if counted:
            raise Missing(f"preemptions that vLLM counted: {counted:,}; no row tells of them")
        raise nothing(session, f"none of the {requests.count:,} requests was preempted", events.PREEMPTIONS)
    return requests.preemptions


def _grid(session: Session, found: pl.DataFrame) -> Bins:
    """Over the whole run of the engine, so that a quiet hour is seen as one."""
    span = (
        engine_rows(session, BASE).select(pl.col("at_ns").min().alias("first"), pl.col("at_ns").max().alias("last"))
    ).collect(engine="streaming")  # fmt: skip
    moments = [found["at_ns"][0], found["at_ns"][-1], *(moment for moment in span.row(0) if moment is not None)]
    return bins(min(moments), max(moments))


def preemptions(session: Session) -> Drawn:
    """Preemptions by bin of time and reason; the tooltip has the tokens that they cost."""
    found = _preempted(session)
    grid = _grid(session, found)
    rows = found.lazy().select(
        "at_ns",
        pl.col("reason").replace_strict(REASONS, default=OTHER_REASON).alias("kind"),
        pl.col("lost_tokens").fill_null(0),
    )
    counted = sums(rows, grid, ["kind"], "lost_tokens").rename({"rows": "preemptions"})
    lost = counted["lost_tokens"].sum()
    delay_ns = found["delay_ns"].mean()
    says = f"{len(found):,} preemptions of {found['request'].n_unique():,} requests lost {lost:,} computed tokens"
    says += (
        f"; a request waited {duration(delay_ns / SECOND)} on average to run again."
        if isinstance(delay_ns, float)
        else "."
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
    counted = sums(_parts(found), grid, ["kind"], "tokens").filter(pl.col("tokens") > 0)
    total = dict(counted.group_by("kind").agg(pl.col("tokens").sum()).rows())
    whole = sum(total.values())
    if not whole:
        raise Missing(f"the {len(found):,} preemptions lost no computed token")
    recomputing = found["recompute_ns"].drop_nulls()
    said = ", ".join(f"{total[kind.label]:,} {kind.label}" for kind in TOKEN_KINDS if total.get(kind.label))
    says = f"{whole:,} computed tokens were lost: {said}"
    says += f"; computing again took {duration(float(recomputing.sum()) / SECOND)} in all." if len(recomputing) else "."
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


def _parts(found: pl.DataFrame) -> pl.LazyFrame:
    """The lost tokens of each preemption by what became of them: `at_ns`, `kind`, `tokens`."""
    lost = pl.col("lost_tokens").fill_null(0)
    kept = pl.min_horizontal(pl.col("kept_tokens").fill_null(0), lost)
    again = pl.min_horizontal(pl.col("recomputed_tokens").fill_null(0), lost - kept)
    parts = found.lazy().select("at_ns", kept.alias(KEPT), again.alias(RECOMPUTED), (lost - kept - again).alias(OTHER))
    return parts.unpivot(index="at_ns", variable_name="kind", value_name="tokens")
