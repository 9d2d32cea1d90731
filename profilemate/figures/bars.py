"""Stacked bars over time and stacked totals, as several figures need them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt
import polars as pl

from profilemate.figures import style
from profilemate.figures.style import Kind
from profilemate.figures.thin import Bins


def ordered(frame: pl.DataFrame, among: Sequence[Kind], field: str = "kind") -> pl.DataFrame:
    """With the place of each category in the stack, in that order."""
    places = pl.col(field).replace_strict(style.with_order(among), default=len(among), return_dtype=pl.Int64)
    return frame.with_columns(places.alias(f"{field}_order"))


def stacked_bars(
    frame: pl.DataFrame, grid: Bins, among: Sequence[Kind], y: Any, tooltip: Sequence[Any], columns: int = 0
) -> Any:
    """Bars of time, categories on top of each other. `frame` has `bin`, `kind` and what `y` and the tooltips name.

    `y` and `y2` are computed here from the column that `y` names, so that the bars need no transform.
    """
    field = str(y.shorthand).split(":")[0]
    stacked = (
        ordered(frame, among)
        .sort("bin", "kind_order")
        .with_columns(pl.col(field).cum_sum().over("bin").alias("top"))
        .with_columns((pl.col("top") - pl.col(field)).alias("bottom"), *grid.edges())
        .drop("bin", "kind_order")
    )
    top = y.copy()
    top["shorthand"] = "top:Q"
    return (
        alt.Chart(stacked)
        .mark_rect(clip=True, aria=False, stroke=style.colour("paper"), strokeWidth=0.25)
        .encode(
            x=style.time_x(grid), x2="to:Q", y=top, y2="bottom:Q",
            color=style.by_kind(among, columns=columns), tooltip=list(tooltip),
        )
        .add_params(style.pan_and_zoom())
    )  # fmt: skip


def to_the_end(frame: pl.DataFrame, grid: Bins, *by: str) -> pl.DataFrame:
    """`frame` with `bin` gets `from` and `to`, and of each series the last value once more where its bin ends.

    A line drawn as a staircase would else stop at the beginning of its last bin.
    """
    ordered_bins = frame.sort(*by, "bin").with_columns(*grid.edges())
    last = ordered_bins.group_by(by, maintain_order=True).last() if by else ordered_bins.tail(1)
    ends = last.select(ordered_bins.columns).with_columns(pl.col("to").alias("from"))
    return pl.concat([ordered_bins, ends]).sort(*by, "from").drop("bin")


def bands(points: pl.DataFrame, grid: Bins, among: Sequence[Kind], title: str, y: Any = alt.Undefined) -> Any:
    """Lines of means within bands from the lowest to the highest value; `points` as `to_the_end` gives them.

    It has `kind`, `low`, `mean`, `high`. Lines differ in their dashes too. `y` is a scale.
    """
    base = alt.Chart(ordered(points, among))
    x = style.time_x(grid)
    tooltip = [
        *span_tooltip(grid), *style.tips("kind|what"),
        *(alt.Tooltip(f"{name}:Q", title=name, format=",.4~g") for name in ("low", "mean", "high")),
    ]  # fmt: skip
    band = base.mark_area(interpolate="step-after", opacity=0.22, clip=True, aria=False).encode(
        x=x, y=alt.Y("low:Q", title=title, scale=y), y2="high:Q", fill=style.beneath(among, alt.Fill)
    )
    line = base.mark_line(interpolate="step-after", strokeWidth=1.8, clip=True, aria=False).encode(
        x=x, y=alt.Y("mean:Q", title=title, scale=y), color=style.by_kind(among), strokeDash=style.dash_by_kind(among),
        tooltip=tooltip,
    )  # fmt: skip
    return alt.layer(band, line.add_params(style.pan_and_zoom()))


def span_tooltip(grid: Bins) -> list[Any]:
    """From when to when a bar is."""
    return [
        alt.Tooltip("from:Q", title=f"from ({grid.unit})", format=",.6~g"),
        alt.Tooltip("to:Q", title=f"to ({grid.unit})", format=",.6~g"),
    ]
