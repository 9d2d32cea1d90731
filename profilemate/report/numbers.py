"""Values of metadata.json as key numbers. A value that is missing or of the wrong kind is "unknown", never 0."""

from __future__ import annotations

import math
from typing import Any, TypeGuard

from profilemate.report.model import UNKNOWN, Number

TIME_UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))
BYTE_UNITS = ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"), (1, "B"))
LARGE, SMALL = 999.5, 1e-4


def is_number(value: Any) -> TypeGuard[float]:
    """Finite, and not a truth value."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def significant(value: float, digits: int = 3) -> str:
    """With so many significant digits, thousands separated, never as a power of ten above 1; nothing is `0`."""
    if not value:
        return "0"
    if abs(value) >= LARGE:
        return f"{value:,.0f}"
    return f"{value:#.{digits}g}".rstrip(".") if abs(value) >= SMALL else f"{value:.2g}"


def count(label: str, value: Any, unit: str = "", note: str = "") -> Number:
    """A whole number."""
    return Number(label, f"{value:,}", unit, note) if is_number(value) else Number(label, UNKNOWN)


def plain(label: str, value: Any, unit: str = "", note: str = "") -> Number:
    """Any number, three significant digits."""
    return Number(label, significant(value), unit, note) if is_number(value) else Number(label, UNKNOWN)


def percent(label: str, share: Any, note: str = "") -> Number:
    """A share of 1 as percent with one decimal."""
    return Number(label, f"{100 * share:.1f}", "%", note) if is_number(share) else Number(label, UNKNOWN)


def share_of(label: str, part: Any, whole: Any, note: str = "") -> Number:
    """A part of a whole as percent; of nothing it is unknown."""
    return percent(label, part / whole if is_number(part) and is_number(whole) and whole else None, note)


def in_time_unit(seconds: float) -> tuple[str, str]:
    """Number and unit of a duration."""
    factor, unit = next((pair for pair in TIME_UNITS if abs(seconds) >= pair[0]), TIME_UNITS[0])
    return significant(seconds / factor), unit


def duration(label: str, seconds: Any, note: str = "") -> Number:
    """Seconds in the unit in which they are read most easily."""
    return Number(label, *in_time_unit(seconds), note) if is_number(seconds) else Number(label, UNKNOWN)


def size(label: str, num_bytes: Any, note: str = "") -> Number:
    """Bytes with a binary prefix."""
    return Number(label, *in_byte_unit(num_bytes), note) if is_number(num_bytes) else Number(label, UNKNOWN)


def in_byte_unit(num_bytes: float) -> tuple[str, str]:
    """Number and unit of a size."""
    factor, unit = next((pair for pair in BYTE_UNITS if num_bytes >= pair[0]), BYTE_UNITS[-1])
    return significant(num_bytes / factor), unit


def cell(value: Any, digits: int = 3) -> str:
    """A number of a table; empty where there is none."""
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return significant(value, digits) if is_number(value) else ""


def milliseconds(seconds: Any) -> str:
    """A duration of a table in milliseconds; empty where there is none."""
    return cell(float(seconds) * 1e3) if is_number(seconds) else ""


def lasting(seconds: float) -> str:
    """How long something took, for people: `1 h 2 min`, `1 min 46 s`, `2.5 s`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
