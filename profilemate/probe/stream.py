"""One table of one process on disk: a CSV file that only grows, and its older segments."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections import deque
from typing import Any, NamedTuple

from profilemate.probe.folders import open_new
from profilemate.schema.table import Field, Table

SLOW_WRITE_NS = 50_000_000


class Segment(NamedTuple):
    """A finished part of a stream that lies beside the current file."""

    path: str
    num_bytes: int
    rows: int


class Stream:
    """Rows wait in `pending` (any thread may append) until the process flushes; then they are one write(2).

    `add` takes a row as a tuple, or the text of several rows: events that come many at a time share most of their cells.
    `detail` streams may lose their oldest segments to the size cap. Of one where the `newest_counts`, rows of totals stand
    for all before them.
    """

    turn_at_bytes = sys.maxsize
    """When another segment is due; for `detail` streams, set by the writer."""

    comes_last = False
    """Whether a row stands for rows of other streams, which have to be on disk before it."""

    def __init__(self, table: Table, detail: bool = True, newest_counts: bool = False) -> None:
        """Nothing is opened yet."""
        self.table = table
        self.detail = detail
        self.newest_counts = newest_counts
        self.pending: deque[tuple[Any, ...] | str] = deque()
        self.add = self.pending.append
        self.forget_file()
        self.widen(())

    def widen(self, more: tuple[Field, ...]) -> None:
        """Append columns to the table. A file that was begun without them ends here."""
        self._ends_here = self.descriptor >= 0
        self.table = self.table._replace(fields=self.table.fields + more)
        self._line = ",".join(["%s"] * len(self.table.fields)) + "\n"

    def forget_file(self) -> None:
        """Begin as if nothing had been written: for a forked child, which must not touch its parent's file."""
        self.pending.clear()
        self.descriptor = -1
        self.path = ""
        self.num_bytes = 0
        self.rows = 0
        self.segments: list[Segment] = []
        self._next_segment = 1
        self._ends_here = False

    def close(self) -> None:
        """Close the file of this process, if it is open."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def take(self) -> tuple[bytes, int]:
        """The waiting rows as CSV text, and how many they are. An empty cell stands for None."""
        text = self._joined()
        return text.encode(), text.count("\n")

    def _joined(self) -> str:
        """The waiting rows, which wait no more."""
        pending, line = self.pending, self._line
        text = ""
        for _ in range(len(pending)):
            item = pending.popleft()
            text += item if isinstance(item, str) else line % item
        return text.replace("None", "") if "None" in text else text

    def num_pending(self) -> int:
        """How many rows wait."""
        return sum(item.count("\n") if isinstance(item, str) else 1 for item in list(self.pending))

    def write_simply(self) -> bool:
        """Write what waits, in as few steps as there are: the usual case, at the end of every engine step.

        False where it is not that simple (no file yet, another segment due) or does not work; what was not written then
        waits still, for `take` and `write`.
        """
        if self.descriptor < 0 or self._ends_here or self.num_bytes >= self.turn_at_bytes:
            return False
        text = self._joined()
        data = text.encode()
        try:
            written = os.write(self.descriptor, data)
        except OSError:
            self.pending.appendleft(text)
            return False
        self.num_bytes += written
        if written < len(data):
            self._cut(data[:written])
            self.pending.appendleft(data[data.rfind(b"\n", 0, written) + 1 :].decode())
            return False
        self.rows += text.count("\n")
        return True

    def write(self, folder: str, data: bytes, rows: int) -> None:
        """Append whole rows. Raises OSError when not everything was written.

        The row that was cut off is taken off again. Where that fails too, the file ends there and the next row begins a
        new one: closed with a line end, the 1,10 of 1,1000 would pass for a row.
        """
        if self._ends_here:
            self.start_segment()
            self._ends_here = False
        if self.descriptor < 0:
            self._open(folder)
        written = os.write(self.descriptor, data)
        self.num_bytes += written
        if written < len(data):
            self._cut(data[:written])
            raise OSError(errno.ENOSPC, f"short write of {written} of {len(data)} bytes")
        self.rows += rows

    def _cut(self, written: bytes) -> None:
        """Take the part of a row off the end of what was written."""
        torn_bytes = len(written) - written.rfind(b"\n") - 1
        self.rows += written.count(b"\n")
        if not torn_bytes:
            return
        try:
            os.ftruncate(self.descriptor, self.num_bytes - torn_bytes)
            self.num_bytes -= torn_bytes
        except OSError:
            self._ends_here = True

    def _open(self, folder: str) -> None:
        """Begin the file under another name: a process killed before the header is written leaves no table without one."""
        self.path = os.path.join(folder, f"{self.table.name}.csv")
        begun = f"{self.path}.{os.getpid()}.new"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(begun)  # of a beginning that could not be taken back
        self.descriptor = open_new(begun)
        try:
            self.write(folder, self.table.header.encode(), 0)
            if os.path.lexists(self.path):  # nobody's file is replaced
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), self.path)
            os.rename(begun, self.path)
        except OSError:
            self.close()
            with contextlib.suppress(OSError):
                os.unlink(begun)
            self.num_bytes, self.rows, self._ends_here = 0, 0, False
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
