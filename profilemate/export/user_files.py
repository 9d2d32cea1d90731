"""Tables of a user's own trackers as `<table>.csv`, told by what lies in the process folders alone.

The file that made them may not be there on the machine that reads: a header says which columns there are, and every stream
that is none of ours is a user's.
"""

from __future__ import annotations

import heapq
import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from profilemate.export.cells import seconds, word
from profilemate.schema.probe_tables import PROBE_TABLES
from profilemate.schema.step_table import BASE
from profilemate.schema.table import Table, fields
from profilemate.session.order import nearly_sorted
from profilemate.session.plain_files import open_plain
from profilemate.session.segments import LONGEST_LINE_BYTES
from profilemate.session.session import Session
from profilemate.session.stream import Row
from profilemate.trackers import NAMES
from profilemate.trackers.view import tables_of, view_of

TIME = "time_ns"
STREAM = re.compile(r"([A-Za-z]\w{0,60}?)(?:\.\d{1,9})?\.csv", re.ASCII)
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?", re.ASCII)
SAFE_NAME = re.compile(r"[A-Za-z]\w{0,60}", re.ASCII)


class UserTable(NamedTuple):
    """A table that a user's tracker wrote: the columns of all its files, `time_ns` first."""

    name: str
    columns: tuple[str, ...]

    @property
    def file(self) -> str:
        """Its file at the top of the session."""
        return f"{self.name}.csv"

    @property
    def table(self) -> Table:
        """For the session's reader: a time, and text."""
        return Table(
            self.name, "a user's", fields(*((name, "int" if name == TIME else "str", "") for name in self.columns))
        )

    @property
    def header(self) -> tuple[str, ...]:
        """The columns of the exported file."""
        return ("timestamp_sec", "process", *(word(name) for name in self.columns[1:]))


@cache
def our_tables() -> frozenset[str]:
    """Tables of the trackers here."""
    return frozenset(table.name for tracker in NAMES for table in tables_of(tracker))


@cache
def our_files() -> frozenset[str]:
    """Files that these make at the top of a session."""
    return frozenset(file.name for tracker in NAMES for file in view_of(tracker).csv_files)


def is_users_stream(path: Path) -> bool:
    """Whether a file in a process folder is a stream of a user's: by its name, and a header that begins with the time."""
    found = STREAM.fullmatch(path.name)
    ours = {*our_tables(), BASE.name, *(table.name for table in PROBE_TABLES)}
    return found is not None and found[1] not in ours and bool(_columns(path))


def _columns(path: Path) -> tuple[str, ...]:
    """Columns of a stream; none if it is not one that a probe writes."""
    try:
        descriptor = open_plain(path)
    except OSError:
        return ()
    with os.fdopen(descriptor, "rb") as file:
        try:
            line = file.readline(LONGEST_LINE_BYTES).decode()
        except (OSError, ValueError):
            return ()
    columns = tuple(line.rstrip("\r\n").split(","))
    is_whole = line.endswith("\n") and columns[0] == TIME and len(set(columns)) == len(columns)
    return columns if is_whole and all(map(SAFE_NAME.fullmatch, columns)) else ()


def user_tables(session: Session) -> list[UserTable]:
    """The user's tables of a session, by name. One whose file would be one of ours is left out; see `clashes`."""
    return [table for table in _all_tables(session) if table.file not in our_files()]


def clashes(session: Session) -> list[str]:
    """A sentence for each table that has the name of a file of ours."""
    return [
        f"the table {table.name} of a user's tracker is not exported: {table.file} is another file"
        for table in _all_tables(session)
        if table.file in our_files()
    ]


def _all_tables(session: Session) -> list[UserTable]:
    found: dict[str, dict[str, None]] = {}
    for process in session.processes:
        for path in sorted(process.folder.glob("*.csv")):
            match = STREAM.fullmatch(path.name)
            if match and is_users_stream(path):
                found.setdefault(match[1], {}).update(dict.fromkeys(_columns(path)))
    return [UserTable(name, tuple(columns)) for name, columns in sorted(found.items())]


def user_rows(session: Session, table: UserTable) -> Iterator[tuple[str, ...]]:
    """Rows of all processes in order of time, as cells of the exported file."""
    streams = [_process_rows(session, index, table) for index in range(len(session.processes))]
    names = [word(process.name) for process in session.processes]
    for time_ns, index, cells in heapq.merge(*streams):
        yield (seconds(time_ns), names[index], *map(_cell, cells))


def _cell(text: str | None) -> str:
    """A number as it is, minus and all; anything else as text cells are."""
    return text or "" if not text or NUMBER.fullmatch(text) else word(text)


def _process_rows(session: Session, index: int, table: UserTable) -> Iterator[tuple[int, int, Row]]:
    process = session.processes[index]
    rows = ((process.at(row[0]), index, row[1:]) for row in session.rows(process, table.table))
    return nearly_sorted(rows, lambda row: row[0])
