"""How values look in metadata.json: seconds and ratios, rounded to what is known of them."""

from __future__ import annotations


def in_seconds(nanoseconds: float | None) -> float | None:
    """Seconds to the microsecond."""
    return None if nanoseconds is None else round(nanoseconds / 1e9, 6)


def rounded(value: float | None) -> float | None:
    """Nine decimals."""
    return None if value is None else round(value, 9)
