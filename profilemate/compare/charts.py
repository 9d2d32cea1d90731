"""Figures of a comparison: changes with their intervals, graph ladders overlaid, distributions of all sessions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import altair as alt
import polars as pl

from profilemate.compare.catalogue import ARRIVED, BUSY
from profilemate.compare.change import BETTER, BEYOND, DIFFERS, WORSE, Change
from profilemate.compare.comparison import Comparison, Side
from profilemate.compare.evaluate import Evaluator
from profilemate.compare.ladder import ladders
from profilemate.compare.number import SHARE, Rows
from profilemate.compare.shown import change_text, interval_text, value_text
from profilemate.figures import style
from profilemate.figures.distribution import Series, distribution
from profilemate.figures.figure import Figure
from profilemate.figures.style import kinds

COLOURS = ("blue", "orange", "green", "purple", "vermilion", "sky")
REST = "not beyond the noise"
VERDICTS = kinds((WORSE, "vermilion"), (BETTER, "green"), (DIFFERS, "orange"), (REST, "grey"))
FARTHEST = 1.0
"""Changes are drawn up to plus or minus 100 %."""

CURVES: tuple[tuple[str, str, str, Rows, str], ...] = (
    ("ttft", "Time to first token", "requests", ARRIVED, "ttft"),
    ("tpot", "Time per output token", "requests", ARRIVED, "tpot"),
    ("step_time", "Engine step", "steps", BUSY, "wall"),
    ("batch_requests", "Requests in an engine step", "steps", BUSY, "requests"),
)


def figures(comparison: Comparison) -> list[Figure]:
    """Those for which there is data. At most six sessions have a colour; later ones are left out of the figures."""
    sides = comparison.sides[: len(COLOURS)]
    found = [
        figure
        for side, changes in zip(sides[1:], comparison.changes, strict=False)
        for figure in _changes(side, comparison.sides[0], changes)
    ]
    return [*found, *_ladder(sides), *_curves(sides)]


def _changes(side: Side, first: Side, changes: Sequence[Change]) -> Iterator[Figure]:
    for kind, title in (("percent", "change (%)"), ("points", "change (points of percent)")):
        rows = [row for change in changes if (row := _change_row(change, kind == "points"))]
        if rows:
            what = f"{side.label} against {first.label}"
            says = (
                f"Changes of {what} with their 95 % intervals; {_beyond(changes, kind == 'points')} beyond the noise."
            )
            yield Figure(f"changes_{side.label}_{kind}", f"{what}: {title}", says, _forest(rows, title, says))


def _beyond(changes: Sequence[Change], is_share: bool) -> int:
    return sum(change.verdict in BEYOND and (change.number.scale == SHARE) == is_share for change in changes)


def _change_row(change: Change, is_share: bool) -> dict[str, Any] | None:
    middle = change.points if is_share else change.relative
    if (change.number.scale == SHARE) != is_share or middle is None or change.low is None or change.high is None:
        return None
    if change.in_points != is_share or (middle == 0 and change.low == change.high):
        return None
    low, high = max(change.low, -FARTHEST), min(change.high, FARTHEST)
    return {
        "number": change.number.title, "kind": change.verdict if change.verdict in BEYOND else REST,
        "change": 100 * max(-FARTHEST, min(FARTHEST, middle)), "low": 100 * low, "high": 100 * high,
        "from": value_text(change.number, change.before.value), "to": value_text(change.number, change.after.value),
        "by": change_text(change), "interval": interval_text(change),
    }  # fmt: skip


def _forest(rows: list[dict[str, Any]], title: str, says: str) -> Any:
    frame = pl.DataFrame(rows)
    y = alt.Y("number:N", title=None, sort=None, axis=alt.Axis(grid=True, labelLimit=260))
    tooltip = [alt.Tooltip(f"{name}:N") for name in ("number", "from", "to", "by", "interval", "kind")]
    base = alt.Chart(frame).encode(y=y, color=style.by_kind(VERDICTS), tooltip=tooltip)
    zero = alt.Chart(pl.DataFrame({"zero": [0]})).mark_rule(color=style.colour("soft")).encode(x="zero:Q")
    lines = base.mark_rule(strokeWidth=2).encode(x=alt.X("low:Q", title=title), x2="high:Q")
    points = base.mark_point(filled=True, size=55, opacity=1).encode(
        x=alt.X("change:Q", title=title), shape=style.shape_by_kind(VERDICTS)
    )
    return style.chart_of(alt.layer(zero, lines, points), says, height=max(60, style.ROW_HEIGHT * frame.height))


def _ladder(sides: Sequence[Side]) -> Iterator[Figure]:
    rows = [
        {
            "graph": f"{step.mode} {step.size}", "kind": _name(side), "share": 100 * rung.share, "replays": rung.replays,
            "padding": rung.padding, "captured": "yes" if rung.is_captured else "no",
        }
        for step in ladders([side.material for side in sides])
        for side, rung in zip(sides, step.rungs, strict=True)
        if rung is not None
    ]  # fmt: skip
    if not rows:
        return
    among = kinds(*((_name(side), colour) for side, colour in zip(sides, COLOURS, strict=False)))
    says = "Share of the forward passes that replayed each graph; one that was captured and never replayed has a cross."
    tooltip = [alt.Tooltip(f"{name}:N") for name in ("graph", "kind", "replays", "padding", "captured")]
    base = alt.Chart(pl.DataFrame(rows)).encode(
        x=alt.X("graph:N", title=None, sort=None, axis=alt.Axis(labelAngle=-40)),
        xOffset=alt.XOffset("kind:N", sort=None, scale=alt.Scale(domain=[kind.label for kind in among])),
        y=alt.Y("share:Q", title="share of the forward passes (%)"),
        color=style.by_kind(among), tooltip=tooltip,
    )  # fmt: skip
    never = base.transform_filter("datum.replays === 0").mark_point(shape="cross", filled=True, size=35, yOffset=-5)
    chart = alt.layer(base.mark_bar(), never)
    yield Figure("ladder", "Graph ladders", says, style.chart_of(chart, says))


def _curves(sides: Sequence[Side]) -> Iterator[Figure]:
    evaluators = [Evaluator(side.material) for side in sides]
    for name, title, of, rows, column in CURVES:
        series = [
            Series(_name(side), colour, pl.Series(column, values))
            for side, evaluator, colour in zip(sides, evaluators, COLOURS, strict=False)
            if len(values := evaluator.values(rows, column))
        ]
        if len(series) < 2:
            continue
        says = f"{title}: the share of the {of} that had at most so much, session by session."
        unit = "requests" if column == "requests" else "seconds"
        yield Figure(name, title, says, style.chart_of(distribution(series, unit, of), says))


def _name(side: Side) -> str:
    return f"{side.label} {side.name}"
