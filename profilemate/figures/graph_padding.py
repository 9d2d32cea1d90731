"""Tokens and padding that went through each captured graph."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import altair as alt
import polars as pl

from profilemate.figures import style
from profilemate.figures.bars import ordered
from profilemate.figures.columns import most, total
from profilemate.figures.passes import captured, counted
from profilemate.figures.source import Drawn, lost_note, notes, nothing
from profilemate.figures.style import kinds
from profilemate.figures.words import share
from profilemate.trackers.cuda_graphs import events

if TYPE_CHECKING:
    from profilemate.frames.session import Session

TOKENS, PADDING = "scheduled tokens", "padding"
PARTS = kinds((TOKENS, "blue"), (PADDING, "orange"))
MOST_ROWS = 30
ROOM_FOR_TEXT = 1.45


def graph_padding(session: Session) -> Drawn:
    """A bar for each graph by mode and size: scheduled tokens and padding of the passes that replayed it."""
    graphs = counted(session).select("runtime_mode", "num_tokens", "replays", "unpadded_tokens", "padded_tokens")
    graphs = graphs.filter(pl.col("replays") > 0)
    if graphs.is_empty():
        reason = "graphs were captured, but no forward pass replayed one" if captured(session).height else (
            "no CUDA graph was captured or replayed"
        )  # fmt: skip
        raise nothing(session, reason, events.PASSES)
    replays, padded = total(graphs["replays"]), total(graphs["padded_tokens"])
    padding = padded - total(graphs["unpadded_tokens"])
    worst = graphs.sort(pl.col("padded_tokens") - pl.col("unpadded_tokens"), descending=True).row(0, named=True)
    says = f"{replays:,} forward passes replayed a graph: {padded:,} tokens, "
    says += f"of which {padding:,} ({share(padding, padded)}) padding"
    if padding:
        its = worst["padded_tokens"] - worst["unpadded_tokens"]
        says += f"; most of it in {worst['runtime_mode']} {worst['num_tokens']} ({its:,})."
    else:
        says += "."
    shown, rest = _shortened(graphs)
    return Drawn(
        style.chart_of(_chart(shown), says, height=style.ROW_HEIGHT * shown.height + 10), says,
        notes(rest, lost_note(session, events.OTHER_REPLAYS)),
    )  # fmt: skip


def _shortened(graphs: pl.DataFrame) -> tuple[pl.DataFrame, str]:
    """Rows with labels by mode and size; the least replayed become one row where there are many."""
    named = graphs.with_columns((pl.col("runtime_mode") + " " + pl.col("num_tokens").cast(pl.String)).alias("graph"))
    named = named.sort("runtime_mode", "num_tokens").select("graph", "replays", "unpadded_tokens", "padded_tokens")
    if named.height <= MOST_ROWS:
        return named, ""
    kept = set(named.sort("padded_tokens", descending=True)["graph"].head(MOST_ROWS - 1))
    others = named.filter(~pl.col("graph").is_in(list(kept)))
    label = f"{others.height} others"
    summed = others.select(pl.lit(label).alias("graph"), pl.col("replays", "unpadded_tokens", "padded_tokens").sum())
    return (
        pl.concat([named.filter(pl.col("graph").is_in(list(kept))), summed]),
        f"The {MOST_ROWS - 1} graphs with most tokens have a bar of their own, the {others.height} others are added up.",
    )


def _chart(graphs: pl.DataFrame) -> Any:
    padding = pl.col("padded_tokens") - pl.col("unpadded_tokens")
    labelled = graphs.with_columns(
        padding.alias("padding_tokens"),
        (
            pl.format("{} replays, ", pl.col("replays").map_elements(lambda count: f"{count:,}", pl.String))
            + (100 * padding / pl.col("padded_tokens")).round(1).cast(pl.String) + " % padding"
        ).alias("text"),
    )  # fmt: skip
    long = labelled.unpivot(
        ["unpadded_tokens", "padding_tokens"], index=["graph", "replays", "padded_tokens"], variable_name="kind",
        value_name="tokens",
    ).with_columns(pl.col("kind").replace_strict({"unpadded_tokens": TOKENS, "padding_tokens": PADDING}))  # fmt: skip
    y = alt.Y("graph:N", title=None, sort=list(graphs["graph"]))
    scale = alt.Scale(domain=[0, max(1, most(graphs["padded_tokens"])) * ROOM_FOR_TEXT], nice=False)
    bars = (
        alt.Chart(ordered(long, PARTS))
        .mark_bar(height={"band": 0.8})
        .encode(
            y=y, x=alt.X("tokens:Q", title="tokens through the graph", scale=scale, axis=style.amounts(grid=True, tickCount=6)),
            color=style.by_kind(PARTS), order=style.stack_order(PARTS),
            tooltip=style.tips("graph|graph", "kind|what", "tokens|tokens|,", "replays|replays|,"),
        )
    )  # fmt: skip
    text = (
        alt.Chart(labelled.select("graph", "padded_tokens", "text"))
        .mark_text(align="left", dx=5, baseline="middle")
        .encode(y=y, x=alt.X("padded_tokens:Q", scale=scale), text="text:N")
    )
    return alt.layer(bars, text)
