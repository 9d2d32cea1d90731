"""How figures look, read from their specifications: sentences, sizes, axes, themes, colours that everybody can tell apart."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from itertools import combinations
from typing import Any

import pytest
from figure_sessions import rich_session

import profilemate
from profilemate.figures import BY_NAME, draw, style
from profilemate.figures.figure import Figure, NoFigure
from profilemate.frames.session import Session

SCRIPT = "</script><script>alert(1)</script>"
SINGLE = ("kv_usage_by_engine",)
NO_MODEL = ("memory_bandwidth", "compute_rate")


@pytest.fixture(scope="module")
def rich(tmp_path_factory: pytest.TempPathFactory) -> Session:
    """One engine, everything on, a request whose id is markup."""
    opened: Session = profilemate.open(rich_session(tmp_path_factory.mktemp("rich"), first=SCRIPT).path)
    return opened


@pytest.fixture(scope="module")
def drawn(rich: Session) -> dict[str, Figure]:
    """All figures of it but those that need several engines or a model's sizes."""
    found = {name: draw(rich, name) for name in BY_NAME}
    missing = {name for name, one in found.items() if isinstance(one, NoFigure)}
    assert missing == {*SINGLE, *NO_MODEL}
    return {name: one for name, one in found.items() if isinstance(one, Figure)}


_specs: dict[int, dict[str, Any]] = {}


def spec_of(one: Figure) -> dict[str, Any]:
    """Its Vega-Lite specification, made once for all tests."""
    if id(one) not in _specs:
        _specs[id(one)] = one.chart.to_dict()
    return _specs[id(one)]


def specs(part: Any) -> Iterator[dict[str, Any]]:
    """Every object of a specification, its data apart."""
    if isinstance(part, dict):
        yield part
        for name, value in part.items():
            if name != "datasets":
                yield from specs(value)
    elif isinstance(part, list):
        for value in part:
            yield from specs(value)


def channels(spec: dict[str, Any], *names: str) -> Iterator[dict[str, Any]]:
    """Definitions of these channels wherever they are."""
    for one in specs(spec):
        for name in names:
            channel = one.get("encoding", {}).get(name)
            if isinstance(channel, dict) and "field" in channel:
                yield channel


def test_every_figure_says_something_with_numbers(drawn: dict[str, Figure]) -> None:
    for name, one in drawn.items():
        assert re.search(r"\d", one.says), name
        assert one.says.endswith(".") and "nan" not in one.says and "None" not in one.says, one.says
        assert spec_of(one)["description"] == one.says
        assert one.title == BY_NAME[name].title


def test_every_chart_fills_what_holds_it_and_has_few_points(drawn: dict[str, Figure]) -> None:
    for name, one in drawn.items():
        spec = spec_of(one)
        assert spec["width"] == "container", name
        assert sum(len(rows) for rows in spec["datasets"].values()) <= 2_000, name
        assert len(json.dumps(spec)) < 150_000, name


UNITS = re.compile(
    r"\((s|ms|min|h|%|GB/s|TFLOP/s|tokens)\)|tokens|blocks|requests|preemptions|passes|expert|layer|mean"
)


def test_every_axis_has_a_title_with_its_unit(drawn: dict[str, Figure]) -> None:
    for name, one in drawn.items():
        for channel in channels(spec_of(one), "x", "y"):
            if channel["type"] == "quantitative" and channel.get("title") is not None:
                assert UNITS.search(channel["title"]), (name, channel["title"])
        titled = [c for c in channels(spec_of(one), "x") if c["type"] == "quantitative" and c.get("title")]
        assert titled or name in ("graph_uncovered", "hook_health"), name


def test_the_colour_is_never_the_only_sign_of_a_line_or_a_point(drawn: dict[str, Figure]) -> None:
    checked = 0
    for name, one in drawn.items():
        for part in specs(spec_of(one)):
            mark = part.get("mark")
            kind = mark.get("type") if isinstance(mark, dict) else mark
            encoding = part.get("encoding", {})
            if kind not in ("line", "point") or "field" not in encoding.get("color", {}):
                continue
            domain = encoding["color"].get("scale", {}).get("domain", [])
            if len(domain) > 1:
                checked += 1
                assert {"strokeDash", "shape"} & set(encoding), name
    assert checked >= 6


@pytest.mark.parametrize("theme", style.THEMES)
def test_a_theme_is_configuration_alone_and_knows_every_colour(drawn: dict[str, Figure], theme: str) -> None:
    known = {parameter["name"] for parameter in style.config(theme)["params"]}
    for one in drawn.values():
        spec = spec_of(one)
        used = set(re.findall(r'"expr": "(c_\w+)"', json.dumps(spec)))
        assert used <= known
        assert not spec.get("config", {}).get("params")
    themed = style.spec(drawn["ttft"], theme, width=300)
    assert themed["config"] == style.config(theme) and themed["config"]["background"] is None
    assert {**themed, "config": 0, "width": 0} == {
        **style.narrowed(spec_of(drawn["ttft"]), 300),
        "config": 0,
        "width": 0,
    }


@pytest.mark.parametrize("theme", style.THEMES)
def test_every_figure_compiles_without_a_warning(drawn: dict[str, Figure], theme: str) -> None:
    converter = pytest.importorskip("vl_convert")
    for name in (
        "kv_usage",
        "graph_ladder",
        "forward_time",
        "step_queue",
        "ttft",
        "hook_health",
        "moe_load",
        "graph_coverage",
    ):
        compiled = converter.vegalite_to_vega(style.spec(drawn[name], theme, width=400, title=True))
        assert compiled["marks"], name


def linear(channel: float) -> float:
    """SRGB to linear light."""
    return channel / 12.92 if channel <= 0.04045 else ((channel + 0.055) / 1.055) ** 2.4


def light_of(shade: str) -> tuple[float, ...]:
    """A colour as linear light."""
    return tuple(linear(int(shade[place : place + 2], 16) / 255) for place in (1, 3, 5))


# Machado, Oliveira, Fernandes (2009), "A Physiologically-based Model for Simulation of Color Vision Deficiency", severity 1.0
SIGHTS = {
    "full": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "protanopia": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "deuteranopia": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
    "tritanopia": ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.303900)),
}


def lab(light: tuple[float, ...]) -> tuple[float, float, float]:
    """CIE L*a*b* under D65 of linear sRGB light."""
    red, green, blue = (min(1.0, max(0.0, one)) for one in light)
    x = (0.4124 * red + 0.3576 * green + 0.1805 * blue) / 0.95047
    y = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    z = (0.0193 * red + 0.1192 * green + 0.9505 * blue) / 1.08883
    fx, fy, fz = (one ** (1 / 3) if one > 0.008856 else 7.787 * one + 16 / 116 for one in (x, y, z))
    return 116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)


def seen(shade: str, sight: str) -> tuple[float, float, float]:
    """A colour as somebody with this sight sees it."""
    light = light_of(shade)
    return lab(tuple(sum(a * b for a, b in zip(row, light, strict=True)) for row in SIGHTS[sight]))


def palettes(drawn: dict[str, Figure]) -> dict[str, list[str]]:
    """Names of the colours that stand beside each other in a figure, each once."""
    found = {}
    for name, one in drawn.items():
        for channel in channels(spec_of(one), "color"):
            named = [
                shade["expr"].removeprefix("c_")
                for shade in channel.get("scale", {}).get("range", [])
                if isinstance(shade, dict)
            ]
            if len(set(named)) > 1 and name not in ("prefix_misses", "hook_health"):
                found[name] = list(dict.fromkeys(named))
    return found


@pytest.mark.parametrize("sight", SIGHTS)
@pytest.mark.parametrize("theme", style.THEMES)
def test_colours_of_a_figure_can_be_told_apart_by_everybody(drawn: dict[str, Figure], theme: str, sight: str) -> None:
    """A difference of ten in L*a*b* is seen at a glance; bars beside each other also have a line between them."""
    used = palettes(drawn)
    assert len(used) >= 10
    for name, colours in used.items():
        for one, other in combinations(colours, 2):
            shades = [style.PALETTE[colour][style.THEMES.index(theme)] for colour in (one, other)]
            distance = math.dist(seen(shades[0], sight), seen(shades[1], sight))
            assert distance > 10, (name, one, other, round(distance, 1))


@pytest.mark.parametrize("theme", style.THEMES)
def test_text_has_contrast(theme: str) -> None:
    place = style.THEMES.index(theme)
    brightness = {
        name: 0.2126 * r + 0.7152 * g + 0.0722 * b
        for name, shades in style.PALETTE.items()
        for r, g, b in [light_of(shades[place])]
    }
    for name, least in (("ink", 7.0), ("soft", 4.5)):
        low, high = sorted((brightness[name], brightness["paper"]))
        assert (high + 0.05) / (low + 0.05) >= least, name


def test_what_users_named_is_data_and_nothing_else(drawn: dict[str, Figure]) -> None:
    spec = spec_of(drawn["request_waterfall"])
    shown = [row for rows in spec["datasets"].values() for row in rows]
    assert any(row["request"].startswith("</script>") for row in shown)
    for one in drawn.values():
        for part in specs(spec_of(one)):
            text = json.dumps(
                {key: value for key, value in part.items() if key in ("expr", "transform", "href", "url", "signal")}
            )
            assert "script" not in text
            assert not {"url", "href"} & set(part)
