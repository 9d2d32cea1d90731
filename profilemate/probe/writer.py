"""All streams of this process: flushing, the share of the size cap, and what happens when writing fails or is slow."""

from __future__ import annotations

import _thread
import errno
import os
import time
from collections.abc import Callable
from typing import Any

from profilemate.probe.settings import Settings
from profilemate.probe.stream import SLOW_WRITE_NS, Stream
from profilemate.schema.probe_tables import GAPS
from profilemate.schema.table import Table

SECOND_NS = 1_000_000_000
SLOW_WRITES = 3
SLOW_WINDOW_NS = 60 * SECOND_NS
FIRST_PAUSE_NS = SECOND_NS
LONGEST_PAUSE_NS = 60 * SECOND_NS
SEGMENTS_PER_SHARE = 8
SMALLEST_SEGMENT_BYTES = 16 << 10


class Writer:
    """Holds the streams by table name and writes them out when asked, never from two threads at once."""

    def __init__(self) -> None:
        """No folder yet: rows wait in memory until `open`."""
        self.streams: dict[str, Stream] = {}
        self.gaps = self.stream(GAPS, detail=False)
        self.before_drop: list[Callable[[], None]] = []
        self.folder = ""
        self.share_bytes = 0
        self.segment_bytes = 0
        self.floor_bytes = 0
        self.forget_files()

    def forget_files(self) -> None:
        """Start with new files and no inherited rows, as a forked child must."""
        self._lock = _thread.allocate_lock()
        self.folder = ""
        self.paused_until_ns = 0
        self._pause_ns = FIRST_PAUSE_NS
        self._reason = ""
        self._lost: dict[str, int] = {}
        self._slow: list[int] = []
        self._next_floor_check_ns = 0
        for stream in self.streams.values():
            stream.close()
            stream.forget_file()

    def stream(self, table: Table, detail: bool = True) -> Stream:
        """The stream of a table, made at the first call."""
        if table.name not in self.streams:
            self.streams[table.name] = Stream(table, detail)
        return self.streams[table.name]

    def open(self, folder: str, share_bytes: int, floor_bytes: int) -> None:
        """Name the process folder, this process's share of the session cap, and the free space to leave alone."""
        self.share_bytes = share_bytes
        self.segment_bytes = max(SMALLEST_SEGMENT_BYTES, share_bytes // SEGMENTS_PER_SHARE)
        self.floor_bytes = floor_bytes
        self.folder = folder

    def flush(self) -> None:
        """Write every waiting row. What cannot be written is counted and dropped; nothing is raised and nothing waits."""
        if not self.folder or not self._lock.acquire(False):
            return
        try:
            now = time.monotonic_ns()
            if now < self.paused_until_ns:
                self.drop_pending()
                return
            if now >= self._next_floor_check_ns:
                self._check_floor(now)
            for stream in self.streams.values():
                if stream.pending:
                    self._write(stream, now)
        finally:
            self._lock.release()

    def _write(self, stream: Stream, now: int) -> None:
        data, rows = stream.take()
        written_before = stream.rows
        if self.paused_until_ns > now:
            self._count_lost(stream, rows)
            return
        try:
            took = stream.write(self.folder, data)
        except OSError as error:
            self._count_lost(stream, rows - max(0, stream.rows - written_before))
            self._pause(now, errno.errorcode.get(error.errno or 0, "EIO"))
            return
        if took > SLOW_WRITE_NS:
            self._note_slow(now)
        elif self._lost:
            self._report_gaps(now)
        if stream.num_bytes >= self.segment_bytes and stream.detail:
            self._turn_over(stream, now)

    @property
    def trouble(self) -> str:
        """Why rows are missing that no gaps row tells of yet; empty while all is well."""
        return self._reason if self._lost else ""

    def drop_pending(self) -> None:
        """Forget waiting rows, counting them; what is known to be lost stays known."""
        for stream in self.streams.values():
            if stream.pending and stream is not self.gaps:
                self._count_lost(stream, len(stream.pending))
                stream.pending.clear()

    def _count_lost(self, stream: Stream, rows: int) -> None:
        if rows and stream is not self.gaps:
            self._lost[stream.table.name] = self._lost.get(stream.table.name, 0) + rows

    def _pause(self, now: int, reason: str) -> None:
        self._reason = reason
        self.paused_until_ns = now + self._pause_ns
        self._pause_ns = min(LONGEST_PAUSE_NS, 2 * self._pause_ns)

    def _note_slow(self, now: int) -> None:
        self._slow = [then for then in self._slow if now - then < SLOW_WINDOW_NS] + [now]
        if len(self._slow) > SLOW_WRITES:
            self._slow = []
            self._pause(now, "slow")

    def _check_floor(self, now: int) -> None:
        self._next_floor_check_ns = now + SECOND_NS
        try:
            found = os.statvfs(self.folder)
        except OSError:
            return
        if found.f_bavail * found.f_frsize < self.floor_bytes:
            self._pause(now, "disk_floor")

    def _report_gaps(self, now: int) -> None:
        """Writing works again: say what is missing."""
        for table, rows in self._lost.items():
            self.gaps.add((now, table, rows, self._reason))
        self._lost = {}
        self._pause_ns = FIRST_PAUSE_NS

    def _turn_over(self, stream: Stream, now: int) -> None:
        """Begin a new segment, and remove the oldest ones of the process while it is over its share."""
        try:
            stream.start_segment()
            while self.kept_bytes() + self.segment_bytes > self.share_bytes and self._remove_oldest(now):
                pass
        except OSError as error:
            self._pause(now, errno.errorcode.get(error.errno or 0, "EIO"))

    def kept_bytes(self) -> int:
        """Bytes of this process on disk."""
        return sum(stream.kept_bytes for stream in self.streams.values())

    def _remove_oldest(self, now: int) -> bool:
        """Remove one segment of the stream with most bytes, once the totals and the gap are on disk.

        False when only current files are left, or when that could not be written: then nothing is removed.
        """
        full = [stream for stream in self.streams.values() if stream.detail and stream.segments]
        if not full:
            return False
        stream = max(full, key=lambda candidate: candidate.kept_bytes)
        segment = stream.segments[0]
        for write_totals in self.before_drop:
            write_totals()
        if not self._write_kept(now):
            return False
        self.gaps.add((now, stream.table.name, segment.rows, "size_cap"))
        if not self._write_kept(now):
            return False
        os.unlink(segment.path)
        del stream.segments[0]
        return True

    def _write_kept(self, now: int) -> bool:
        """Write the waiting rows of the streams that never lose any; whether that went well."""
        for stream in self.streams.values():
            if not stream.detail and stream.pending:
                self._write(stream, now)
        return self.paused_until_ns <= now


def process_share(settings: Settings, num_processes: int) -> int:
    """Bytes that one of `num_processes` may keep: a fixed share, so that no process needs to ask another."""
    return settings.session_cap_bytes // max(1, num_processes)


def quarter(settings: Settings) -> Settings:
    """The caps for a memory-backed mount."""
    changes: dict[str, Any] = {
        "session_cap_bytes": settings.session_cap_bytes // 4,
        "disk_floor_bytes": settings.disk_floor_bytes // 4,
    }
    return settings._replace(**changes)
