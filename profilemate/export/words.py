"""How values of metadata.json look in the text for people. A value of the wrong kind is "unknown"."""

from __future__ import annotations

from typing import Any

from profilemate.session.records import text

NAMED = 6


def count_text(value: Any) -> str:
    """With separators between thousands."""
    return f"{value:,}" if isinstance(value, int) else "unknown"


def share_text(part: Any, whole: Any) -> str:
    """Percent with one decimal."""
    if not isinstance(part, (int, float)) or not isinstance(whole, (int, float)) or not whole:
        return "unknown"
    return f"{100 * part / whole:.1f} %"


def seconds_text(value: Any) -> str:
    """Milliseconds and above."""
    return f"{value:.3f} s" if isinstance(value, (int, float)) else "unknown"


def names_text(items: list[Any]) -> str:
    """The first few, and how many more."""
    named = ", ".join(text(item) for item in items[:NAMED])
    return named + (f" and {len(items) - NAMED} more" if len(items) > NAMED else "")


def indented(lines: list[str]) -> list[str]:
    """Two spaces in front."""
    return [f"  {line}" for line in lines]
