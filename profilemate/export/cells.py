"""How values look in the README's files."""

from __future__ import annotations

from functools import lru_cache

NS_PER_SECOND = 1_000_000_000
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def seconds(nanoseconds: int | None) -> str:
    """Seconds with six decimals, rounded from whole nanoseconds; empty where unknown."""
    if nanoseconds is None:
        return ""
    sign, rounded = ("-" if nanoseconds < 0 else ""), (abs(nanoseconds) + 500) // 1000
    return f"{sign}{rounded // 1_000_000}.{rounded % 1_000_000:06d}"


def milliseconds(nanoseconds: int | None) -> str:
    """Milliseconds with six decimals, which is every nanosecond; empty where unknown."""
    if nanoseconds is None:
        return ""
    sign, whole = ("-" if nanoseconds < 0 else ""), abs(nanoseconds)
    return f"{sign}{whole // 1_000_000}.{whole % 1_000_000:06d}"


def number(value: int | None) -> str:
    """An integer; empty where unknown."""
    return "" if value is None else str(value)


@lru_cache(4096)
def word(value: str) -> str:
    """A text cell: never a spreadsheet formula, a separator, a quote or a control character."""
    clean = "".join(c if c.isprintable() and c not in ',"' else "_" for c in value)
    return "'" + clean if clean.startswith(FORMULA_STARTS) else clean


def percent(part: int, whole: int) -> str:
    """Percent with four decimals; 0 of nothing is 0."""
    return f"{100 * part / whole:.4f}" if whole else "0.0000"
