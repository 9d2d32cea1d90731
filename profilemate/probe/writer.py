"""All streams of this process: flushing, the share of the size cap, and what happens when writing fails or is slow."""

from __future__ import annotations

import _thread
import contextlib
import errno
import operator
import os
import time
from collections.abc import Callable

from profilemate.probe.folders import forget_limit
from profilemate.probe.settings import Settings
from profilemate.probe.stream import SLOW_WRITE_NS, Stream
from profilemate.schema.probe_tables import GAPS
from profilemate.schema.table import Table

SECOND_NS = 1_000_000_000
SLOW_WRITES = 3
SLOW_WINDOW_NS = 60 * SECOND_NS
FIRST_PAUSE_NS = SECOND_NS
LONGEST_PAUSE_NS = 60 * SECOND_NS
CALM_NS = 60 * SECOND_NS
"""So long after a pause the next one is as short as the first."""

COMES_LAST = operator.attrgetter("comes_last")
SEGMENTS_PER_SHARE = 8
SMALLEST_SEGMENT_BYTES = 16 << 10
TOTALS_PER_SEGMENT = 8
"""A file of totals begins anew once it has more than such a part of a segment's bytes: else totals alone fill a small share."""


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
        forget_limit()
        self.folder = ""
        self.paused_until_ns = 0
        self._pause_ns = FIRST_PAUSE_NS
        self._reason = ""
        self._lost: dict[str, int] = {}
        self._slow: list[int] = []
        self._next_look_ns = 0
        self._was_paused = False
        self._told_segments: set[str] = set()
        for stream in self.streams.values():
            if not is_our_file(stream):
                stream.descriptor = -1
            stream.close()
            stream.forget_file()

    def stream(self, table: Table, detail: bool = True, newest_counts: bool = False) -> Stream:
        """The stream of a table, made at the first call."""
        if table.name not in self.streams:
            self.streams[table.name] = Stream(table, detail, newest_counts)
            self._limit(self.streams[table.name])
        return self.streams[table.name]

    def open(self, folder: str, share_bytes: int, floor_bytes: int) -> None:
        """Name the process folder, this process's share of the session cap, and the free space to leave alone."""
        self.share_bytes = share_bytes
        self.segment_bytes = max(SMALLEST_SEGMENT_BYTES, share_bytes // SEGMENTS_PER_SHARE)
        self.floor_bytes = floor_bytes
        self.folder = folder
        for stream in self.streams.values():
            self._limit(stream)

    def _limit(self, stream: Stream) -> None:
        if stream.detail and self.segment_bytes:
            stream.turn_at_bytes = self.segment_bytes

    def flush(self, now: int = 0) -> None:
        """Write every waiting row. What cannot be written is counted and dropped; nothing is raised and nothing waits."""
        if not self.folder or not self._lock.acquire(False):
            return
        try:
            now = now or time.monotonic_ns()
            if now < self.paused_until_ns:
                self.drop_pending()
                return
            if self._was_paused or now >= self._next_look_ns:
                self._look_around(now)
            for stream in sorted(self.streams.values(), key=COMES_LAST):
                if stream.pending:
                    now = self._write(stream, now)
        finally:
            self._lock.release()

    def write_simply(self, streams: tuple[Stream, ...], now: int) -> bool:
        """Write the waiting rows of a few streams, at the end of every engine step. False where `flush` must do it."""
        if self._was_paused or self._lost or not self._lock.acquire(False):
            return False
        try:
            for stream in streams:
                if stream.pending and not stream.write_simply():
                    return False
            ended = time.monotonic_ns()
            if ended - now > SLOW_WRITE_NS:
                self._note_slow(ended)
        finally:
            self._lock.release()
        return True

    def _write(self, stream: Stream, began: int) -> int:
        """Write the waiting rows of a stream; returns the time now."""
        if self.paused_until_ns > began:
            self._drop(stream)
            return began
        told = tuple(stream.pending) if stream is self.gaps else ()
        data, rows = stream.take()
        written_before = stream.rows
        try:
            try:
                stream.write(self.folder, data, rows)
            except OSError as error:
                if error.errno != errno.EBADF:
                    raise
                stream.descriptor = -1  # somebody closed it, and nothing was written
                self._set_aside(stream, began)
                stream.write(self.folder, data, rows)
        except OSError as error:
            written = max(0, stream.rows - written_before)
            self._count_lost(stream, rows - written)
            stream.pending.extendleft(reversed(told[written:]))
            self._pause(errno.errorcode.get(error.errno or 0, "EIO"))
            return time.monotonic_ns()
        now = time.monotonic_ns()
        if now - began > SLOW_WRITE_NS:
            self._note_slow(now)
        elif self._lost:
            self._report_gaps(now)
        if stream.num_bytes >= stream.turn_at_bytes:
            self._turn_over(stream, now)
        return now

    @property
    def trouble(self) -> str:
        """Why rows are missing that no gaps row tells of yet; empty while all is well."""
        return self._reason if self._lost else ""

    def drop_pending(self) -> None:
        """Forget waiting rows, counting them; what is known to be lost stays known."""
        for stream in self.streams.values():
            self._drop(stream)

    def _drop(self, stream: Stream) -> None:
        if stream.pending and stream is not self.gaps:
            self._count_lost(stream, stream.num_pending())
            stream.pending.clear()

    def _count_lost(self, stream: Stream, rows: int) -> None:
        if rows and stream is not self.gaps:
            self._lost[stream.table.name] = self._lost.get(stream.table.name, 0) + rows

    def _pause(self, reason: str) -> None:
        """Write nothing for a while, twice as long as before where the last pause is not long over."""
        now = time.monotonic_ns()
        self._pause_ns = (
            FIRST_PAUSE_NS if now - self.paused_until_ns > CALM_NS else min(LONGEST_PAUSE_NS, 2 * self._pause_ns)
        )
        self._reason = reason
        self._was_paused = True
        self.paused_until_ns = now + self._pause_ns

    def _note_slow(self, now: int) -> None:
        self._slow = [then for then in self._slow if now - then < SLOW_WINDOW_NS] + [now]
        if len(self._slow) > SLOW_WRITES:
            self._slow = []
            self._pause("slow")

    def _look_around(self, now: int) -> None:
        """Once a second and after every pause: is there room left on the disk, and are our files still where they were?"""
        self._next_look_ns = now + SECOND_NS
        self._was_paused = False
        for stream in self.streams.values():
            if stream.descriptor >= 0 and not is_in_place(stream):
                if is_our_file(stream):
                    stream.close()
                else:  # somebody closed it
                    stream.descriptor = -1
                self._set_aside(stream, now)
        self._keep_share(now)
        try:
            found = os.statvfs(self.folder)
        except OSError:
            return
        if found.f_bavail * found.f_frsize < self.floor_bytes:
            self._pause("disk_floor")

    def _set_aside(self, stream: Stream, now: int) -> None:
        """Begin a new file where the descriptor of the old one is lost. If that is gone too, so are its rows."""
        try:
            stream.start_segment()
        except OSError:
            if stream.rows:
                self.gaps.add((now, stream.table.name, stream.rows, "removed"))
            stream.num_bytes = stream.rows = 0

    def _report_gaps(self, now: int) -> None:
        """Writing works again: say what is missing."""
        for table, rows in self._lost.items():
            self.gaps.add((now, table, rows, self._reason))
        self._lost = {}
        self._write(self.gaps, now)

    def _turn_over(self, stream: Stream, now: int) -> None:
        """Begin a new segment, and make room for it."""
        try:
            stream.start_segment()
        except OSError as error:
            self._pause(errno.errorcode.get(error.errno or 0, "EIO"))
        else:
            self._keep_share(now)

    def _keep_share(self, now: int) -> None:
        """Remove the oldest segments of the process while it is over its share, less one that may grow meanwhile."""
        try:
            while self.kept_bytes() + self.segment_bytes > self.share_bytes and self._remove_oldest(now):
                pass
        except OSError as error:
            self._pause(errno.errorcode.get(error.errno or 0, "EIO"))

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
        if not self._write_totals(now):
            return False
        if segment.path not in self._told_segments:  # the removal may fail, and be tried again
            self.gaps.add((now, stream.table.name, segment.rows, "size_cap"))
            self._told_segments.add(segment.path)
        if not self._write_kept(now):
            return False
        with contextlib.suppress(FileNotFoundError):
            os.unlink(segment.path)
        del stream.segments[0]
        self._told_segments.discard(segment.path)
        return True

    def _write_totals(self, now: int) -> bool:
        """Write all totals anew; older ones of which enough have come together go once the new ones are on disk."""
        replaced = [stream for stream in self.streams.values() if stream.newest_counts]
        for stream in replaced:
            if stream.num_bytes * TOTALS_PER_SEGMENT > self.segment_bytes:
                with contextlib.suppress(OSError):
                    stream.start_segment()
        for write_totals in self.before_drop:
            write_totals()
        if not self._write_kept(now):
            return False
        for stream in replaced:
            while stream.segments and stream.num_bytes:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(stream.segments[0].path)
                del stream.segments[0]
        return True

    def _write_kept(self, now: int) -> bool:
        """Write the waiting rows of the streams that never lose any; whether that went well."""
        for stream in self.streams.values():
            if not stream.detail and stream.pending:
                self._write(stream, now)
        return self.paused_until_ns <= now


def is_our_file(stream: Stream) -> bool:
    """Whether the descriptor is still that of our file, by its position, which is ours alone: the cheapest call there is."""
    try:
        return os.lseek(stream.descriptor, 0, os.SEEK_CUR) == stream.num_bytes
    except OSError:
        return False


def is_in_place(stream: Stream) -> bool:
    """Whether the file that we have open is the one that its path names."""
    try:
        return os.path.samestat(os.stat(stream.path), os.fstat(stream.descriptor))
    except OSError:
        return False


def process_share(settings: Settings, num_processes: int) -> int:
    """Bytes that one of `num_processes` may keep: a fixed share, so that no process needs to ask another."""
    return settings.session_cap_bytes // max(1, num_processes)
