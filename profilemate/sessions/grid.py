"""A table that fits the terminal: columns have a rank, and those of least use go first where there is no room."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from profilemate.frames.packages import load
from profilemate.session.records import printable

GAP = 2
NOTHING = "-"
NO_TERMINAL_WIDTH = 160
"""Where nobody looks at a terminal, as in a pipe."""


class Column(NamedTuple):
    """`rank` 0 always stays; `least` is how narrow a text may become, 0 where it may not."""

    title: str
    rank: int = 0
    is_number: bool = False
    least: int = 0


def width_of_terminal() -> int:
    """Its columns, or those that COLUMNS in the environment names."""
    return shutil.get_terminal_size((NO_TERMINAL_WIDTH, 24)).columns


def print_lines(lines: Sequence[str]) -> None:
    """Print sentences; on a terminal they are broken between words."""
    lines = [printable(line) for line in lines]
    if sys.stdout.isatty():
        width = width_of_terminal()
        broken = [textwrap.wrap(line, width, subsequent_indent="  ", break_on_hyphens=False) or [""] for line in lines]
        lines = [part for parts in broken for part in parts]
    sys.stdout.write("\n".join(lines) + "\n")


def print_grid(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> list[str]:
    """Print it; returns the titles of the columns for which there was no room. Columns that say nothing are left out."""
    width = width_of_terminal()
    telling = [place for place, column in enumerate(columns) if not column.rank or _tells(rows, place)]
    columns, rows = [columns[place] for place in telling], [[row[place] for place in telling] for row in rows]
    widths = fitting(columns, rows, width)
    console = load("rich.console").Console(width=width, highlight=False, emoji=False, markup=False)
    table = load("rich.table").Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0))
    for place, wide in widths.items():
        justify = "right" if columns[place].is_number else "left"
        table.add_column(columns[place].title, justify=justify, no_wrap=True, overflow="ellipsis", max_width=wide)
    text: Any = load("rich.text").Text
    for row in rows:
        table.add_row(*(text(row[place]) for place in widths))
    console.print(table)
    return [column.title for place, column in enumerate(columns) if place not in widths]


def _tells(rows: Sequence[Sequence[str]], place: int) -> bool:
    return any(row[place] != NOTHING for row in rows)


def fitting(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int) -> dict[int, int]:
    """The columns that fit into so many characters, by their place, and how wide each may be.

    Those of highest rank go first, the right one of several of one rank. Where the columns that always stay do not fit, the
    first of them is cut.
    """
    measured: Callable[[str], int] = load("rich.cells").cell_len
    full = [
        max([measured(column.title), *(measured(row[place]) for row in rows)]) for place, column in enumerate(columns)
    ]
    needed = [min(column.least or wide, wide) for column, wide in zip(columns, full, strict=True)]
    kept = list(range(len(columns)))

    def room() -> int:
        return width - sum(needed[place] for place in kept) - GAP * (len(kept) - 1)

    while room() < 0 and any(columns[place].rank for place in kept):
        kept.remove(max(kept, key=lambda place: (columns[place].rank, place)))
    widths = {place: needed[place] for place in kept}
    if room() < 0:
        widths[kept[0]] = max(1, widths[kept[0]] + room())
        return widths
    for place in kept:
        more = min(full[place] - needed[place], room_left(width, widths))
        widths[place] += more
    return widths


def room_left(width: int, widths: dict[int, int]) -> int:
    """Characters that no column has."""
    return width - sum(widths.values()) - GAP * (len(widths) - 1)
