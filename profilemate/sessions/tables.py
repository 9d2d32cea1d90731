"""The streams of a session as files: rows counted without reading their cells, their first and last time, their text."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from profilemate.schema.probe_tables import PROBE_TABLES
from profilemate.schema.table import Table
from profilemate.session.faults import Faults
from profilemate.session.records import ProcessInfo
from profilemate.session.segments import LONGEST_LINE_BYTES, TORN_TAIL, OpenSegment, open_segments, read_lines
from profilemate.sessions.head import last_time_ns
from profilemate.trackers import NAMES
from profilemate.trackers.view import tables_of

BLOCK_BYTES = 1 << 20
TIME = "time_ns"
_STREAM = re.compile(r"(\w+?)(?:\.\d{1,9})?\.csv")


@dataclass(frozen=True)
class Stream:
    """One table of one process. `rows` are whole lines after the header; times are of the process's monotonic clock."""

    process: ProcessInfo
    name: str
    rows: int
    size_bytes: int
    segments: int
    first_ns: int | None
    last_ns: int | None


def stream_names(process: ProcessInfo) -> list[str]:
    """Tables that the process has a file of."""
    try:
        files = os.listdir(process.folder)
    except OSError:
        return []
    return sorted({match[1] for name in files if (match := _STREAM.fullmatch(name))})


def streams_of(process: ProcessInfo, faults: Faults, on_read: Callable[[int], None]) -> list[Stream]:
    """All of a process."""
    found = (_stream(process, name, faults, on_read) for name in stream_names(process))
    return [stream for stream in found if stream is not None]


def _stream(process: ProcessInfo, name: str, faults: Faults, on_read: Callable[[int], None]) -> Stream | None:
    segments = open_segments(process.folder, name, faults)
    if not segments:
        return None
    rows = size = 0
    first: int | None = None
    last: int | None = None
    for segment in segments:
        with segment.file as file:
            header, row = file.readline(LONGEST_LINE_BYTES), file.readline(LONGEST_LINE_BYTES)
            if header and not _is_header_of(name, header):
                faults.note(segment.name, "the header is not that of this table")
            if header.split(b",")[0].strip() == TIME.encode():
                first = _time_of(row) if first is None else first
                newest = last_time_ns(process.folder / segment.name.partition("/")[2])
                last = newest if newest is not None else last
            file.seek(0)
            rows += _whole_rows(segment, faults, on_read)
            size += os.fstat(file.fileno()).st_size
    return Stream(process, name, rows, size, len(segments), first, last)


def _is_header_of(name: str, header: bytes) -> bool:
    """Whether most of the columns of a table of that name are there; a table of the user's own may have any."""
    columns = set(header.decode("utf-8", "replace").strip().split(","))
    known = known_tables().get(name)
    return known is None or any(2 * len(columns & set(table.columns)) > len(table.columns) for table in known)


@cache
def known_tables() -> dict[str, tuple[Table, ...]]:
    """Tables of ProfileMate's own by the name of their file; trackers that share a file each have one of it."""
    found: dict[str, tuple[Table, ...]] = {}
    for table in [*PROBE_TABLES, *(table for tracker in NAMES for table in tables_of(tracker))]:
        found[table.name] = (*found.get(table.name, ()), table)
    return found


def _time_of(row: bytes) -> int | None:
    cell = row.partition(b",")[0]
    return int(cell) if cell.isdigit() and len(cell) < 20 else None


def _whole_rows(segment: OpenSegment, faults: Faults, on_read: Callable[[int], None]) -> int:
    """Line ends after the header; what follows the last one is torn, and noted."""
    lines, end = 0, b"\n"
    while block := segment.file.read(BLOCK_BYTES):
        on_read(len(block))
        lines, end = lines + block.count(b"\n"), block[-1:]
    if end != b"\n":
        faults.note(segment.name, TORN_TAIL)
    return max(0, lines - 1)


def rows_as_text(processes: tuple[ProcessInfo, ...], name: str) -> Iterator[list[str]]:
    """Cells of a table over all processes, the header first and `process` as first column.

    Columns are those of the first file and what later ones have besides; a cell that a file has no column for is empty.
    """
    files = [(process, path) for process in processes for path in [process.folder] if name in stream_names(process)]
    columns = list(dict.fromkeys(column for _, folder in files for column in _header(folder, name)))
    yield ["process", *columns]
    for process, folder in files:
        for segment in open_segments(folder, name, Faults()):
            with segment.file as file:
                yield from _cells(process, read_lines(file, Counter(), lambda num_bytes: None), columns)


def _header(folder: Path, name: str) -> list[str]:
    columns: dict[str, None] = {}
    for segment in open_segments(folder, name, Faults()):
        with segment.file as file:
            line = next(read_lines(file, Counter(), lambda num_bytes: None), "")
            columns.update(dict.fromkeys(line.rstrip("\r").split(",") if line else []))
    return list(columns)


def _cells(process: ProcessInfo, lines: Iterator[str], columns: list[str]) -> Iterator[list[str]]:
    header = next(lines, "").rstrip("\r").split(",")
    places = {column: place for place, column in enumerate(header)}
    for line in lines:
        cells = line.rstrip("\r").split(",")
        if len(cells) == len(header):
            yield [process.name, *(cells[places[column]] if column in places else "" for column in columns)]
