"""Numbers in the sentences of findings."""

from __future__ import annotations


def counted(count: int, noun: str) -> str:
    """`1 graph`, `12 graphs`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def percent(value: float, digits: int = 1) -> str:
    """A share in per cent: `12.5 %`."""
    return f"{100 * value:.{digits}f} %"
