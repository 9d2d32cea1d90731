"""A comparison as one HTML file that loads nothing."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files

from profilemate.compare.catalogue import NUMBERS
from profilemate.compare.change import FOUND, Change
from profilemate.compare.comparison import Comparison
from profilemate.compare.conditions import HOLDS, Outcome
from profilemate.compare.shown import NONE, change_text, interval_text, p_text, value_text
from profilemate.compare.steady import SLICES
from profilemate.compare.text import WORDS, counted, is_there, sentence, side_names
from profilemate.frames.packages import load


def page(comparison: Comparison, outcomes: Sequence[Outcome] = ()) -> str:
    """The whole file. Raises SessionError where a package is missing."""
    jinja2 = load("jinja2")
    for package in ("altair", "vl_convert"):
        load(package)
    from profilemate.compare.charts import figures
    from profilemate.figures.style import THEMES, config
    from profilemate.report.inline import json_for_script, policy, script_text, vega_script

    drawn = figures(comparison)
    specs = {figure.name: figure.chart.to_dict() for figure in drawn}
    script = script_text((files("profilemate.compare") / "templates" / "draw.js").read_text(encoding="utf-8"))
    scripts = [vega_script(), script] if drawn else []
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("profilemate.compare", "templates"), autoescape=True,
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    return str(
        environment.get_template("page.html").render(
            title=side_names(comparison.sides),
            comparison=comparison,
            is_pair=len(comparison.sides) == 2,
            verdicts=_verdicts(comparison),
            groups=_groups(comparison),
            totals=_totals(comparison),
            outcomes=[(outcome.says, outcome.state == HOLDS) for outcome in outcomes],
            figures=drawn,
            specs=json_for_script(specs),
            themes=json_for_script({theme: config(theme) for theme in THEMES}),
            scripts=scripts,
            policy=policy(scripts),
            slices=SLICES,
            none=NONE,
        )
    )


def _verdicts(comparison: Comparison) -> list[tuple[str, list[tuple[str, str]]]]:
    """For each later session a sentence, and what is beyond the noise with its verdict."""
    first = comparison.sides[0].label
    return [
        (
            f"{side.label} against {first}: {counted(changes)}",
            [(word, sentence(change)) for word in FOUND for change in changes if change.verdict == word],
        )
        for side, changes in zip(comparison.sides[1:], comparison.changes, strict=True)
    ]


def _groups(comparison: Comparison) -> list[tuple[str, list[tuple[str, str, str, list[dict[str, str]]]]]]:
    """Groups of rows: title, name, first value, and the cells of each later session."""
    groups: dict[str, list[tuple[str, str, str, list[dict[str, str]]]]] = {}
    for place, number in enumerate(NUMBERS):
        changes = [some[place] for some in comparison.changes]
        if any(is_there(change) for change in changes):
            before = value_text(number, changes[0].before.value)
            groups.setdefault(number.group, []).append((number.title, number.name, before, [*map(_cell, changes)]))
    return list(groups.items())


def _cell(change: Change) -> dict[str, str]:
    return {
        "value": value_text(change.number, change.after.value),
        "change": change_text(change),
        "interval": interval_text(change),
        "p": p_text(change),
        "verdict": WORDS.get(change.verdict, change.verdict),
        "kind": change.verdict.replace(" ", "-"),
        "why": change.why,
    }


def _totals(comparison: Comparison) -> list[tuple[str, list[str]]]:
    rows = []
    for n, total in enumerate(comparison.sides[0].totals):
        values = [side.totals[n].value for side in comparison.sides]
        if any(values):
            rows.append((total.title, [NONE if value is None else f"{value:,}" for value in values]))
    return rows
