"""Time of a forward pass by its size and by how it ran."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import altair as alt
import polars as pl

from profilemate.figures import style
from profilemate.figures.bars import ordered
from profilemate.figures.columns import amount, least, most, total
from profilemate.figures.graph_coverage import MODES
from profilemate.figures.passes import captured, is_sampled, passes
from profilemate.figures.source import Drawn, lost_note, notes, nothing
from profilemate.figures.style import present
from profilemate.figures.words import duration
from profilemate.trackers.cuda_graphs import events

if TYPE_CHECKING:
    from profilemate.frames.session import Session

EXACT_SIZES = 64
"""Up to so many tokens each size is a point of its own; above, eight points for each doubling."""
PER_OCTAVE = 8
HEIGHT, MARK_HEIGHT = 300, 9


def forward_time(session: Session) -> Drawn:
    """Median, 10th and 90th percentile of the time by scheduled tokens and mode; lines mark the captured sizes."""
    tokens = pl.col("unpadded_tokens")
    bucket = (tokens.log(2) * PER_OCTAVE).round() / PER_OCTAVE
    milliseconds = pl.col("duration_ns") / 1e6
    timed = (
        passes(session)
        .filter((pl.col("duration_ns") > 0) & (tokens > 0))
        .with_columns(
            pl.when(tokens <= EXACT_SIZES).then(tokens.cast(pl.Float64)).otherwise(pl.lit(2.0).pow(bucket)).alias("at")
        )
        .group_by("kind", "at")
        .agg(
            pl.len().cast(pl.Int64).alias("passes"),
            (tokens.sum() / pl.len()).round(1).alias("tokens"),
            *(
                milliseconds.quantile(share, "nearest").round(6).alias(name)
                for share, name in ((0.1, "p10"), (0.5, "median"), (0.9, "p90"))
            ),
            milliseconds.sum().alias("total"),
        )
        .sort("kind", "at")
        .collect(engine="streaming")
    )
    if timed.is_empty():
        raise nothing(session, "no serving forward pass has a time", events.PASSES)
    says = _says(timed)
    sampled = (
        "Times are the device's, of the passes that were sampled." if is_sampled(session) else "Times are the host's."
    )
    grouped = f"Over {EXACT_SIZES} tokens, sizes within an eighth of a doubling are put together."
    return Drawn(
        style.chart_of(_chart(timed.drop("at", "total"), session), says, HEIGHT), says,
        notes(
            "Points are medians, bars reach from the 10th to the 90th percentile; short lines below are captured sizes.",
            sampled,
            grouped if most(timed["tokens"]) > EXACT_SIZES else "", lost_note(session, events.PASSES),
        ),
    )  # fmt: skip


def _says(timed: pl.DataFrame) -> str:
    said = []
    for kind in MODES:
        mine = timed.filter(pl.col("kind") == kind.label)
        if mine.height:
            count = total(mine["passes"])
            sizes = f"{least(mine['tokens']):,.0f} to {most(mine['tokens']):,.0f} tokens"
            said.append(
                f"{kind.label}: {count:,} passes of {sizes}, mean {duration(amount(mine['total']) / count / 1e3)}"
            )
    return "; ".join(said) + "."


def _chart(timed: pl.DataFrame, session: Session) -> Any:
    among = present(MODES, timed["kind"].unique().to_list())
    x = style.doublings_x("scheduled tokens of the pass", least(timed["tokens"]), most(timed["tokens"]))
    low, high = least(timed["p10"]) or 1e-6, most(timed["p90"]) or 1
    y = alt.Y("median:Q", title="time of a pass (ms)", scale=style.log_scale(low, high),
              axis=style.plain(style.decades(low, high)))  # fmt: skip
    base = alt.Chart(ordered(timed, among))
    bars = base.mark_rule(strokeWidth=1.5, opacity=0.55, aria=False).encode(
        x=x, y=alt.Y("p10:Q"), y2="p90:Q", stroke=style.beneath(among, alt.Stroke)
    )
    points = base.mark_point(filled=True, size=46, opacity=0.95).encode(
        x=x, y=y, color=style.by_kind(among), shape=style.shape_by_kind(among),
        tooltip=[
            *style.tips("kind|ran with", "tokens|tokens|,.4~g", "passes|passes|,"),
            *(alt.Tooltip(f"{name}:Q", title=f"{name} (ms)", format=",.4~g") for name in ("p10", "median", "p90")),
        ],
    )  # fmt: skip
    lowest, highest = least(timed["tokens"]), most(timed["tokens"])
    sizes = [size for size in captured(session)["num_tokens"].unique().sort() if size and lowest <= size <= highest]
    marks = alt.Chart(pl.DataFrame({"tokens": sizes}, schema={"tokens": pl.Int64})).mark_rule(
        strokeWidth=1.5, color=style.colour("soft"), aria=False
    ).encode(x=x, y=alt.value(HEIGHT - MARK_HEIGHT), y2=alt.value(HEIGHT))  # fmt: skip
    return alt.layer(marks, bars, points) if sizes else alt.layer(bars, points)
