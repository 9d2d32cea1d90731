"""A figure as the bytes of a file: PNG, SVG, PDF, an HTML page that needs no network, or its Vega-Lite specification."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from profilemate.frames.packages import load

if TYPE_CHECKING:
    from profilemate.figures.figure import Figure

DOTS_PER_INCH = 72


@dataclass(frozen=True)
class Look:
    """How a figure is drawn. Width and height are of the plot's area, in pixels; None is the figure's own."""

    theme: str = "light"
    width: int | None = None
    height: int | None = None
    scale: float = 2.0
    font: str = ""
    font_size: int = 12
    title: bool = True
    transparent: bool = False


def fonts_from(folder: str) -> None:
    """Let pictures use the fonts of a folder too."""
    load("vl_convert").register_font_directory(os.path.abspath(folder))


def encoded(figure: Figure, kind: str, look: Look) -> bytes:
    """The file's content; `kind` is one of KINDS."""
    return KINDS[kind](specification(figure, look), figure, look)


def specification(figure: Figure, look: Look) -> dict[str, Any]:
    """The Vega-Lite specification with the data, in this look."""
    from profilemate.figures import style

    spec = style.spec(
        figure,
        look.theme,
        look.width or style.PICTURE_WIDTH,
        look.height,
        look.title,
        look.font or style.FONT,
        look.font_size,
    )
    if not look.transparent:
        spec["config"]["background"] = style.PALETTE["paper"][style.THEMES.index(look.theme)]
    spec["padding"] = 12
    return dict(drawable(spec))


def drawable(part: Any) -> Any:
    """A specification whose texts have no control characters: the renderer's SVG is XML, and one of them ends the process."""
    if isinstance(part, str):
        return part if part.isprintable() else "".join(c if c.isprintable() or c == "\n" else "?" for c in part)
    if isinstance(part, Mapping):
        return {drawable(key): drawable(value) for key, value in part.items()}
    return [drawable(value) for value in part] if isinstance(part, (list, tuple)) else part


def _png(spec: dict[str, Any], figure: Figure, look: Look) -> bytes:
    return bytes(load("vl_convert").vegalite_to_png(spec, scale=look.scale, ppi=DOTS_PER_INCH))


def _svg(spec: dict[str, Any], figure: Figure, look: Look) -> bytes:
    return str(load("vl_convert").vegalite_to_svg(spec)).encode()


def _pdf(spec: dict[str, Any], figure: Figure, look: Look) -> bytes:
    return bytes(load("vl_convert").vegalite_to_pdf(spec))


def _json(spec: dict[str, Any], figure: Figure, look: Look) -> bytes:
    return (json.dumps(spec, indent=1, allow_nan=False) + "\n").encode()


def _html(spec: dict[str, Any], figure: Figure, look: Look) -> bytes:
    """A page with the chart, which follows the window's width where none is given; title and sentence are the page's own."""
    from profilemate.figures import style

    shown = {name: value for name, value in spec.items() if name != "title"}
    if look.width is None:
        shown["width"] = "container"
    ink, paper = (style.PALETTE[name][style.THEMES.index(look.theme)] for name in ("ink", "paper"))
    page = PAGE.format(
        title=escape(figure.title), head=_head(figure) if look.title else "", note=escape(figure.note),
        ink=ink, paper=paper, font=_css_font(look.font or style.FONT), policy=POLICY,
        bundle=load("vl_convert").javascript_bundle("window.vegaEmbed = vegaEmbed;"), spec=in_script(shown),
    )  # fmt: skip
    return page.encode()


def _head(figure: Figure) -> str:
    return HEAD.format(title=escape(figure.title), says=escape(figure.says))


def _css_font(name: str) -> str:
    """A list of families without anything that could end the rule."""
    return re.sub(r"[^\w ,'-]", "", name)


def in_script(value: Any) -> str:
    """JSON that can stand in a script element: no text of the data can end it or begin a comment."""
    return json.dumps(value, allow_nan=False).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
"""Nothing is loaded, and no code is made from text: Vega's expressions are interpreted."""

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{title}</title>
<style>
body {{ margin: 1rem auto; padding: 0 1rem; max-width: 70rem; color: {ink}; background: {paper}; font-family: {font}; }}
#chart {{ width: 100%; overflow-x: auto; }}
h1 {{ font-size: 1.25rem; margin-bottom: 0.25rem; }}
p {{ font-size: 0.9rem; line-height: 1.4; }}
</style>
</head>
<body>
<main>
{head}<div id="chart"></div>
<p>{note}</p>
</main>
<script>{bundle}</script>
<script>
window.vegaEmbed("#chart", {spec}, {{renderer: "svg", ast: true, actions: {{export: true, source: false, editor: false}}}});
</script>
</body>
</html>
"""

HEAD = """<h1>{title}</h1>
<p>{says}</p>
"""

KINDS: dict[str, Callable[[dict[str, Any], Any, Look], bytes]] = {
    "png": _png, "svg": _svg, "pdf": _pdf, "html": _html, "json": _json,
}  # fmt: skip
"""By the ending of the file."""
