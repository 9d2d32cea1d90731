"""kv_cache_usage.csv as a line: what the README's snippet with pandas and matplotlib draws."""

from __future__ import annotations

from typing import TYPE_CHECKING

import altair as alt
import polars as pl

from profilemate.figures import style
from profilemate.figures.columns import least, mean, most
from profilemate.figures.source import Drawn, notes, nothing
from profilemate.figures.style import kinds
from profilemate.figures.thin import SECOND, bins, line_points
from profilemate.trackers.kv_cache import events

if TYPE_CHECKING:
    from profilemate.frames.session import Session

COLOURS = ("blue", "orange", "green", "vermilion", "purple", "grey")
TIME, USE, ENGINE = "timestamp_sec", "usage_pct", "engine"


def kv_usage_percent(session: Session) -> Drawn:
    """Share of the blocks in use at every row of the file: each so many block operations, the peak and the last state."""
    rows = session.scan("kv_cache_usage").select(
        pl.col(TIME).cast(pl.Float64), pl.col(USE).cast(pl.Float64), ("engine " + pl.col(ENGINE).cast(pl.String)).alias("kind")
    ).drop_nulls().collect()  # fmt: skip
    if rows.is_empty():
        raise nothing(session, "no block operation was recorded", events.USAGE)
    grid = bins(round(least(rows[TIME]) * SECOND), round(most(rows[TIME]) * SECOND))
    points, together = line_points(rows, TIME, USE, "kind")
    drawn = points.with_columns((pl.col(TIME) * SECOND / grid.unit_ns).round(6).alias("time"))
    engines = sorted(rows["kind"].unique())
    among = kinds(*((engine, COLOURS[number % len(COLOURS)]) for number, engine in enumerate(engines)))
    highest = rows.sort(USE, TIME, descending=[True, False]).row(0, named=True)
    says = (
        f"{rows.height:,} rows of kv_cache_usage.csv: {mean(rows[USE]):.1f} % of the blocks in use on their average, at most "
        f"{highest[USE]:.1f} % at {grid.moment(highest[TIME] * SECOND)}."
    )
    chart = (
        alt.Chart(drawn)
        .mark_line(strokeWidth=1.6, clip=True)
        .encode(
            x=style.time_x(grid, "time"),
            y=alt.Y(f"{USE}:Q", title="KV cache blocks in use (%)", scale=alt.Scale(domain=[0, 100])),
            color=style.by_kind(among, legend=len(engines) > 1), detail="kind:N",
            tooltip=style.tips(f"time|at ({grid.unit})|,.6~g", f"{USE}|in use (%)|"),
        )
    )  # fmt: skip
    thinned = f"Of each {together} rows in turn the lowest and the highest are drawn." if together > 1 else ""
    return Drawn(style.chart_of(chart, says), says, notes(thinned))
