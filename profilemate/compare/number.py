"""What a key number is: its name, unit, direction, and from which rows it is made, for a whole session and by time slice."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

LESS, MORE, NEUTRAL = "less", "more", "neutral"
"""What is better of a number; neutral ones only differ."""

RATIO, SHARE, COUNT = "ratio", "share", "count"
"""How a change is said: as a ratio (never zero), as a difference in points, or as either (a count may be zero)."""


@dataclass(frozen=True)
class Rows:
    """Rows of a frame of a session's `Material`, placed in time by one of its columns; `where` is a column of booleans."""

    frame: str
    at: str = "t"
    where: str = ""


@dataclass(frozen=True)
class Mean:
    """Mean of a column over the rows that have it."""

    rows: Rows
    column: str


@dataclass(frozen=True)
class Quantile:
    """Quantile of a column over the rows that have it; `weight` is a column of weights."""

    rows: Rows
    column: str
    level: float
    weight: str = ""


@dataclass(frozen=True)
class Ratio:
    """Sum of a column over sum of another, which may be of other rows; an empty column counts the rows."""

    above: Rows
    column: str
    below: Rows
    under: str


@dataclass(frozen=True)
class Rate:
    """Sum of a column (or the rows, if it is empty) in a second."""

    rows: Rows
    column: str


@dataclass(frozen=True)
class Fixed:
    """One value of the session, read from its metadata.json. Nothing tells its noise."""

    read: Callable[[Mapping[str, Any]], float | None]


Measure = Mean | Quantile | Ratio | Rate | Fixed


@dataclass(frozen=True)
class Number:
    """A key number. Its value is in `unit`, a share's in parts of one."""

    name: str
    title: str
    unit: str
    better: str
    scale: str
    group: str
    measure: Measure
    is_load: bool = False
    """It says what the clients asked, not what the server did with it."""
