"""Figures of the prefix cache: hit rate over time, and why the rest was missed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import altair as alt
import polars as pl

from profilemate.figures import style
from profilemate.figures.bars import span_tooltip
from profilemate.figures.columns import most, total
from profilemate.figures.kv_usage import grid_of
from profilemate.figures.source import Drawn, Missing, engine_rows, lost_note, notes, nothing, several_engines
from profilemate.figures.style import kinds
from profilemate.figures.thin import Bins, sums
from profilemate.figures.words import share
from profilemate.trackers.kv_cache import events
from profilemate.trackers.prefix_lookups import events as lookups
from profilemate.trackers.prefix_lookups.analyze import analyze

if TYPE_CHECKING:
    from profilemate.frames.session import Session

OUTCOMES = (
    ("hit_tokens", "found in this cache", "blue"),
    ("external_tokens", "brought by a KV connector", "sky"),
    ("new_tokens", "never in this cache", "grey"),
    ("evicted_tokens", "evicted before", "vermilion"),
    ("reset_tokens", "dropped by a reset", "vermilion"),
    ("short_tokens", "less than a block at the end", "orange"),
    ("last_tokens", "last block, always computed", "orange"),
    ("untaken_tokens", "cached, but not taken", "purple"),
    ("unkept_tokens", "not kept by all KV groups", "purple"),
    ("unknown_tokens", "new, or gone for long", "grey"),
    ("off_tokens", "no look-up was made", "grey"),
)
"""Columns of the look-ups in the words of a figure. Every asked token is under one of them."""


def grown(rows: pl.LazyFrame, *columns: str) -> pl.LazyFrame:
    """Rows of the steps in which cumulative columns stand for what came since the row before.

    What was counted before an engine's first row is left out, unless that row is of its first step.
    """
    ordered = rows.select("process", "engine", "step", "at_ns", *columns).sort("process", "engine", "at_ns")
    return ordered.with_columns(
        pl.col(name)
        - pl.coalesce(
            pl.col(name).shift(1).over("process", "engine"), pl.when(pl.col("step") > 1).then(pl.col(name)).otherwise(0)
        )
        for name in columns
    )


def prefix_hit_rate(session: Session) -> Drawn:
    """Share of the looked-up prompt tokens that were found, by bin of time, and over the session."""
    rows = engine_rows(session, events.STEPS)
    grid = grid_of(session, rows)
    found = sums(
        grown(rows.drop_nulls("query_tokens"), "query_tokens", "hit_tokens"), grid, [], "query_tokens", "hit_tokens"
    )
    asked, hit = total(found["query_tokens"]), total(found["hit_tokens"])
    if not asked:
        raise Missing("no prompt token was looked up in the prefix cache")
    says = f"{hit:,} of {asked:,} looked-up prompt tokens ({share(hit, asked)}) were found in the prefix cache."
    rates = found.filter(pl.col("query_tokens") > 0).with_columns(
        (100 * pl.col("hit_tokens") / pl.col("query_tokens")).round(2).alias("rate"),
        *grid.edges(),
        ((pl.col("bin") + 0.5) * grid.width_ns + grid.start_ns).truediv(grid.unit_ns).round(6).alias("middle"),
    )
    return Drawn(
        style.chart_of(_rates(rates.drop("rows", "bin"), grid, 100 * hit / asked), says), says,
        notes(
            f"A point has the look-ups of {grid.width_text}; the larger, the more tokens. The dashed line is the rate of all. "
            "As in vLLM's metric, look-ups after a preemption are left out.",
            several_engines(session, events.STEPS), lost_note(session, events.STEPS),
        ),
    )  # fmt: skip


def _rates(rates: pl.DataFrame, grid: Bins, overall: float) -> Any:
    y = alt.Y("rate:Q", title="hit rate (%)", scale=alt.Scale(domain=[0, 100]), axis=alt.Axis(tickCount=5))
    base = alt.Chart(rates)
    points = base.mark_point(filled=True, color=style.colour("blue"), opacity=0.9, clip=True).encode(
        x=style.time_x(grid, "middle"), y=y,
        size=alt.Size("query_tokens:Q", scale=alt.Scale(type="sqrt", range=[8, 160], zero=True), legend=None),
        tooltip=[
            *span_tooltip(grid), *style.tips("rate|hit rate (%)|", "query_tokens|tokens looked up|,", "hit_tokens|found|,"),
        ],
    )  # fmt: skip
    all_of_it = (
        alt.Chart(pl.DataFrame({"rate": [overall]}))
        .mark_rule(strokeDash=[6, 4], strokeWidth=1.4, color=style.colour("ink"))
        .encode(y="rate:Q")
    )
    return alt.layer(all_of_it, points.add_params(style.pan_and_zoom()))


def prefix_misses(session: Session) -> Drawn:
    """Prompt tokens of all admitted requests by what became of their look-up."""
    totals = analyze(session).first
    if not totals.lookups:
        raise nothing(session, "no request was admitted", lookups.LOOKUPS)
    asked = totals.tokens["asked_tokens"]
    rows = [(word, colour, totals.tokens[name], name) for name, word, colour in OUTCOMES if totals.tokens[name]]
    hit = totals.tokens["hit_tokens"] + totals.tokens["external_tokens"]
    worst = max(
        (row for row in rows if row[3] not in ("hit_tokens", "external_tokens")), key=lambda row: row[2], default=None
    )
    says = f"{totals.lookups:,} requests brought {asked:,} tokens, of which {hit:,} ({share(hit, asked)}) were found"
    says += f"; most of the others: {worst[0]}, {worst[2]:,} ({share(worst[2], asked)})." if worst else "."
    chart = _outcomes(
        pl.DataFrame(rows, schema=["kind", "colour", "tokens", "column"], orient="row").drop("column"), asked
    )
    return Drawn(
        style.chart_of(chart, says, height=28 * len(rows) + 10), says,
        notes("Look-ups after a preemption are left out.", lost_note(session, lookups.LOOKUPS)),
    )  # fmt: skip


def _outcomes(frame: pl.DataFrame, asked: int) -> Any:
    among = kinds(*frame.select("kind", "colour").rows())
    texts = [f"{tokens:,} ({share(tokens, asked)})" for tokens in frame["tokens"]]
    shown = frame.drop("colour").with_columns(pl.Series("text", texts))
    y = alt.Y("kind:N", title=None, sort=list(shown["kind"]))
    scale = alt.Scale(domain=[0, 1.35 * max(1, most(shown["tokens"]))], nice=False)
    x = alt.X("tokens:Q", title="prompt tokens", scale=scale, axis=style.amounts(grid=True, tickCount=6))
    base = alt.Chart(shown)
    bars = base.mark_bar(height={"band": 0.75}).encode(
        y=y, x=x, color=style.by_kind(among, legend=False),
        tooltip=style.tips("kind|tokens", "tokens|number|,"),
    )  # fmt: skip
    return alt.layer(bars, base.mark_text(align="left", dx=5, baseline="middle").encode(y=y, x=x, text="text:N"))
