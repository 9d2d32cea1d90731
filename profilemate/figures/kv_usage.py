"""Figures of the KV cache's blocks over time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import altair as alt
import polars as pl

from profilemate.figures import style
from profilemate.figures.bars import span_tooltip, stacked_bars, to_the_end
from profilemate.figures.columns import amount, most
from profilemate.figures.source import Drawn, Missing, engine_rows, lost_note, notes, nothing
from profilemate.figures.style import kinds
from profilemate.figures.thin import Bins, bins, spread
from profilemate.figures.words import share
from profilemate.trackers.kv_cache import events

if TYPE_CHECKING:
    from profilemate.frames.session import Session

STATES = {"in_use": "in use", "cached_free": "cached and free", "empty": "empty"}
COLOURS = kinds(("in use", "blue"), ("cached and free", "orange"), ("empty", "pale"))
PEAK = "most in use"
MOST_LINES = 6


def kv_usage(session: Session) -> Drawn:
    """Blocks by state, stacked to the size of the cache, and the most that were in use in each bin."""
    rows = engine_rows(session, events.STEPS)
    grid = grid_of(session, rows)
    held = _held(rows, grid)
    by_bin = held.group_by("bin").agg(pl.col(*STATES).sum()).sort("bin")
    long = by_bin.unpivot(list(STATES), index="bin", variable_name="kind", value_name="blocks").with_columns(
        pl.col("kind").replace_strict(STATES), pl.col("blocks").round(2)
    )
    engines = held["engine"].n_unique()
    total = most(by_bin.select(pl.sum_horizontal(*STATES)).to_series())
    tooltip = [
        *span_tooltip(grid),
        *style.tips("kind|blocks", "blocks|mean|,.4~g"),
    ]
    chart = stacked_bars(long, grid, COLOURS, _y(total), tooltip)
    peak = _peak(rows)
    if engines == 1:
        chart = alt.layer(chart, _peak_line(rows, grid, total))
    mean = amount(held["in_use"]) / held["bin"].n_unique()
    of = " of one engine" if engines > 1 else ""
    says = (
        f"On average {mean:,.0f} of {total:,.0f} blocks ({share(mean, total)}) were in use; the most was {peak.blocks:,} of "
        f"{peak.total:,} ({share(peak.blocks, peak.total)}){of} at {grid.moment(peak.at_ns)}."
    )
    return Drawn(
        style.chart_of(chart, says),
        says,
        notes(
            f"Means over bins of {grid.width_text}.",
            "The dashed line is the most in use at any moment of a bin."
            if engines == 1
            else f"{engines} engines are added up.",
            lost_note(session, events.STEPS),
        ),
    )


class _Peak(NamedTuple):
    blocks: int
    total: int
    at_ns: int


def _peak(rows: pl.LazyFrame) -> _Peak:
    """Of the engine that came nearest to being full, cumulative so that removed rows are in it."""
    best = (
        rows.select("peak", "total_blocks", (pl.col("peak_time_ns") + pl.col("offset_ns")).alias("at"))
        .drop_nulls("peak")
        .filter(pl.col("total_blocks") > 0)
        .with_columns((pl.col("peak") / pl.col("total_blocks")).alias("share"))
        .sort("share", "at", descending=[True, False])
        .head(1)
        .collect(engine="streaming")
    )
    if best.is_empty():
        return _Peak(0, 0, 0)
    return _Peak(best["peak"][0], best["total_blocks"][0], best["at"][0] or 0)


def grid_of(session: Session, rows: pl.LazyFrame) -> Bins:
    """Bins over the rows of the KV cache."""
    span = rows.select(pl.col("at_ns").min().alias("first"), pl.col("at_ns").max().alias("last")).collect(
        engine="streaming"
    )
    if span["first"][0] is None:
        raise nothing(session, "the KV cache tracker recorded no engine step", events.STEPS)
    return bins(span["first"][0], span["last"][0])


def _held(rows: pl.LazyFrame, grid: Bins) -> pl.DataFrame:
    """Mean number of blocks in each state by engine and bin: it lasts until the engine's next row, the last one to the end."""
    intervals = (
        rows.select("engine", "at_ns", *STATES)
        .sort("engine", "at_ns")
        .with_columns(
            pl.col("at_ns").alias("begin_ns"),
            pl.col("at_ns").shift(-1).over("engine").fill_null(pl.col("at_ns").max() + 1).alias("end_ns"),
        )
    )
    weighted = spread(intervals, grid, ["engine"], *STATES)
    return weighted.with_columns(pl.col(name) / pl.col("ns") for name in STATES)


def _y(total: float, field: str = "blocks") -> Any:
    return alt.Y(
        f"{field}:Q", title="KV cache blocks", scale=alt.Scale(domain=[0, total or 1], nice=False), axis=style.amounts()
    )


def _peak_line(rows: pl.LazyFrame, grid: Bins, total: float) -> Any:
    peaks = (
        rows.with_columns(grid.of(pl.col("at_ns")).alias("bin"))
        .group_by("bin")
        .agg(pl.max("step_peak").alias("peak"))
        .sort("bin")
        .collect(engine="streaming")
        .with_columns(pl.lit(PEAK).alias("line"))
    )
    return (
        alt.Chart(to_the_end(peaks, grid))
        .mark_line(interpolate="step-after", strokeWidth=1.6, aria=False, clip=True)
        .encode(
            x=style.time_x(grid), y=_y(total, "peak"),
            strokeDash=alt.StrokeDash("line:N", scale=alt.Scale(domain=[PEAK], range=[[5, 2]]), legend=alt.Legend(title=None)),
            color=alt.value(style.colour("ink")), tooltip=[*span_tooltip(grid), alt.Tooltip("peak:Q", title=PEAK, format=",")],
        )
    )  # fmt: skip


def kv_usage_by_engine(session: Session) -> Drawn:
    """Share of its blocks that each engine has in use: lines, or a heat map where there are many engines."""
    rows = engine_rows(session, events.STEPS)
    grid = grid_of(session, rows)
    held = _held(rows, grid)
    engines = sorted(held["engine"].unique())
    if len(engines) < 2:
        raise Missing("the session has one engine, whose use the figure of the KV cache's blocks shows")
    shares = held.select(
        ("engine " + pl.col("engine").cast(pl.String)).alias("kind"),
        (100 * pl.col("in_use") / pl.sum_horizontal(*STATES)).round(2).alias("use"),
        "bin",
    )
    means = (
        held.group_by("engine")
        .agg((pl.col("in_use").sum() / pl.sum_horizontal(*STATES).sum()).alias("use"))
        .sort("use")
    )
    says = (
        f"Mean use by engine: from {share(means['use'][0], 1)} (engine {means['engine'][0]}) to {share(means['use'][-1], 1)} "
        f"(engine {means['engine'][-1]}) of {len(engines)} engines."
    )
    draw = _engine_lines if len(engines) <= MOST_LINES else _engine_map
    return Drawn(
        style.chart_of(draw(to_the_end(shares, grid, "kind"), grid, [f"engine {number}" for number in engines]), says),
        says,
        notes(f"Means over bins of {grid.width_text}.", lost_note(session, events.STEPS)),
    )


def _engine_lines(shares: pl.DataFrame, grid: Bins, engines: list[str]) -> Any:
    among = kinds(*zip(engines, ("blue", "orange", "green", "vermilion", "purple", "grey"), strict=False))
    return (
        alt.Chart(shares)
        .mark_line(interpolate="step-after", strokeWidth=2, clip=True)
        .encode(
            x=style.time_x(grid), y=alt.Y("use:Q", title="blocks in use (%)", scale=alt.Scale(domain=[0, 100])),
            color=style.by_kind(among), strokeDash=style.dash_by_kind(among),
            tooltip=[*span_tooltip(grid), *style.tips("kind|of", "use|in use (%)|")],
        )
        .add_params(style.pan_and_zoom())
    )  # fmt: skip


def _engine_map(shares: pl.DataFrame, grid: Bins, engines: list[str]) -> Any:
    return (
        alt.Chart(shares)
        .mark_rect(aria=False, clip=True)
        .encode(
            x=style.time_x(grid), x2="to:Q", y=alt.Y("kind:N", title=None, sort=engines),
            color=alt.Color("use:Q", title="blocks in use (%)", scale=alt.Scale(domain=[0, 100])),
            tooltip=[*span_tooltip(grid), *style.tips("kind|of", "use|in use (%)|")],
        )
        .add_params(style.pan_and_zoom())
    )  # fmt: skip
