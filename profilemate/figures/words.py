"""Numbers in the sentences of figures."""

from __future__ import annotations

DURATIONS = ((7_200, 3_600, "h"), (120, 60, "min"), (0.1, 1, "s"), (1e-4, 1e-3, "ms"), (0, 1e-6, "us"))
LEAST_SHOWN = 0.0005


def duration(seconds: float) -> str:
    """A time with three digits: `250 us`, `3.2 ms`, `0.5 s`, `2.5 min`, `1.5 h`."""
    if seconds == 0:
        return "0 s"
    size, unit = next((size, unit) for least, size, unit in DURATIONS if abs(seconds) >= least)
    value = seconds / size
    return f"{value:,.0f} {unit}" if abs(value) >= 100 else f"{value:.3g} {unit}"


def share(part: float, whole: float) -> str:
    """Percent with one decimal; what is there but rounds to nothing is less than 0.1 %."""
    if not whole:
        return "0 %"
    ratio = part / whole
    if 0 < ratio < LEAST_SHOWN:
        return "<0.1 %"
    if 1 - LEAST_SHOWN < ratio < 1:
        return ">99.9 %"
    return f"{100 * ratio:.1f} %"


def amount(count: int, one: str, several: str) -> str:
    """`1 process`, `2 processes`."""
    return f"{count:,} {one if count == 1 else several}"


def listed(parts: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
