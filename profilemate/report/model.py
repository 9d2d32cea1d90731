"""What the page consists of, as plain data: the templates put it into words of HTML and decide nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

UNKNOWN = "unknown"


@dataclass(frozen=True)
class Number:
    """One key number as text, its unit apart so that numbers align; `note` says what it is a share or a part of."""

    label: str
    value: str
    unit: str = ""
    note: str = ""

    @property
    def is_known(self) -> bool:
        """Whether the session told it."""
        return self.value != UNKNOWN


@dataclass(frozen=True)
class Numbers:
    """Key numbers of one subject under one caption."""

    caption: str
    items: tuple[Number, ...]


@dataclass(frozen=True)
class Column:
    """A column of a table. Numbers stand at the right."""

    title: str
    is_number: bool = False


@dataclass(frozen=True)
class Grid:
    """A table of rows. `note` says what is not in it."""

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


@dataclass(frozen=True)
class DataTable:
    """The data behind a figure: columns by the names that the figure shows, and some of its rows, evenly taken.

    `dataset` is the name under which the page has all `num_rows` of them.
    """

    dataset: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    num_rows: int


@dataclass(frozen=True)
class Drawing:
    """A figure on the page. `spec_json` may stand in a script element as it is."""

    name: str
    title: str
    says: str
    note: str
    spec_json: str
    tables: tuple[DataTable, ...]


@dataclass(frozen=True)
class NoDrawing:
    """Why there is no figure. `is_fault`: it is ProfileMate's own, not the session's."""

    name: str
    title: str
    reason: str
    is_fault: bool = False


@dataclass(frozen=True)
class Part:
    """A section's content. `extra` is what a section's own template needs beside the common blocks.

    `faults` are sentences on what ProfileMate should have worked out and could not.
    """

    lead: tuple[str, ...] = ()
    numbers: tuple[Numbers, ...] = ()
    figures: tuple[Drawing | NoDrawing, ...] = ()
    grids: tuple[Grid, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)
    faults: tuple[str, ...] = ()


@dataclass(frozen=True)
class ShownSection:
    """A section with its place on the page."""

    name: str
    title: str
    level: str
    template: str
    part: Part


@dataclass(frozen=True)
class Masthead:
    """What the session is, in one line of facts, and whether its figures are final."""

    title: str
    session: str
    facts: tuple[str, ...]
    state: str
    state_says: str


@dataclass(frozen=True)
class Page:
    """All of it."""

    masthead: Masthead
    sections: tuple[ShownSection, ...]
    made_by: str

    @property
    def drawings(self) -> tuple[Drawing, ...]:
        """All figures in their order."""
        return tuple(one for section in self.sections for one in section.part.figures if isinstance(one, Drawing))

    @property
    def faults(self) -> tuple[str, ...]:
        """What ProfileMate should have shown and could not, in sentences."""
        missing = [one for section in self.sections for one in section.part.figures if isinstance(one, NoDrawing)]
        said = [f"the figure {one.name} is missing: {one.reason}" for one in missing if one.is_fault]
        return (*said, *(fault for section in self.sections for fault in section.part.faults))
