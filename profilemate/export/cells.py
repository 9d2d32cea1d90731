"""How values look in the README's files."""

from __future__ import annotations

import re
from functools import lru_cache

NS_PER_SECOND = 1_000_000_000
FORMULA = re.compile(r" *[=+\-@\uff0b\uff0d\uff1d\uff20]")
"""How a spreadsheet knows a formula, the wide letters of East Asian ones included."""
FORMULA_AFTER_SEMICOLON = re.compile(r";(?=" + FORMULA.pattern + ")")
"""Where commas are decimal points, cells are separated by semicolons."""


def seconds(nanoseconds: int | None) -> str:
    """Seconds with six decimals, rounded from whole nanoseconds; empty where unknown."""
    if nanoseconds is None:
        return ""
    if nanoseconds < 0:
        return "-" + seconds(-nanoseconds)
    return _with_six_decimals(str((nanoseconds + 500) // 1000))


def milliseconds(nanoseconds: int | None) -> str:
    """Milliseconds with six decimals, which is every nanosecond; empty where unknown."""
    if nanoseconds is None:
        return ""
    return "-" + milliseconds(-nanoseconds) if nanoseconds < 0 else _with_six_decimals(str(nanoseconds))


def _with_six_decimals(millionths: str) -> str:
    return f"{millionths[:-6]}.{millionths[-6:]}" if len(millionths) > 6 else f"0.{millionths:0>6}"


def number(value: int | None) -> str:
    """An integer; empty where unknown."""
    return "" if value is None else str(value)


@lru_cache(4096)
def word(value: str) -> str:
    """A text cell: never a spreadsheet formula, a separator, a quote or a control character."""
    is_clean = value.isprintable() and "," not in value and '"' not in value
    clean = value if is_clean else "".join(c if c.isprintable() and c not in ',"' else "_" for c in value)
    clean = FORMULA_AFTER_SEMICOLON.sub("_", clean) if ";" in clean else clean
    return "'" + clean if FORMULA.match(clean) else clean


def percent(part: int, whole: int) -> str:
    """Percent with four decimals; 0 of nothing is 0."""
    return f"{100 * part / whole:.4f}" if whole else "0.0000"
