"""Sizes, ages and durations as people say them, and as they may be given to a command."""

from __future__ import annotations

import re
from argparse import ArgumentTypeError

UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:([KMGT])(i?)B?|B)?", re.IGNORECASE)
_AGE = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw])", re.IGNORECASE)


def bytes_text(count: int) -> str:
    """Such as `3.4 MiB`."""
    value, unit = float(count), UNITS[0]
    for unit in UNITS:
        if value < 1024 or unit == UNITS[-1]:
            break
        value /= 1024
    return f"{count} B" if unit == UNITS[0] else f"{value:.1f} {unit}" if value < 100 else f"{value:.0f} {unit}"


def span_text(seconds: float) -> str:
    """A duration or an age in its two largest units, such as `2 h 05 min`."""
    whole = int(seconds)
    if whole < 60:
        return f"{max(0.0, seconds):.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 2 * 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3600:02d} h"


def age_text(seconds: float) -> str:
    """An age in its largest unit: `5 min`, `3 d`."""
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{int(seconds // length)} {unit}"
    return f"{max(0, int(seconds))} s"


def size_of(text: str) -> int:
    """Bytes of `500M`, `5GiB` or `10 GB`: powers of 1024, as for PROFILEMATE_SESSION_CAP.

    Raises argparse.ArgumentTypeError.
    """
    match = _SIZE.fullmatch(text.strip())
    if not match:
        raise ArgumentTypeError(f"{text!r} is not a size; for instance 500M or 5GiB")
    power = "KMGT".index(match[2].upper()) + 1 if match[2] else 0
    return int(float(match[1]) * 1024**power)


def seconds_of(text: str) -> float:
    """Seconds of `7d`, `12h`, `30m`, `2w`. Raises argparse.ArgumentTypeError."""
    match = _AGE.fullmatch(text.strip())
    if not match:
        raise ArgumentTypeError(f"{text!r} is not an age; for instance 30m, 12h, 7d or 2w")
    return float(match[1]) * SECONDS[match[2].lower()]


def count_of(text: str) -> int:
    """A whole number that is not negative. Raises argparse.ArgumentTypeError."""
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise ArgumentTypeError(f"{text!r} is not a whole number")
    return int(text)
