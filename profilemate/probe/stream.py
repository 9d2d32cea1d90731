"""One table of one process on disk: a CSV file that only grows, and its older segments."""

from __future__ import annotations

import errno
import os
import time
from collections import deque
from typing import Any, NamedTuple

from profilemate.schema.table import Table

SLOW_WRITE_NS = 50_000_000
OPEN_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Segment(NamedTuple):
    """A finished part of a stream that lies beside the current file."""

    path: str
    num_bytes: int
    rows: int


class Stream:
    """Rows wait in `pending` (any thread may append) until the process flushes; then they are one write(2).

    `detail` streams may lose their oldest segments to the size cap.
    """

    def __init__(self, table: Table, detail: bool = True) -> None:
        """Nothing is opened yet."""
        self.table = table
        self.detail = detail
        self.pending: deque[tuple[Any, ...]] = deque()
        self.add = self.pending.append
        self._line = ",".join(["%s"] * len(table.fields)) + "\n"
        self._width = len(table.fields)
        self.forget_file()

    def forget_file(self) -> None:
        """Begin as if nothing had been written: for a forked child, which must not touch its parent's file."""
        self.pending.clear()
        self.descriptor = -1
        self.path = ""
        self.num_bytes = 0
        self.rows = 0
        self.segments: list[Segment] = []
        self._next_segment = 1
        self._torn = False

    def close(self) -> None:
        """Close the file of this process, if it is open."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def take(self) -> tuple[bytes, int]:
        """The waiting rows as CSV text, and how many they are. An empty cell stands for None."""
        pending, line = self.pending, self._line
        lines = []
        for _ in range(len(pending)):
            text = line % pending.popleft()
            lines.append(text.replace("None", "") if "None" in text else text)
        return "".join(lines).encode(), len(lines)

    def write(self, folder: str, data: bytes) -> int:
        """Append whole rows; returns the nanoseconds that it took.

        Raises OSError when not everything was written. The row that was cut off is closed with a line end before the
        next one, so that readers lose that row alone.
        """
        began = time.monotonic_ns()
        if self.descriptor < 0:
            self._open(folder)
        if self._torn:
            self._append(b"\n")
            self._torn = False
        self._append(data)
        self.rows += data.count(b"\n")
        return time.monotonic_ns() - began

    def _append(self, data: bytes) -> None:
        written = os.write(self.descriptor, data)
        self.num_bytes += written
        if written < len(data):
            self._torn = not data[:written].endswith(b"\n") and written > 0
            self.rows += data[:written].count(b"\n")
            raise OSError(errno.ENOSPC, f"short write of {written} of {len(data)} bytes")

    def _open(self, folder: str) -> None:
        self.path = os.path.join(folder, f"{self.table.name}.csv")
        self.descriptor = os.open(self.path, OPEN_FLAGS, 0o600)
        try:
            self._append(self.table.header.encode())
        except OSError:  # a file without its header would be unreadable: begin anew with the next write
            self.close()
            os.unlink(self.path)
            self.num_bytes, self._torn = 0, False
            raise

    def start_segment(self) -> None:
        """Set the current file aside as `<table>.<n>.csv`; the next write begins a new one. Raises OSError."""
        stem = self.path[: -len(".csv")]
        aside = f"{stem}.{self._next_segment}.csv"
        os.rename(self.path, aside)
        self.close()
        self.segments.append(Segment(aside, self.num_bytes, self.rows))
        self._next_segment += 1
        self.num_bytes = self.rows = 0

    @property
    def kept_bytes(self) -> int:
        """Bytes on disk, older segments included."""
        return self.num_bytes + sum(segment.num_bytes for segment in self.segments)
