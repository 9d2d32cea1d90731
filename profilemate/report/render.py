"""The model of a page as HTML."""

from __future__ import annotations

from typing import Any

from profilemate.frames.packages import load
from profilemate.report.inline import json_for_script, own_file, policy, script_text, vega_script
from profilemate.report.model import Page

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif"
"""The page's own, see page.css."""


def html_of(page: Page) -> str:
    """The whole file. Raises SessionError where a package is missing."""
    environment = templates()
    early = script_text(own_file("theme.js"))
    late = [vega_script(), script_text(own_file("figures.js"))] if page.drawings else []
    scripts = [early, script_text(own_file("page.js")), *late]
    rendered: str = environment.get_template("page.html").render(
        page=page,
        policy=policy(scripts),
        style=own_file("page.css"),
        early=early,
        scripts=scripts[1:],
        themes=themes() if page.drawings else "",
    )
    return rendered


def themes() -> str:
    """Vega-Lite's `config` for a light and a dark page, as JSON for a script element."""
    from profilemate.figures.style import THEMES, config

    return json_for_script({theme: config(theme, FONT) for theme in THEMES})


def ticked(sentence: Any) -> Any:
    """A sentence as HTML, escaped, with what stands between backticks as code."""
    markup = load("markupsafe")
    parts = [markup.escape(part) for part in str(sentence).split("`")]
    if len(parts) % 2 == 0:
        return markup.escape(sentence)
    return markup.Markup("").join(
        markup.Markup("<code>{}</code>").format(part) if place % 2 else part for place, part in enumerate(parts)
    )


def templates() -> Any:
    """Jinja's environment: every value is escaped, an unknown one is an error."""
    from profilemate.advise.text import evidence_text, number_text

    jinja2 = load("jinja2")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("profilemate.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(evidence_text=evidence_text, amount=number_text, ticked=ticked)
    return environment
