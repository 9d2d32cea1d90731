"""How many forward passes ran with a FULL graph, a PIECEWISE one or none, and what those without cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import altair as alt
import polars as pl

from profilemate.figures import style
from profilemate.figures.bars import ordered
from profilemate.figures.columns import amount, total
from profilemate.figures.passes import FULL, NONE, PIECEWISE, is_sampled, passes
from profilemate.figures.source import Drawn, Missing, lost_note, notes, nothing
from profilemate.figures.style import kinds, present
from profilemate.figures.thin import SECOND
from profilemate.figures.words import duration, share
from profilemate.trackers.cuda_graphs import events

if TYPE_CHECKING:
    from profilemate.frames.session import Session

MODES = kinds((FULL, "blue"), (PIECEWISE, "sky"), (NONE, "vermilion"))
PHASES = kinds(("decode", "blue"), ("mixed", "orange"), ("prefill", "vermilion"), ("phase not known", "purple"))
LEAST_LABELLED_SHARE = 7
LEVEL = alt.Axis(labelAngle=0, labelOverlap="parity")
ON_SKY = style.PALETTE["ink"][0]


def _time() -> pl.Expr:
    """Time of passes: of those that were sampled, times how many there are for each of them."""
    timed = pl.col("duration_ns").drop_nulls()
    return pl.when(timed.len() > 0).then(timed.sum() * (pl.len() / timed.len())).otherwise(None)


def graph_coverage(session: Session) -> Drawn:
    """Shares of FULL, PIECEWISE and no graph among the passes, their tokens and their time."""
    found = (
        passes(session)
        .group_by("kind")
        .agg(
            pl.len().cast(pl.Float64).alias("forward passes"),
            pl.col("unpadded_tokens").sum().cast(pl.Float64).alias("scheduled tokens"),
            (_time() / SECOND).alias("time (s)"),
        )
        .collect(engine="streaming")
    )
    if found.is_empty():
        raise nothing(session, "no serving forward pass was recorded", events.PASSES)
    what = [name for name in found.columns if name != "kind" and found[name].sum()]
    long = found.unpivot(what, index="kind", variable_name="of", value_name="amount").with_columns(
        (100 * pl.col("amount").fill_null(0) / pl.col("amount").sum().over("of")).round(3).alias("share"),
        pl.col("amount").fill_null(0).round(6),
    )
    bare = found.filter(pl.col("kind") == NONE)
    whole, count = amount(found["forward passes"]), amount(bare["forward passes"])
    says = f"{count:,.0f} of {whole:,.0f} forward passes ({share(count, whole)}) ran without a graph"
    time = long.filter((pl.col("of") == "time (s)") & (pl.col("kind") == NONE))
    says += f" and took {share(time['share'][0], 100)} of the time." if time.height else "."
    among = present(MODES, found["kind"].to_list())
    return Drawn(
        style.chart_of(_shares(long, what, among), says, height=40 * len(what) + 10), says,
        notes(how_timed(session), lost_note(session, events.PASSES)),
    )  # fmt: skip


def how_timed(session: Session) -> str:
    """Where the times come from."""
    if is_sampled(session):
        return "Times are the device's, of the passes that were sampled, scaled up to all of their kind."
    return "Times are the host's, which on a CPU are those of the pass."


def _shares(long: pl.DataFrame, what: list[str], among: tuple[style.Kind, ...]) -> Any:
    stacked = (
        ordered(long, among)
        .sort("of", "kind_order")
        .with_columns(pl.col("share").cum_sum().over("of").alias("right"))
        .with_columns((pl.col("right") - pl.col("share")).alias("left"))
        .with_columns(((pl.col("left") + pl.col("right")) / 2).alias("middle"))
        .with_columns(
            pl.when(pl.col("share") >= LEAST_LABELLED_SHARE)
            .then(pl.col("share").round(1).cast(pl.String) + " %")
            .otherwise(pl.lit(""))
            .alias("text")
        )
    )
    y = alt.Y("of:N", title=None, sort=what)
    x_scale = alt.Scale(domain=[0, 100], nice=False)
    bars = (
        alt.Chart(stacked)
        .mark_bar(height={"band": 0.75}, stroke=style.colour("paper"), strokeWidth=1)
        .encode(
            y=y, x=alt.X("left:Q", title="share (%)", scale=x_scale, axis=alt.Axis(tickCount=5)), x2="right:Q",
            color=style.by_kind(among),
            tooltip=style.tips("of|of the", "kind|ran with", "amount|amount|,.5~g", "share|share (%)|.3~g"),
        )
    )  # fmt: skip
    text = (
        alt.Chart(stacked)
        .mark_text(baseline="middle", fontWeight=600, aria=False)
        .encode(
            y=y, x=alt.X("middle:Q", scale=x_scale), text="text:N",
            color=alt.when(alt.datum.kind == PIECEWISE).then(alt.value(ON_SKY)).otherwise(alt.value(style.colour("paper"))),
        )
    )  # fmt: skip
    return alt.layer(bars, text)


def graph_uncovered(session: Session) -> Drawn:
    """Passes that no graph covered, by size (powers of two) and phase: how often, and the time they took."""
    exponent = pl.col("unpadded_tokens").clip(1).log(2).ceil().cast(pl.Int64)
    found = (
        passes(session)
        .with_columns(
            exponent.alias("exponent"), pl.col("phase").replace("", None).fill_null("phase not known").alias("phase")
        )
        .group_by("kind", "exponent", "phase")
        .agg(
            pl.len().cast(pl.Int64).alias("passes"), (_time() / SECOND).round(6).alias("seconds"),
            pl.col("unpadded_tokens").sum().alias("tokens"),
        )
        .collect(engine="streaming")
    )  # fmt: skip
    if found.is_empty():
        raise nothing(session, "no serving forward pass was recorded", events.PASSES)
    bare = found.filter(pl.col("kind") == NONE).rename({"phase": "phase_kind"})
    if bare.is_empty():
        raise Missing(f"every one of the {total(found['passes']):,} forward passes replayed a graph")
    labelled = bare.with_columns(
        pl.col("exponent").map_elements(_bucket, pl.String).alias("size"),
        pl.col("phase_kind").alias("kind"),
        (1000 * pl.col("seconds") / pl.col("passes")).round(3).alias("mean_ms"),
    ).drop("phase_kind")
    count, seconds = total(bare["passes"]), amount(bare["seconds"])
    timed = bool(seconds)
    costliest = (
        labelled.group_by("size").agg(pl.col("passes", "seconds").sum()).sort("seconds" if timed else "passes").row(-1)
    )
    of_all = f" ({share(seconds, amount(found['seconds']))} of the time of all passes)" if timed else ""
    says = f"{count:,} forward passes had no graph" + (f" and took {duration(seconds)}{of_all}" if timed else "")
    says += f"; most of it at {costliest[0]} tokens ({costliest[1]:,} passes)."
    among = present(PHASES, labelled["kind"].unique().to_list())
    return Drawn(
        style.chart_of(_uncovered(labelled, among, "seconds" if timed else "passes"), says), says,
        notes(how_timed(session), lost_note(session, events.PASSES)),
    )  # fmt: skip


def _bucket(exponent: int) -> str:
    """Sizes from more than the power before up to this power of two."""
    return "1" if exponent == 0 else "2" if exponent == 1 else f"{2 ** (exponent - 1) + 1:,} to {2**exponent:,}"


def _uncovered(found: pl.DataFrame, among: tuple[style.Kind, ...], amount: str) -> Any:
    sizes = found.sort("exponent")["size"].unique(maintain_order=True).to_list()
    title = "time (s)" if amount == "seconds" else "forward passes"
    return (
        alt.Chart(ordered(found, among))
        .mark_bar()
        .encode(
            x=alt.X("size:N", title="scheduled tokens of the pass", sort=sizes, axis=LEVEL),
            y=alt.Y(f"{amount}:Q", title=title), color=style.by_kind(among), order=style.stack_order(among),
            tooltip=style.tips(
                "size|tokens", "kind|phase", "passes|passes|,", "seconds|seconds|,.4~g", "mean_ms|mean (ms)|,.4~g"
            ),
        )
    )  # fmt: skip
