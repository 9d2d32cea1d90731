"""Figures of evicted blocks: when and why, how old they were, how long nobody had used them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import altair as alt
import polars as pl

from profilemate.figures import style
from profilemate.figures.bars import span_tooltip, stacked_bars
from profilemate.figures.columns import mean, median
from profilemate.figures.distribution import Series, distribution
from profilemate.figures.kv_usage import grid_of
from profilemate.figures.source import Drawn, engine_rows, lost_note, notes, nothing, several_engines
from profilemate.figures.style import kinds, present
from profilemate.figures.thin import SECOND, sums
from profilemate.figures.words import duration, share
from profilemate.trackers.kv_cache import events

if TYPE_CHECKING:
    from profilemate.frames.session import Session

CAUSES = {"allocation": "the block was handed out again", "invalidation": "the cache was told to drop it"}
COLOURS = kinds((CAUSES["allocation"], "blue"), (CAUSES["invalidation"], "orange"), ("cause not known", "grey"))
LIFETIME, IDLE = "lifetime", "idle time"
HEALTHY_LIFETIME_SECONDS = 10


def kv_evictions(session: Session) -> Drawn:
    """Evicted blocks per bin of time, by cause."""
    rows = engine_rows(session, events.EVICTIONS)
    grid = grid_of(session, engine_rows(session, events.STEPS))
    counted = _counted(session)
    found = sums(rows, grid, ["cause"])
    if found.is_empty():
        raise nothing(session, f"{counted:,} blocks were evicted, and no row tells when", events.EVICTIONS)
    blocks = found.with_columns(
        pl.col("cause").replace_strict(CAUSES, default="cause not known").alias("kind"), pl.col("rows").alias("blocks")
    ).select("bin", "kind", "blocks")
    in_rows = blocks["blocks"].sum()
    busiest = blocks.group_by("bin").agg(pl.col("blocks").sum()).sort("blocks", "bin").row(-1)
    at = grid.moment(busiest[0] * grid.width_ns + grid.start_ns)
    says = f"{counted:,} cached blocks were evicted; at most {busiest[1]:,} within {grid.width_text}, at {at}."
    tooltip = [
        *span_tooltip(grid),
        *style.tips("kind|because", "blocks|blocks|,"),
    ]
    y = alt.Y("blocks:Q", title=f"evicted blocks in {grid.width_text}")
    chart = stacked_bars(blocks, grid, present(COLOURS, blocks["kind"].unique().to_list()), y, tooltip)
    gone = "" if in_rows == counted else f"{counted - in_rows:,} of them have no row and are not in the bars."
    return Drawn(
        style.chart_of(chart, says), says,
        notes(gone, several_engines(session, events.STEPS), lost_note(session, events.EVICTIONS)),
    )  # fmt: skip


def _counted(session: Session) -> int:
    """Evictions by the cumulative counter, that is whatever rows are left. Raises Missing where there was none."""
    last = (
        engine_rows(session, events.STEPS)
        .group_by("process", "engine")
        .agg(pl.col("evicted").max())
        .select(pl.col("evicted").sum())
        .collect(engine="streaming")
    )
    evicted = int(last["evicted"][0] or 0)
    if not evicted:
        raise nothing(session, "no cached block was evicted", events.EVICTIONS)
    return evicted


def kv_eviction_ages(session: Session) -> Drawn:
    """How long evicted blocks had lived, and how long nobody had used them, as shares of the evicted blocks."""
    ages = (
        engine_rows(session, events.EVICTIONS)
        .select(
            ((pl.col("time_ns") - pl.col("allocated_ns")) / SECOND).alias(LIFETIME),
            ((pl.col("time_ns") - pl.col("used_ns")) / SECOND).alias(IDLE),
        )
        .collect(engine="streaming")
    )
    if not ages.height:
        grid_of(session, engine_rows(session, events.STEPS))
        raise nothing(session, f"{_counted(session):,} blocks were evicted, and no row tells of them", events.EVICTIONS)
    known = ages[LIFETIME].drop_nulls().len()
    if not known:
        raise nothing(
            session, f"{ages.height:,} blocks were evicted, all allocated before ProfileMate came", events.EVICTIONS
        )
    young = mean((ages[LIFETIME].drop_nulls() < HEALTHY_LIFETIME_SECONDS).cast(pl.Float64))
    says = (
        f"Half of the {known:,} evicted blocks had lived less than {duration(median(ages[LIFETIME]))} and had not been used "
        f"for {duration(median(ages[IDLE]))} or more; {share(young, 1)} had lived less than {HEALTHY_LIFETIME_SECONDS} s."
    )
    chart = distribution(
        [Series(LIFETIME, "blue", ages[LIFETIME]), Series(IDLE, "orange", ages[IDLE])], "time (s)", "evicted blocks"
    )
    unknown = ages.height - known
    return Drawn(
        style.chart_of(chart, says), says,
        notes(
            f"{unknown:,} blocks were allocated before ProfileMate came and are left out." if unknown else "",
            "Only blocks that were evicted are in it: those still in the cache may be older.",
            lost_note(session, events.EVICTIONS),
        ),
    )  # fmt: skip
