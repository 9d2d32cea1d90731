"""Figures of the experts of a MoE model: their load by layer, and how uneven it was over time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import altair as alt
import polars as pl

from profilemate.figures import style
from profilemate.figures.bars import bands, to_the_end
from profilemate.figures.columns import least, mean, most
from profilemate.figures.source import Drawn, Missing, lost_note, notes, nothing
from profilemate.figures.style import kinds
from profilemate.figures.thin import MOST_POINTS, bins, ranges
from profilemate.trackers.moe_routing import events
from profilemate.trackers.moe_routing.analyze import MoeSummary, added, analyze, imbalance, summed

if TYPE_CHECKING:
    from profilemate.frames.session import Session

ACROSS = kinds(("layers", "blue"))
ROW_HEIGHT, LEAST_HEIGHT, MOST_HEIGHT = 16, 90, 640


def _counted(session: Session) -> MoeSummary:
    moe = analyze(session)
    if not moe.layers:
        raise nothing(session, "no model with MoE layers was loaded", events.LAYERS)
    if not any(sum(total.row.counts) for total in moe.counted):
        unseen = sorted({layer.unseen for _, layer in moe.layers if layer.unseen})
        why = f" ({', '.join(unseen)})" if unseen else ""
        raise nothing(session, f"no choice of an MoE router was counted{why}", events.COUNTS)
    return moe


def _never(never: int, experts: int) -> str:
    if not never:
        return f"each of the {experts:,} experts was chosen"
    return f"{never:,} of {experts:,} experts {'was' if never == 1 else 'were'} never chosen"


def moe_load(session: Session) -> Drawn:
    """Choices of each expert of each layer against an even share; neighbours are put together where there are many."""
    moe = _counted(session)
    counts = {layer: added(totals) for layer, totals in summed(moe.counted).items()}
    experts = max(len(row) for row in counts.values())
    width = max(1, -(-experts * len(counts) // MOST_POINTS))
    cells = [cell for layer, row in counts.items() for cell in _cells(layer, row, width)]
    frame = pl.DataFrame(cells, schema=["layer", "first", "last", "load", "choices"], orient="row")
    loads = [(max(row) * len(row) / sum(row), layer, row.index(max(row))) for layer, row in counts.items() if sum(row)]
    busiest, layer, expert = max(loads)
    never = sum(1 for row in counts.values() for count in row if not count)
    says = (
        f"{len(counts)} layers of {experts} experts: the busiest expert of a layer had {busiest:.2f} times an even share "
        f"(expert {expert} of layer {layer}); {_never(never, sum(map(len, counts.values())))}."
    )
    engines = len({total.source.engine for total in moe.counted})
    return Drawn(
        style.chart_of(_load_map(frame), says, min(MOST_HEIGHT, max(LEAST_HEIGHT, ROW_HEIGHT * len(counts)))), says,
        notes(
            f"A cell is the mean of {width} neighbouring experts." if width > 1 else "",
            f"{engines} engines are added up." if engines > 1 else "", _unseen(moe), lost_note(session, events.COUNTS),
        ),
    )  # fmt: skip


def _cells(layer: int, row: tuple[int, ...], width: int) -> list[tuple[int, int, int, float, int]]:
    even = sum(row) / len(row)
    found = []
    for first in range(0, len(row), width):
        part = row[first : first + width]
        load = round(sum(part) / len(part) / even, 4) if even else 0.0
        found.append((layer, first, first + len(part), load, sum(part)))
    return found


def _unseen(moe: MoeSummary) -> str:
    unseen = len({layer.layer_idx for _, layer in moe.layers if layer.unseen})
    return f"{unseen} layers were not counted." if unseen else ""


def _load_map(frame: pl.DataFrame) -> Any:
    last = most(frame["last"]) or 1
    return (
        alt.Chart(frame)
        .mark_rect(aria=False)
        .encode(
            x=alt.X("first:Q", title="expert", scale=alt.Scale(domain=[0, last], nice=False), axis=alt.Axis(tickMinStep=1)),
            x2="last:Q",
            y=alt.Y("layer:O", title="layer", axis=alt.Axis(labelOverlap="greedy")),
            color=alt.Color("load:Q", title="times an even share", scale=alt.Scale(domainMin=0),
                            legend=alt.Legend(gradientLength=180, format=".2~f")),
            tooltip=style.tips("layer|layer", "first|expert|", "load|times an even share|.3~f", "choices|choices|,"),
        )
    )  # fmt: skip


def moe_imbalance(session: Session) -> Drawn:
    """Load of each layer's busiest expert over the mean, by bin of time: mean, lowest and highest of the layers."""
    moe = _counted(session)
    found = [(point.time_ns, point.spread.max_over_mean, point.layer_idx) for point in imbalance(session, moe)]
    points = pl.DataFrame(
        found, schema={"at_ns": pl.Int64, "value": pl.Float64, "layer": pl.Int64}, orient="row"
    ).drop_nulls()
    if points.is_empty():
        raise Missing("the experts' counts were read only once, so that there is no course over time")
    grid = bins(int(least(points["at_ns"])), int(most(points["at_ns"])))
    spread = ranges(points.lazy(), grid, [], "value").with_columns(
        pl.lit("layers").alias("kind"), pl.col("low", "mean", "high").round(4)
    )
    worst = points.sort("value").row(-1)
    says = (
        f"On average the busiest expert of a layer had {mean(points['value']):.2f} times the mean load; at most "
        f"{worst[1]:.2f} times, in layer {worst[2]} at {grid.moment(worst[0])}. 1 is even."
    )
    chart = bands(
        to_the_end(spread.drop("rows"), grid), grid, ACROSS, "busiest expert over the mean", alt.Scale(zero=False)
    )
    return Drawn(
        style.chart_of(chart, says), says,
        notes(
            f"The line is the mean of the layers over {grid.width_text}, the band reaches from the most even to the least.",
            _unseen(moe), lost_note(session, events.COUNTS),
        ),
    )  # fmt: skip
