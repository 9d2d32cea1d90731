"""Distributions as curves: the share of values that are not larger, on a logarithmic axis, with percentiles marked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import polars as pl

from profilemate.figures import style
from profilemate.figures.columns import least, most
from profilemate.figures.style import kinds
from profilemate.figures.thin import quantiles
from profilemate.figures.words import duration

MARKED = (0.5, 0.95, 0.99)
SMALLEST_SHARE = 1e-6
"""Of the largest value: what is less, zero included, is drawn there, since a logarithmic axis has no zero."""


@dataclass(frozen=True)
class Series:
    """One curve."""

    label: str
    colour: str
    values: pl.Series


def percentile(values: pl.Series, share: float) -> float:
    """The value that this share of the values does not exceed, one that occurred (nearest rank)."""
    ordered = values.drop_nulls().sort()
    return float(ordered[min(len(ordered) - 1, max(0, -int(-share * len(ordered) // 1) - 1))])


def distribution(series: Sequence[Series], title: str, of: str, mark: bool = False) -> Any:
    """Curves of seconds. `of` names what is counted; with `mark` the percentiles of the first curve are marked."""
    among = kinds(*((one.label, one.colour) for one in series))
    floor = max(most(one.values) for one in series) * SMALLEST_SHARE or SMALLEST_SHARE
    points = pl.concat(
        quantiles(one.values.clip(lower_bound=floor)).with_columns(pl.lit(one.label).alias("kind")) for one in series
    ).with_columns((100 * pl.col("share")).round(3).alias("share"), _significant("value"))
    low, high = least(points["value"]) or floor, most(points["value"]) or 1.0
    x = alt.X("value:Q", title=title, scale=style.log_scale(low, high),
              axis=style.plain(style.decades(low, high), grid=True))  # fmt: skip
    y = alt.Y("share:Q", title=f"share of the {of} (%)", scale=alt.Scale(domain=[0, 100]), axis=alt.Axis(tickCount=5))
    tooltip = style.tips("kind|of", "value|at most (s)|,.4~g", "share|share (%)|.4~g")  # fmt: skip
    line = alt.Chart(points).mark_line(interpolate="step-after", strokeWidth=2, aria=False).encode(
        x=x, y=y, tooltip=tooltip, color=style.by_kind(among, legend=len(among) > 1),
        **({"strokeDash": style.dash_by_kind(among)} if len(among) > 1 else {}),
    )  # fmt: skip
    return alt.layer(line, _marks(series[0], x, y)) if mark else line


def _significant(column: str, digits: int = 5) -> pl.Expr:
    return pl.col(column).round_sig_figs(digits)


def _marks(one: Series, x: Any, y: Any) -> Any:
    """Points at the percentiles, whose values stand in the legend: beside the curve the upper ones would lie on each other."""
    found = [(percentile(one.values, share), 100 * share) for share in MARKED]
    labels = [f"{share:.0f} %: {duration(value)}" for value, share in found]
    frame = pl.DataFrame(
        {"value": [value for value, _ in found], "share": [share for _, share in found], "percentile": labels}
    )
    shape = alt.Shape("percentile:N", scale=alt.Scale(domain=labels, range=list(style.SHAPES[: len(labels)])),
                      legend=alt.Legend(title=None))  # fmt: skip
    return (
        alt.Chart(frame)
        .mark_point(filled=True, size=80, color=style.colour("ink"), opacity=1)
        .encode(x=x, y=y, shape=shape, tooltip=style.tips("percentile|within"))
    )
