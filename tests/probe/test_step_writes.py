"""The short way of writing, at the end of every engine step: the usual case alone, and nothing lost in any other."""

from __future__ import annotations

import errno
import os
import time
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
import streams
from writers import TABLE, TOTALS, failing_write, open_writer

from profilemate.probe import install
from profilemate.probe.process import THIS, Process
from profilemate.probe.shared_row import SharedRow
from profilemate.probe.stream import Stream
from profilemate.probe.writer import Writer


def begun(folder: Path) -> Writer:
    """A writer whose file is open with one row in it."""
    writer = open_writer(folder)
    writer.stream(TABLE).add((0, "x"))
    writer.flush()
    return writer


def numbers(folder: Path) -> list[str]:
    return [row["n"] for row in streams.rows(folder, "numbers")]


def test_what_waits_is_one_write_however_many_items_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = begun(tmp_path)
    stream = writer.stream(TABLE)
    writes: list[bytes] = []
    real = os.write
    monkeypatch.setattr(os, "write", lambda number, data: writes.append(data) or real(number, data))
    stream.add((1, None))
    stream.add("2,b\n3,c\n")
    stream.add((4, "d"))
    assert writer.write_simply((stream,), time.monotonic_ns())
    assert writes == [b"1,\n2,b\n3,c\n4,d\n"]
    assert (stream.rows, stream.num_bytes) == (5, (tmp_path / "numbers.csv").stat().st_size)
    assert stream.num_pending() == 0


@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "full"), 0, 2, 4, 6])
def test_what_was_not_written_waits_for_the_careful_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Any
) -> None:
    writer = begun(tmp_path)
    stream = writer.stream(TABLE)
    stream.add((1, "x"))
    stream.add((2, "x"))
    failing_write(monkeypatch, [failure])
    assert not writer.write_simply((stream,), time.monotonic_ns())
    writer.flush()
    assert numbers(tmp_path) == ["0", "1", "2"] and stream.rows == 3
    assert (tmp_path / "numbers.csv").read_text() == "n,text\n0,x\n1,x\n2,x\n"
    assert not (tmp_path / "gaps.csv").exists()


def test_a_closed_descriptor_costs_no_row(tmp_path: Path) -> None:
    writer = begun(tmp_path)
    stream = writer.stream(TABLE)
    os.close(stream.descriptor)
    stream.add((1, "x"))
    assert not writer.write_simply((stream,), time.monotonic_ns())
    writer.flush()
    assert numbers(tmp_path) == ["0", "1"]


def test_a_pause_and_a_file_that_is_due_are_left_to_the_careful_way(tmp_path: Path) -> None:
    writer = begun(tmp_path)
    stream, kept = writer.stream(TABLE), writer.stream(TOTALS, detail=False)
    stream.add((1, "x"))
    writer._pause("slow")
    assert not writer.write_simply((stream,), time.monotonic_ns())
    assert numbers(tmp_path) == ["0"] and stream.num_pending() == 1
    writer._was_paused = False
    stream.turn_at_bytes = stream.num_bytes
    assert not writer.write_simply((stream,), time.monotonic_ns())
    assert kept.turn_at_bytes > 1 << 40, "kept rows are never set aside"


def test_a_stream_made_after_the_folder_has_its_limit(tmp_path: Path) -> None:
    writer = open_writer(tmp_path)
    assert writer.stream(TABLE).turn_at_bytes == writer.segment_bytes


def test_changes_of_state_wait_for_the_full_flush_of_each_second(tmp_path: Path) -> None:
    """One a step would rewrite process.json, and look at everything, in every step of a server whose disk is full."""
    process = Process()
    process.folder, process.writer = str(tmp_path), begun(tmp_path)
    saved: list[int] = []
    process.save = lambda: saved.append(1)  # type: ignore[method-assign]
    start = time.monotonic_ns()
    process.flush(start)
    process.dirty = True
    for number in range(39):
        process.writer.stream(TABLE).add((number, "x"))
        process.flush_step((process.writer.stream(TABLE),), start + number)
    assert saved == [] and len(numbers(tmp_path)) == 40
    process.flush_step((), start + 1_000_000_000)
    assert saved == [1]


def test_counts_are_looked_at_once_a_second_however_often_rows_are_flushed(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []
    monkeypatch.setattr(install, "report_health", lambda now_ns, told: looks.append(now_ns))
    monkeypatch.setattr(install, "_next_look_ns", 0)
    start = THIS.began_ns + 1
    for millisecond in range(2500):
        install.at_flush(start + millisecond * 1_000_000)
    assert len(looks) == 3


def test_a_row_that_stands_for_others_is_written_after_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever way it is written: a kill between the two writes leaves no total of rows that are not there."""
    writer = open_writer(tmp_path)
    row = SharedRow(writer.stream(TABLE))
    other = writer.stream(TOTALS)
    row.write_with(other)
    written: list[str] = []
    real = Stream.write, Stream.write_simply
    monkeypatch.setattr(Stream, "write", lambda self, *rest: written.append(self.table.name) or real[0](self, *rest))
    monkeypatch.setattr(Stream, "write_simply", lambda self: written.append(self.table.name) or real[1](self))
    for write in (lambda: writer.flush(), lambda: writer.write_simply(row.streams, time.monotonic_ns())):
        other.add((1,))
        row.add("1,x")
        write()
    assert [name for name, _ in groupby(written)] == ["sums", "numbers"] * 2
