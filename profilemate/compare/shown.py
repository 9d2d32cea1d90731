"""How values look: each number in a unit that fits its size, changes in percent or points."""

from __future__ import annotations

import math

from profilemate.compare.change import Change
from profilemate.compare.number import COUNT, SHARE, Number

NONE = "-"
SECONDS = ((1.0, 1.0, "s"), (1e-3, 1e-3, "ms"), (0.0, 1e-6, "us"))
"""From so many seconds on, in units of so many, called so."""


def value_text(number: Number, value: float | None) -> str:
    """With its unit."""
    if value is None:
        return NONE
    if number.scale == SHARE:
        return f"{100 * value:.1f} %"
    if number.unit == "s":
        size, name = next((size, name) for least, size, name in SECONDS if abs(value) >= least)
        return f"{digits(value / size)} {name}"
    short = {"tokens/s": "tok/s", "requests/s": "req/s"}.get(number.unit, number.unit)
    return f"{digits(value)} {short}".strip()


def digits(value: float) -> str:
    """Three significant ones at least, separators between thousands."""
    if value == 0:
        return "0"
    decimals = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{min(decimals, 9)}f}"


def change_text(change: Change) -> str:
    """In points for shares, else in percent of the baseline."""
    if change.points is None:
        return NONE
    if change.number.scale == SHARE:
        return points_text(change.points)
    if change.relative is None:
        return f"{change.points:+.3g}" if change.points else "0"
    return percent_text(change.relative)


def interval_text(change: Change) -> str:
    """95 % of it."""
    if change.low is None or change.high is None:
        return ""
    if change.number.scale == SHARE:
        return f"{_signed(100 * change.low)} to {_signed(100 * change.high)} pt"
    if change.in_points:
        return f"{change.low:+.3g} to {change.high:+.3g}"
    return f"{_signed(100 * change.low)} to {_signed(100 * change.high)} %"


def percent_text(part: float) -> str:
    """Signed."""
    return f"{_signed(100 * part)} %"


def points_text(part: float) -> str:
    """Points of percent, signed."""
    return f"{_signed(100 * part)} pt"


def _signed(value: float) -> str:
    if abs(value) >= 999.5:
        return f"{value:+.0f}"
    text = f"{value:+.1f}"
    return text[1:] if float(text) == 0 else text


def p_text(change: Change) -> str:
    """The p-value among all of the comparison."""
    if change.adjusted is None:
        return ""
    return "<0.001" if change.adjusted < 0.001 else f"{change.adjusted:.3f}"


def unit_of(number: Number) -> str:
    """As `--list` names it."""
    return {SHARE: "share", COUNT: number.unit or "count"}.get(number.scale, number.unit or "count")
