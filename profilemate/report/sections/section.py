"""What a section consists of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from profilemate.report.model import Part
from profilemate.report.source import Source

SERVER, REQUESTS, MODEL, SESSION = "Server", "Requests", "Model", "Session"
"""What a section is about; the page shows them in this order."""


@dataclass(frozen=True)
class Section:
    """A section of the page. `build` makes its text and tables; `figures` are sections of `profilemate.figures.FIGURES`."""

    name: str
    title: str
    level: str
    build: Callable[[Source], Part]
    figures: tuple[str, ...] = ()
    template: str = "section.html"
