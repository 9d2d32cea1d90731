"""Rows of one table of one process, lazily and in order over its segments; damage is skipped, counted and named."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from profilemate.schema.table import Table
from profilemate.session.cell_values import CONVERTS, REQUIRED, Reader, readers_of
from profilemate.session.faults import Faults
from profilemate.session.segments import OpenSegment, read_lines
from profilemate.session.whole_chunks import chunks, split, typed

Row = tuple[Any, ...]

ABSENT = -1

MALFORMED = "rows that do not fit the table, left out"
WRONG_HEADER = "the header is not that of this table, file left out"


class Layout(NamedTuple):
    """Where in the lines of a file the wanted columns are; `present` is a cell that is empty in rows of another table."""

    width: int
    places: list[int]
    present: int | None

    def cells_of(self, line: str, found: Counter[str]) -> list[str] | None:
        """Cells of one line, None where it is no row of the table."""
        cells = line.split(",")
        if len(cells) != self.width:
            found[MALFORMED] += 1
            return None
        return cells if self.present is None or cells[self.present] else None


def layout_of(lines: Iterator[str], table: Table, columns: Sequence[str], found: Counter[str]) -> Layout | None:
    """What the header says, ABSENT for a column that the writer's version did not have yet; None where no row is to be read.

    A newer writer may have appended columns. A header without most of the columns is that of something else. Where a table
    shares its file, rows that are another one's are left out, and all are if no process wrote it.
    """
    header = next(lines, "").rstrip("\r").split(",")
    if header == [""] or (table.present and table.present not in header and table.columns[0] in header):
        return None
    places = [header.index(column) if column in header else ABSENT for column in columns]
    absent = {column for column, place in zip(columns, places, strict=True) if place == ABSENT}
    if absent & REQUIRED or 2 * len(absent) >= len(columns):
        found[WRONG_HEADER] += 1
        return None
    return Layout(len(header), places, header.index(table.present) if table.present else None)


def _typed(cells: Sequence[str], readers: list[Reader], places: list[int]) -> Row:
    return tuple(
        [read("" if at == ABSENT else cells[at].rstrip("\r")) for read, at in zip(readers, places, strict=True)]
    )


def typed_rows(lines: Iterator[str], table: Table, columns: Sequence[str], found: Counter[str]) -> Iterator[Row]:
    """Rows as tuples of the wanted columns; a row with a cell of the wrong kind is left out."""
    readers = readers_of(table, columns)
    layout = layout_of(lines, table, columns, found)
    if layout is None:
        return
    converts = [None if at == ABSENT else CONVERTS[read] for read, at in zip(readers, layout.places, strict=True)]
    empty = [read("") if at == ABSENT else None for read, at in zip(readers, layout.places, strict=True)]
    for chunk in chunks(lines):
        cells = split(chunk, layout.width, layout.present)
        rows = None if cells is None else typed(cells, converts, layout.places, empty)
        yield from _one_by_one(chunk, layout, readers, found) if rows is None else rows


def _one_by_one(chunk: list[str], layout: Layout, readers: list[Reader], found: Counter[str]) -> Iterator[Row]:
    for line in chunk:
        cells = layout.cells_of(line, found)
        if cells is not None:
            try:
                yield _typed(cells, readers, layout.places)
            except ValueError:
                found[MALFORMED] += 1


def stream_rows(
    segments: Iterable[OpenSegment],
    table: Table,
    columns: Sequence[str],
    faults: Faults,
    on_read: Callable[[int], None],
) -> Iterator[Row]:
    """Go through opened segments; faults of a file are known when its end is reached."""
    for segment in segments:
        found: Counter[str] = Counter()
        with segment.file as file:
            yield from typed_rows(read_lines(file, found, on_read), table, columns, found)
        faults.replace(segment.name, found)


def first_and_last_rows(
    segments: Iterable[OpenSegment],
    table: Table,
    key: str,
    faults: Faults,
    on_read: Callable[[int], None],
) -> dict[Any, tuple[Row, Row]]:
    """The first and last row of each value of a column; the rows in between are split but not read cell by cell."""
    ends: dict[Any, tuple[Row, Row]] = {}
    for segment in segments:
        found: Counter[str] = Counter()
        with segment.file as file:
            for first, last in _ends_of(read_lines(file, found, on_read), table, key, found):
                value = first[table.columns.index(key)]
                ends[value] = (ends[value][0] if value in ends else first, last)
        faults.replace(segment.name, found)
    return ends


def _ends_of(lines: Iterator[str], table: Table, key: str, found: Counter[str]) -> Iterator[tuple[Row, Row]]:
    readers = readers_of(table, table.columns)
    layout = layout_of(lines, table, table.columns, found)
    if layout is None:
        return
    place = layout.places[table.columns.index(key)]
    firsts: dict[str, Row] = {}
    latest: dict[str, list[list[str]]] = {}
    for chunk in chunks(lines):
        rows = split(chunk, layout.width, layout.present)
        if rows is None:
            rows = [cells for line in chunk if (cells := layout.cells_of(line, found)) is not None]
        values = {cells[place] for cells in rows}
        if len(rows) > 1 and len(values) == 1 and values <= latest.keys():
            latest[values.pop()] = rows[-2:]
            continue
        for cells in rows:
            value = cells[place]
            if value in latest:
                latest[value] = [latest[value][-1], cells]
                continue
            try:
                firsts[value] = _typed(cells, readers, layout.places)
            except ValueError:
                found[MALFORMED] += 1
                continue
            latest[value] = [cells]
    for value, first in firsts.items():
        yield first, _last_whole(latest[value], readers, layout.places, found) or first


def _last_whole(
    candidates: Sequence[Sequence[str]], readers: list[Reader], places: list[int], found: Counter[str]
) -> Row | None:
    for cells in reversed(candidates):
        try:
            return _typed(cells, readers, places)
        except ValueError:
            found[MALFORMED] += 1
    return None
