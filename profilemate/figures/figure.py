"""What a figure consists of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Figure:
    """A figure that can be shown: an Altair chart with no data from outside.

    `says` is a sentence that tells what is seen, for who cannot see it, too. `note` says what was thinned or is missing.
    """

    name: str
    title: str
    says: str
    chart: Any
    note: str = ""


@dataclass(frozen=True)
class NoFigure:
    """Why a figure cannot be drawn, in a sentence: the tracker was off, nothing happened, rows were removed."""

    name: str
    title: str
    reason: str
