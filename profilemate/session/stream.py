"""Rows of one table of one process, lazily and in order over its segments; damage is skipped, counted and named."""

from __future__ import annotations

import os
import re
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from profilemate.schema.table import Table
from profilemate.session.faults import Faults
from profilemate.session.records import printable
from profilemate.session.whole_chunks import (
    SHORT_INTEGER,
    Convert,
    booleans,
    chunks,
    integers,
    required_integers,
    split,
    texts,
    typed,
)  # fmt: skip

Row = tuple[Any, ...]
Reader = Callable[[str], Any]

BLOCK_BYTES = 1 << 18
LONGEST_LINE_BYTES = 1 << 16
LONGEST_INTEGER = 20
ABSENT = -1

TORN_TAIL = "last row torn, left out"
MALFORMED = "rows that do not fit the table, left out"
HUGE_LINE = f"lines over {LONGEST_LINE_BYTES >> 10} KiB, left out"
WRONG_HEADER = "the header is not that of this table, file left out"

REQUIRED = {"time_ns", "engine", "forward", "through_forward", "in_use", "total_blocks"}
"""Integer columns without which a row says nothing; an empty cell elsewhere reads as None, "not known"."""


class OpenSegment(NamedTuple):
    """A file of a stream that is open for reading, and its name relative to the session."""

    name: str
    file: BinaryIO


def segment_paths(folder: Path, table: str) -> list[Path]:
    """Set-aside segments of a stream, oldest first."""
    pattern = re.compile(re.escape(table) + r"\.(\d{1,9})\.csv")
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    found = ((int(match[1]), name) for name in names if (match := pattern.fullmatch(name)))
    return [folder / name for _, name in sorted(found)]


def open_segments(folder: Path, table: str, faults: Faults) -> list[OpenSegment]:
    """Open every file of a stream at once, so that one set aside or removed meanwhile is read once and whole.

    The current file is opened before the older ones are listed: should it be set aside in between, its inode tells.
    """
    current = _open(folder / f"{table}.csv", faults)
    inode = _inode(current) if current else -1
    opened: list[OpenSegment] = []
    for path in segment_paths(folder, table):
        segment = _open(path, faults)
        if segment and _inode(segment) == inode:
            segment.file.close()
        elif segment:
            opened.append(segment)
    return [*opened, current] if current else opened


def _inode(segment: OpenSegment) -> int:
    return os.fstat(segment.file.fileno()).st_ino


def _open(path: Path, faults: Faults) -> OpenSegment | None:
    name = f"{printable(path.parent.name)}/{path.name}"
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        faults.note(name, f"cannot be read: {error.strerror}")
        return None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        faults.note(name, "not a plain file, left out")
        return None
    return OpenSegment(name, os.fdopen(descriptor, "rb"))


def read_blocks(
    file: BinaryIO, found: Counter[str], on_read: Callable[[int], None], largest: int = BLOCK_BYTES
) -> Iterator[bytes]:
    """Whole lines of a file, many at once with their line ends, in bounded memory; the blocks grow to `largest` bytes.

    Lines over LONGEST_LINE_BYTES are left out. What follows the last line end is torn and not a line.
    """
    rest, skipping, size = b"", False, BLOCK_BYTES
    while block := file.read(size):
        on_read(len(block))
        size = min(2 * size, largest)
        if skipping:
            _, end, block = block.partition(b"\n")
            if not end:
                continue
            skipping = False
        whole = block.rfind(b"\n") + 1
        lines = b"".join((rest, memoryview(block)[:whole])) if whole else b""
        rest = block[whole:] if whole else rest + block
        if has_huge_line(lines):
            lines = _without_huge_lines(lines, found)
        if lines:
            yield lines
        if len(rest) > LONGEST_LINE_BYTES:
            found[HUGE_LINE] += 1
            rest, skipping = b"", True
    if rest:
        found[TORN_TAIL] += 1


def has_huge_line(lines: bytes) -> bool:
    """Whether one of these whole lines is over LONGEST_LINE_BYTES, found without looking at each."""
    start = 0
    while len(lines) - start > LONGEST_LINE_BYTES:
        end = lines.rfind(b"\n", start, start + LONGEST_LINE_BYTES + 1)
        if end < 0:
            return True
        start = end + 1
    return False


def _without_huge_lines(lines: bytes, found: Counter[str]) -> bytes:
    all_lines = lines[:-1].split(b"\n")
    kept = [line + b"\n" for line in all_lines if len(line) <= LONGEST_LINE_BYTES]
    found[HUGE_LINE] += len(all_lines) - len(kept)
    return b"".join(kept)


def read_lines(file: BinaryIO, found: Counter[str], on_read: Callable[[int], None]) -> Iterator[str]:
    """Whole lines of a file in bounded memory, without their line ends."""
    for lines in read_blocks(file, found, on_read):
        yield from lines[:-1].decode("utf-8", "replace").split("\n")


def integer(cell: str) -> int | None:
    """An integer cell; one beyond 64 bits is refused, so that no later division overflows."""
    if len(cell) > SHORT_INTEGER:
        return _long_integer(cell)
    return int(cell) if cell else None


def _long_integer(cell: str) -> int:
    value = int(cell)
    if not -(1 << 63) <= value < 1 << 63:
        raise ValueError(cell[:SHORT_INTEGER])
    return value


def required_integer(cell: str) -> int:
    """An integer cell that may not be empty."""
    return _long_integer(cell) if len(cell) > SHORT_INTEGER else int(cell)


def boolean(cell: str) -> bool | None:
    """True, False or unknown."""
    if cell not in ("True", "False", ""):
        raise ValueError(cell)
    return cell == "True" if cell else None


def readers_of(table: Table, columns: Sequence[str]) -> list[Reader]:
    """How the cells of these columns are read. Raises KeyError for a column that the table lacks."""
    kinds = {field.name: field.kind for field in table.fields}
    return [_reader(kinds[column], column) for column in columns]


def _reader(kind: str, column: str) -> Reader:
    if kind == "int":
        return required_integer if column in REQUIRED else integer
    return boolean if kind == "bool" else str


CONVERTS: dict[Reader, Convert] = {
    integer: integers, required_integer: required_integers, boolean: booleans, str: texts,
}  # fmt: skip
"""The same for whole columns."""


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
