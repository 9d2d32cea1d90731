"""Tokens per second over time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import altair as alt
import polars as pl

from profilemate.figures import style
from profilemate.figures.bars import span_tooltip, to_the_end
from profilemate.figures.source import Drawn, engine_rows, lost_note, notes, several_engines
from profilemate.figures.steps import grid_of
from profilemate.figures.style import kinds, present
from profilemate.figures.thin import SECOND, sums
from profilemate.figures.words import duration
from profilemate.trackers.engine_steps import events

if TYPE_CHECKING:
    from profilemate.frames.session import Session

PREFILL, DECODE, ANY = "prefill (prompt) tokens", "decode (output) tokens", "tokens, phase not known"
COLOURS = kinds((PREFILL, "vermilion"), (DECODE, "blue"), (ANY, "purple"))


def throughput(session: Session) -> Drawn:
    """Tokens that the engines ran, by phase, per second; where vLLM does not tell the phase, all together."""
    rows = engine_rows(session, events.STEPS)
    grid = grid_of(session, rows)
    known = pl.col("context_tokens").is_not_null()
    long = pl.concat(
        [
            rows.filter(known).select("at_ns", pl.lit(PREFILL).alias("kind"), pl.col("context_tokens").alias("tokens")),
            rows.filter(known).select(
                "at_ns",
                pl.lit(DECODE).alias("kind"),
                (pl.col("step_tokens") - pl.col("context_tokens")).alias("tokens"),
            ),
            rows.filter(~known).select("at_ns", pl.lit(ANY).alias("kind"), pl.col("step_tokens").alias("tokens")),
        ]
    )
    counted = sums(long, grid, ["kind"], "tokens")
    total = dict(counted.group_by("kind").agg(pl.col("tokens").sum()).rows())
    counted = counted.filter(pl.col("kind").is_in([kind for kind, tokens in total.items() if tokens]))
    among = present(COLOURS, list({*counted["kind"]}))
    every_bin = pl.DataFrame({"bin": range(grid.count)}).join(
        pl.DataFrame({"kind": [kind.label for kind in among]}, schema={"kind": pl.String}), how="cross"
    )
    rates = (
        every_bin.join(counted.select("bin", "kind", "tokens"), on=["bin", "kind"], how="left")
        .with_columns(pl.col("tokens").fill_null(0))
        .with_columns((pl.col("tokens") * SECOND / grid.width_ns).round(2).alias("rate"))
    )
    span = (grid.end_ns - grid.start_ns) / SECOND
    said = ", ".join(f"{total[kind.label]:,} {kind.label} ({total[kind.label] / span:,.0f}/s)" for kind in among)
    says = f"In {duration(span)} the engine ran {said or 'no token'}."
    chart = (
        alt.Chart(to_the_end(rates, grid, "kind"))
        .mark_line(interpolate="step-after", strokeWidth=1.8, clip=True, aria=False)
        .encode(
            x=style.time_x(grid), y=alt.Y("rate:Q", title="tokens per second", axis=style.amounts()),
            color=style.by_kind(among), strokeDash=style.dash_by_kind(among),
            tooltip=[
                *span_tooltip(grid), *style.tips("kind|what", "rate|tokens per second|,.5~g", "tokens|tokens|,"),
            ],
        )
        .add_params(style.pan_and_zoom())
    )  # fmt: skip
    return Drawn(
        style.chart_of(chart, says), says,
        notes(f"Exact sums of every {grid.width_text}, drafted and recomputed tokens included.",
              several_engines(session, events.STEPS), lost_note(session, events.STEPS)),
    )  # fmt: skip
