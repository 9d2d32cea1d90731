"""How figures look: colours that colour-blind people can tell apart, light and dark as configuration alone, sizes, numbers.

A chart names its colours by parameters (`c_blue`); the configuration of a theme gives them values. So a page can change
between light and dark by changing `config` alone, and the data stands in it once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

from profilemate.figures.figure import Figure
from profilemate.figures.thin import Bins

LIGHT, DARK = "light", "dark"
THEMES = (LIGHT, DARK)

PALETTE: dict[str, tuple[str, str]] = {
    "blue": ("#0072B2", "#4C9FDB"),
    "sky": ("#7CC4EE", "#A9DAF8"),
    "orange": ("#E69F00", "#F2B233"),
    "vermilion": ("#D55E00", "#EE7733"),
    "green": ("#009E73", "#1FB88F"),
    "purple": ("#8A3F86", "#D998C0"),
    "grey": ("#7A828C", "#8D95A0"),
    "pale": ("#D3D8DE", "#414953"),
    "ink": ("#1B1F24", "#E6E9EC"),
    "soft": ("#6B737C", "#A3ABB4"),
    "grid": ("#E4E7EA", "#30363D"),
    "paper": ("#FFFFFF", "#15181C"),
}
"""Colours by name for a light and a dark page: those of Okabe and Ito (https://jfly.uni-koeln.de/color/), made lighter for
the dark page, two of them moved so that each can be told from its neighbours without colour."""

FONT = "Helvetica, Arial, 'Liberation Sans', sans-serif"
HEIGHT, PICTURE_WIDTH = 260, 720
ROW_HEIGHT = 20
NARROW = 480
DASHES: tuple[tuple[int, ...], ...] = ((1, 0), (6, 3), (2, 2), (8, 3, 2, 3), (12, 4), (4, 1, 1, 1))
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down")


def colour(name: str) -> Any:
    """A colour of the palette, whose value the theme gives."""
    if name not in PALETTE:
        raise KeyError(name)
    return alt.ExprRef(f"c_{name}")


def config(theme: str = LIGHT, font: str = FONT, size: int = 12) -> dict[str, Any]:
    """Vega-Lite's `config` of a theme: colours, axes, text; the background is transparent."""
    value = {name: shades[THEMES.index(theme)] for name, shades in PALETTE.items()}
    text = {
        "labelColor": value["ink"],
        "titleColor": value["ink"],
        "labelFontSize": size - 1,
        "titleFontSize": size - 1,
    }
    return {
        "params": [{"name": f"c_{name}", "value": shade} for name, shade in value.items()],
        "background": None,
        "font": font,
        "view": {"stroke": None, "continuousHeight": HEIGHT, "continuousWidth": PICTURE_WIDTH},
        "axis": {
            **text, "titleFontWeight": "normal", "gridColor": value["grid"], "domainColor": value["soft"],
            "tickColor": value["soft"], "labelLimit": 200, "titlePadding": 8, "labelOverlap": True,
            "labelSeparation": 4,
        },
        "axisY": {"domain": False, "ticks": False, "labelPadding": 6},
        "axisX": {"grid": False, "tickSize": 4},
        "legend": {
            **text, "titleFontWeight": "normal", "orient": "top", "direction": "horizontal", "offset": 8,
            "symbolStrokeWidth": 2, "labelLimit": 220, "symbolSize": 110, "symbolOpacity": 1,
            "rowPadding": 4, "columnPadding": 14,
        },
        "title": {
            "color": value["ink"], "subtitleColor": value["soft"], "anchor": "start", "frame": "group",
            "fontSize": size + 3, "subtitleFontSize": size - 1, "subtitlePadding": 6, "offset": 12,
            "fontWeight": 600,
        },
        "text": {"color": value["ink"], "fontSize": size - 1},
        "rule": {"color": value["soft"]},
        "range": {"ramp": ramp(theme), "heatmap": ramp(theme)},
    }  # fmt: skip


def ramp(theme: str) -> list[str]:
    """Colours from little to much for heat maps: one hue, the lightness rises or falls all the way (after cividis)."""
    return ["#F2F5F8", "#B9D7EA", "#6AAED6", "#2D7DB5", "#0B3C6F"] if theme == LIGHT else [
        "#1D232A", "#1B4468", "#2477B0", "#6DB4E2", "#DDF1FC",
    ]  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """A category as it is drawn: the text in the data and in the legend, and the colour's name."""

    label: str
    colour: str


def kinds(*pairs: tuple[str, str]) -> tuple[Kind, ...]:
    """Categories from (label, colour), in the order in which the legend has them."""
    return tuple(Kind(*pair) for pair in pairs)


def present(among: Sequence[Kind], labels: Sequence[str]) -> tuple[Kind, ...]:
    """Those that occur in the data."""
    found = set(labels)
    return tuple(kind for kind in among if kind.label in found)


def by_kind(among: Sequence[Kind], field: str = "kind", columns: int = 0, legend: bool = True) -> Any:
    """Colour by category, with its legend."""
    return alt.Color(
        f"{field}:N",
        scale=alt.Scale(domain=[kind.label for kind in among], range=[colour(kind.colour) for kind in among]),
        legend=alt.Legend(title=None, columns=columns or alt.Undefined) if legend else None,
    )


def beneath(among: Sequence[Kind], channel: Any) -> Any:
    """Colour of a second layer (alt.Fill, alt.Stroke) by the column `kind_order`, which `bars.ordered` gives.

    Layers share one legend for each channel and domain: with a channel and a domain of its own this one has none, and the
    legend has the symbols of the layer above.
    """
    return channel(
        "kind_order:N",
        scale=alt.Scale(domain=list(range(len(among))), range=[colour(kind.colour) for kind in among]),
        legend=None,
    )


def dash_by_kind(among: Sequence[Kind], field: str = "kind") -> Any:
    """A line's dashes by category, so that the colour is not the only sign."""
    return alt.StrokeDash(
        f"{field}:N",
        scale=alt.Scale(domain=[kind.label for kind in among], range=[list(d) for d in DASHES[: len(among)]]),
        legend=alt.Legend(title=None),
    )


def shape_by_kind(among: Sequence[Kind], field: str = "kind") -> Any:
    """A point's shape by category."""
    return alt.Shape(
        f"{field}:N",
        scale=alt.Scale(domain=[kind.label for kind in among], range=list(SHAPES[: len(among)])),
        legend=alt.Legend(title=None),
    )


def stack_order(among: Sequence[Kind], field: str = "kind") -> Any:
    """The first category lies lowest (or leftmost)."""
    return alt.Order(f"{field}_order:Q")


def time_x(grid: Bins, field: str = "from") -> Any:
    """The axis of time since the session began, in the unit of the bins."""
    domain = [grid.start_ns / grid.unit_ns, grid.end_ns / grid.unit_ns]
    return alt.X(
        f"{field}:Q",
        title=f"time since the session began ({grid.unit})",
        scale=alt.Scale(domain=domain, nice=False, zero=False),
        axis=alt.Axis(tickCount=8, labelFlush=True),
    )


def tips(*told: str) -> list[Any]:
    """Tooltips from `field|title` for text and `field|title|format` for a number, whose format may be empty."""
    found = []
    for one in told:
        field, title, *formats = one.split("|")
        kind = "Q" if formats else "N"
        found.append(alt.Tooltip(f"{field}:{kind}", title=title, format="".join(formats) or alt.Undefined))
    return found


def doublings_x(title: str, low: float, high: float, field: str = "tokens") -> Any:
    """A logarithmic axis of sizes with a tick at each power of two."""
    low, high = max(low, 1), max(high, 1)
    first, last = math.floor(math.log2(low)), math.ceil(math.log2(high))
    return alt.X(
        f"{field}:Q", title=title,
        scale=alt.Scale(type="log", base=2, domain=[low / 1.35, high * 1.35], nice=False),
        axis=alt.Axis(values=[2**power for power in range(first, last + 1)], format="~d", grid=False, labelOverlap="greedy"),
    )  # fmt: skip


def decades(low: float, high: float) -> list[float]:
    """Ticks of a logarithmic axis: powers of ten, and 2 and 5 of each where there are few."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    steps = (1, 2, 5) if high <= 300 * low else (1,)
    return [float(f"{step}e{power}") for power in range(first, last + 1) for step in steps]


def plain(values: Sequence[float], **options: Any) -> Any:
    """An axis with these ticks, as plain numbers: `0.05`, `2`, `10,000`."""
    expression = "datum.value >= 1000 ? format(datum.value, ',') : format(datum.value, '.3~g')"
    return alt.Axis(values=list(values), labelExpr=expression, **options)


def log_scale(low: float, high: float) -> Any:
    """From a bit less than the lowest to a bit more than the highest value."""
    return alt.Scale(type="log", domain=[low / 1.25, high * 1.25], nice=False)


def amounts(**options: Any) -> Any:
    """An axis of large numbers: `500`, `2k`, `1.5M`, and a plain 0."""
    return alt.Axis(labelExpr="format(datum.value, '.3~s')", **options)


def chart_of(chart: Any, says: str, height: int = HEIGHT) -> Any:
    """A chart as wide as what holds it, with a description for who cannot see it."""
    return chart.properties(width="container", height=height, description=says)


def pan_and_zoom(name: str = "view") -> Any:
    """Shift and the wheel zoom along time, dragging by mouse pans; a plain wheel or a finger scrolls the page."""
    return alt.selection_interval(
        name=name, bind="scales", encodings=["x"],
        zoom="wheel![event.shiftKey]", translate="[mousedown, window:mouseup] > window:mousemove!",
    )  # fmt: skip


def spec(
    figure: Figure,
    theme: str = LIGHT,
    width: int | None = None,
    height: int | None = None,
    title: bool = False,
    font: str = FONT,
    font_size: int = 12,
) -> dict[str, Any]:
    """The figure as a Vega-Lite specification with its data.

    Without `width` it fills what holds it. `title` puts the title and what the figure says above it.
    """  # fmt: skip
    found: dict[str, Any] = figure.chart.to_dict()
    if width is not None:
        found = {**(narrowed(found, width) if width < NARROW else found), "width": width}
    found["config"] = config(theme, font, font_size)
    if height is not None:
        found["height"] = height
    if title:
        found["title"] = {"text": figure.title, "subtitle": wrapped(figure.says, width or PICTURE_WIDTH, font_size)}
    return found


def narrowed(part: Any, width: int) -> Any:
    """With legends in rows of two, where there is little room."""
    if isinstance(part, list):
        return [narrowed(one, width) for one in part]
    if not isinstance(part, dict):
        return part
    found = {name: one if name == "datasets" else narrowed(one, width) for name, one in part.items()}
    if found.get("legend"):
        found["legend"] = {**found["legend"], "columns": 2, "labelLimit": width // 2}
    return found


def wrapped(sentence: str, width: int, font_size: int = 12) -> list[str]:
    """A sentence in lines that fit a picture of this width in pixels; half the font's size is taken for a letter's width."""
    from textwrap import wrap

    return wrap(sentence, max(20, int(width / (font_size * 0.5)))) or [""]


def with_order(among: Sequence[Kind]) -> Mapping[str, int]:
    """Numbers of categories, for `stack_order`."""
    return {kind.label: number for number, kind in enumerate(among)}
