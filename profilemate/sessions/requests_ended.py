"""How many requests of a session were over: counted where that is cheap, else estimated and said to be."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import NamedTuple

from profilemate.session.plain_files import open_plain

FRONT_END, SCHEDULER, GAPS = "request_ends", "engine_requests", "gaps.csv"
MOST_BYTES = 4 << 20
"""So much of a session's rows is counted; what is beyond is taken to have rows of the same length."""


class Count(NamedTuple):
    """A number of requests, and whether each was counted."""

    number: int
    is_exact: bool


class Folder(NamedTuple):
    """A process folder and its plain files with their sizes."""

    path: str
    files: dict[str, int]

    def segments(self, table: str) -> list[str]:
        """Files of a stream."""
        pattern = re.compile(re.escape(table) + r"(?:\.\d{1,9})?\.csv")
        return [f"{self.path}/{name}" for name in self.files if pattern.fullmatch(name)]


def requests_ended(folders: Sequence[Folder]) -> Count | None:
    """Requests that front ends were done with, else schedulers; those whose rows the size cap took included."""
    for table in (FRONT_END, SCHEDULER):
        counts = [count for folder in folders if (count := _count(folder, table)) is not None]
        if counts:
            return Count(sum(count.number for count in counts), all(count.is_exact for count in counts))
    return None


def _count(folder: Folder, table: str) -> Count | None:
    paths = folder.segments(table)
    if not paths:
        return None
    wanted = b",finished," if table == SCHEDULER else b"\n"
    rows, read, size = 0, 0, 0
    for path in paths:
        found, looked_at, num_bytes = _matches(path, wanted, MOST_BYTES - read)
        rows, read, size = rows + found - (wanted == b"\n" and looked_at > 0), read + looked_at, size + num_bytes
    removed = _removed(folder, table)
    if read < size:
        return Count(round(rows * size / max(1, read)) + removed, False)
    return Count(rows + removed, table == FRONT_END or not removed)


def _matches(path: str, wanted: bytes, most: int) -> tuple[int, int, int]:
    """Occurrences, bytes that were looked at, and bytes of the file."""
    try:
        with open(open_plain(path), "rb") as file:
            data = file.read(max(0, most))
            return data.count(wanted), len(data), os.fstat(file.fileno()).st_size
    except OSError:
        return 0, 0, 0


def _removed(folder: Folder, table: str) -> int:
    """Rows of the table that are in no file any more."""
    if GAPS not in folder.files:
        return 0
    try:
        with open(open_plain(f"{folder.path}/{GAPS}"), "rb") as file:
            lines = file.read(MOST_BYTES).decode("utf-8", "replace").splitlines()[1:]
    except OSError:
        return 0
    cells = [line.split(",") for line in lines]
    return sum(int(row[2]) for row in cells if len(row) == 4 and row[1] == table and row[2].isdecimal())
