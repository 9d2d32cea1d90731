"""Rows on disk: one write a flush, whole rows, caps with kept totals, failing and slow writes, pauses."""

from __future__ import annotations

import errno
import json
import os
import stat
import time
from pathlib import Path
from typing import Any

import pytest
import streams
from writers import TABLE, TOTALS, failing_write, open_writer, write_rows

from profilemate.probe import folders
from profilemate.probe import writer as writer_module
from profilemate.probe.writer import Writer


def test_rows_are_on_disk_after_a_flush_and_not_before(tmp_path: Path) -> None:
    writer = open_writer(tmp_path)
    stream = writer.stream(TABLE)
    stream.add((1, "a"))
    assert not (tmp_path / "numbers.csv").exists()
    writer.flush()
    stream.add((2, None))
    writer.flush()
    assert (tmp_path / "numbers.csv").read_text() == "n,text\n1,a\n2,\n"
    assert stat.S_IMODE((tmp_path / "numbers.csv").stat().st_mode) == 0o600


def test_one_flush_is_one_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = open_writer(tmp_path)
    stream = writer.stream(TABLE)
    stream.add((0, "first"))
    writer.flush()
    writes = []
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: writes.append(data) or real(fd, data))
    for n in range(100):
        stream.add((n, "x"))
    writer.flush()
    assert len(writes) == 1


def test_over_the_cap_the_newest_rows_stay_and_totals_come_first(tmp_path: Path) -> None:
    writer = open_writer(tmp_path, share=200_000)
    stream, sums = writer.stream(TABLE), writer.stream(TOTALS, detail=False)
    written = 0
    writer.before_drop.append(lambda: sums.add((written,)))
    for n in range(60_000):
        stream.add((n, "some words"))
        written += n
        if n % 50 == 49:
            writer.flush()
    kept = [int(row["n"]) for row in streams.rows(tmp_path, "numbers")]
    assert kept == list(range(kept[0], 60_000)) and kept[0] > 0
    dropped = sum(int(row["rows"]) for row in streams.rows(tmp_path, "gaps") if row["reason"] == "size_cap")
    assert dropped == kept[0]
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 200_000
    last_total = int(streams.rows(tmp_path, "sums")[-1]["n"])
    assert last_total >= sum(range(dropped))


@pytest.mark.parametrize("fails", ["unlink", "the row in gaps"])
def test_rows_that_could_not_be_removed_at_first_are_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    """As in a folder that is read-only for a while, or on a disk that is full then: the removal is tried again and again."""
    monkeypatch.setattr(writer_module, "FIRST_PAUSE_NS", 0)
    monkeypatch.setattr(writer_module, "LONGEST_PAUSE_NS", 0)
    writer = open_writer(tmp_path, share=100_000)
    stream, attempts = writer.stream(TABLE), []
    real_unlink, real_write = os.unlink, writer.gaps.write

    def refused(*arguments: Any) -> None:
        attempts.append(arguments)
        raise OSError(errno.EROFS, "read-only")

    if fails == "unlink":
        monkeypatch.setattr(os, "unlink", refused)
    else:
        monkeypatch.setattr(writer.gaps, "write", refused)
    added = 0
    while len(attempts) < 5:
        stream.add((added, "some words"))
        added += 1
        writer.flush()
    monkeypatch.setattr(os, "unlink", real_unlink)
    monkeypatch.setattr(writer.gaps, "write", real_write)
    for _ in range(20_000):
        stream.add((added, "some words"))
        added += 1
        writer.flush()
    kept = streams.rows(tmp_path, "numbers")
    dropped = sum(int(row["rows"]) for row in streams.rows(tmp_path, "gaps") if row["table"] == "numbers")
    assert len(kept) + dropped == added and int(kept[-1]["n"]) == added - 1


def test_no_rows_are_removed_before_their_totals_are_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = open_writer(tmp_path, share=100_000)
    stream, sums = writer.stream(TABLE), writer.stream(TOTALS, detail=False)
    writer.before_drop.append(lambda: sums.add((1,)))

    def full_disk(folder: str, data: bytes, rows: int) -> int:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(sums, "write", full_disk)
    added = 0
    while not writer.paused_until_ns:
        stream.add((added, "some words"))
        added += 1
        writer.flush()
    assert [int(row["n"]) for row in streams.rows(tmp_path, "numbers")] == list(range(added))
    assert not any(row["reason"] == "size_cap" for row in streams.rows(tmp_path, "gaps"))
    monkeypatch.undo()
    writer.paused_until_ns = 0
    before = len(stream.segments)
    for _ in range(8_000):
        stream.add((0, "some words"))
        writer.flush()
    gaps = {(row["table"], row["reason"]) for row in streams.rows(tmp_path, "gaps")}
    assert {("numbers", "size_cap"), ("sums", "ENOSPC")} <= gaps and before > 1


@pytest.mark.parametrize(
    ("failure", "lost"), [(OSError(errno.ENOSPC, "full"), 2), (5, 1), (7, 1), (4, 1), (3, 2), (0, 2)]
)
def test_a_failed_or_short_write_is_counted_and_the_next_row_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Any, lost: int
) -> None:
    writer = open_writer(tmp_path)
    stream = writer.stream(TABLE)
    stream.add((0, "x"))
    writer.flush()
    failing_write(monkeypatch, [failure])
    stream.add((1, "x"))
    stream.add((2, "x"))
    writer.flush()
    stream.add((3, "while paused"))
    writer.flush()
    writer.paused_until_ns = 0
    stream.add((4, "x"))
    writer.flush()
    writer.flush()
    lines = (tmp_path / "numbers.csv").read_text().splitlines()
    assert lines == ["n,text", "0,x", *["1,x", "2,x"][: 2 - lost], "4,x"]
    (gap,) = streams.rows(tmp_path, "gaps")
    assert (gap["table"], gap["rows"], gap["reason"]) == ("numbers", str(lost + 1), "ENOSPC")


def test_a_part_of_a_row_that_stays_is_the_end_of_a_segment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it cannot be taken off again; closed with a line end, 1,10 of 1,1000 would pass for a row."""
    writer = open_writer(tmp_path)
    stream = writer.stream(TABLE)
    stream.add((0, "x"))
    writer.flush()
    failing_write(monkeypatch, [4])
    monkeypatch.setattr(os, "ftruncate", lambda descriptor, length: failing_call())
    stream.add((1, "1000"))
    writer.flush()
    writer.paused_until_ns = 0
    stream.add((2, "x"))
    writer.flush()
    assert (tmp_path / "numbers.1.csv").read_text() == "n,text\n0,x\n1,10"
    assert (tmp_path / "numbers.csv").read_text() == "n,text\n2,x\n"
    assert [row["n"] for row in streams.rows(tmp_path, "numbers")] == ["0", "2"]
    assert [row["rows"] for row in streams.rows(tmp_path, "gaps")] == ["1"]


def failing_call() -> None:
    raise OSError(errno.EIO, "broken")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.EIO, "broken"), "EIO"),
        (OSError(errno.EDQUOT, "quota"), "EDQUOT"),
        (OSError(errno.EROFS, "read-only"), "EROFS"),
        (BlockingIOError(errno.EAGAIN, "again"), "EAGAIN"),
        (OSError("without a number"), "EIO"),
    ],
)
def test_the_gap_names_the_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError, reason: str) -> None:
    writer = open_writer(tmp_path)
    write_rows(writer, 1)
    failing_write(monkeypatch, [error])
    write_rows(writer, 1)
    assert writer.trouble == reason
    writer.paused_until_ns = 0
    write_rows(writer, 1)
    assert [(row["rows"], row["reason"]) for row in streams.rows(tmp_path, "gaps")] == [("1", reason)]
    assert writer.trouble == ""


@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "full"), 0, 3], ids=["raises", "nothing", "torn"])
def test_a_header_that_could_not_be_written_is_written_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Any
) -> None:
    """On a full disk a file can still be made; without its header all later rows would be unreadable."""
    writer = open_writer(tmp_path)
    failing_write(monkeypatch, [failure])
    writer.stream(TABLE).add((1, "lost"))
    writer.flush()
    writer.paused_until_ns = 0
    writer.stream(TABLE).add((2, "x"))
    writer.flush()
    assert (tmp_path / "numbers.csv").read_text() == "n,text\n2,x\n"
    writer.flush()
    assert [row["rows"] for row in streams.rows(tmp_path, "gaps")] == ["1"]


def test_a_record_cut_short_by_a_full_disk_does_not_replace_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "process.json"
    folders.write_json(str(path), {"n": 1})
    failing_write(monkeypatch, [4])
    with pytest.raises(OSError, match="short write"):
        folders.write_json(str(path), {"n": 2})
    assert json.loads(path.read_text()) == {"n": 1} and list(tmp_path.iterdir()) == [path]


def test_a_pause_right_after_a_pause_forgets_no_gap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = open_writer(tmp_path)
    stream = writer.stream(TABLE)
    failing_write(monkeypatch, [OSError(errno.ENOSPC, "full")])
    for n, until_ns in enumerate([0, 0, 1 << 62, 0]):
        writer.paused_until_ns = until_ns
        stream.add((n, "x"))
        writer.flush()
    writer.flush()
    assert [row["n"] for row in streams.rows(tmp_path, "numbers")] == ["1", "3"]
    assert [row["rows"] for row in streams.rows(tmp_path, "gaps")] == ["1", "1"]


def test_slow_writes_stop_detail_for_a_while_but_one_pause_of_the_process_does_not(tmp_path: Path) -> None:
    writer = open_writer(tmp_path)
    stream = writer.stream(TABLE)
    now = time.monotonic_ns()
    writer._note_slow(now)
    assert writer.paused_until_ns <= now
    for _ in range(3):
        writer._note_slow(now)
    assert writer.paused_until_ns > now
    stream.add((1, "dropped"))
    writer.flush()
    assert not (tmp_path / "numbers.csv").exists()


def slow_write(monkeypatch: pytest.MonkeyPatch, seconds: list[float]) -> list[bytes]:
    """Let the next writes take so long; returns what is written."""
    written: list[bytes] = []
    real = os.write

    def write(descriptor: int, data: bytes) -> int:
        written.append(data)
        time.sleep(seconds.pop(0) if seconds else 0)
        return real(descriptor, data)

    monkeypatch.setattr(os, "write", write)
    return written


def test_the_fourth_slow_write_of_a_minute_pauses_and_the_gap_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = open_writer(tmp_path)
    write_rows(writer, 1)
    written = slow_write(monkeypatch, [0.06] * 4)
    write_rows(writer, 3)
    assert writer.paused_until_ns == 0
    write_rows(writer, 1)
    assert writer.paused_until_ns > time.monotonic_ns() and len(written) == 4
    write_rows(writer, 20)
    assert len(written) == 4
    writer.paused_until_ns = time.monotonic_ns()
    write_rows(writer, 1)
    assert [(row["rows"], row["reason"]) for row in streams.rows(tmp_path, "gaps")] == [("20", "slow")]
    assert len(streams.rows(tmp_path, "numbers")) == 6


def test_a_pause_begins_when_the_slow_write_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that hangs for longer than the pause would otherwise end it before it began."""
    monkeypatch.setattr(writer_module, "FIRST_PAUSE_NS", 200_000_000)
    writer = open_writer(tmp_path)
    write_rows(writer, 1)
    slow_write(monkeypatch, [0.06, 0.06, 0.06, 0.5])
    write_rows(writer, 4)
    assert writer.paused_until_ns > time.monotonic_ns()


def test_pauses_grow_while_trouble_goes_on_and_are_short_again_after_a_calm_minute(tmp_path: Path) -> None:
    writer = open_writer(tmp_path)
    lengths = []
    for _ in range(9):
        before = time.monotonic_ns()
        writer._pause("ENOSPC")
        lengths.append(round((writer.paused_until_ns - before) / 1e9))
        writer.paused_until_ns = time.monotonic_ns()
    assert lengths == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    writer.paused_until_ns = time.monotonic_ns() - 61_000_000_000
    writer._pause("ENOSPC")
    assert writer.paused_until_ns - time.monotonic_ns() < 1_100_000_000


def test_slow_writes_that_are_rare_pause_nothing(tmp_path: Path) -> None:
    writer = open_writer(tmp_path)
    for minute in range(1, 20):
        writer._note_slow(minute * 20_000_000_000 + 1)
    assert writer.paused_until_ns == 0


def test_gaps_outlive_a_disk_that_is_full_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is known to be lost is told in the end, however often telling it fails."""
    writer = open_writer(tmp_path)
    write_rows(writer, 1)
    full = OSError(errno.ENOSPC, "full")
    made = 1
    cases: list[list[Any]] = [
        [full], [full, full], [full, None, full], [full, None, None, 5], [full, None, 30], [11, full], [2, None, 0],
    ]  # fmt: skip
    for failures in cases:
        failing_write(monkeypatch, failures)
        for _ in range(8):
            write_rows(writer, 3)
            made += 3
            writer.paused_until_ns = 0
        assert failures == []
        monkeypatch.undo()
    write_rows(writer, 1)
    on_disk = len(streams.rows(tmp_path, "numbers"))
    lost = sum(int(row["rows"]) for row in streams.rows(tmp_path, "gaps"))
    assert on_disk + lost == made + 1 and lost > 4
    for path in tmp_path.iterdir():
        widths = {line.count(",") for line in path.read_text().splitlines()}
        assert len(widths) == 1, path


def test_nothing_is_written_below_the_floor_of_free_space(tmp_path: Path) -> None:
    writer = Writer()
    writer.open(str(tmp_path), 1 << 30, floor_bytes=1 << 62)
    writer.stream(TABLE).add((1, "x"))
    writer.flush()
    assert list(tmp_path.iterdir()) == []


def test_after_a_pause_the_floor_is_looked_at_before_a_row_is_written(tmp_path: Path) -> None:
    """Also at the end of an engine step, which else looks at nothing."""
    writer = Writer()
    writer.open(str(tmp_path), 1 << 30, floor_bytes=1 << 62)
    stream = writer.stream(TABLE)
    stream.add((1, "x"))
    writer.flush()
    for n in range(3):
        stream.add((n, "x"))
        writer.flush(writer.paused_until_ns + 1)
    assert list(tmp_path.iterdir()) == [] and writer.trouble == "disk_floor"


def test_a_forked_child_writes_its_own_rows_alone(tmp_path: Path) -> None:
    parent, child = tmp_path / "parent", tmp_path / "child"
    parent.mkdir()
    child.mkdir()
    writer = open_writer(parent)
    stream = writer.stream(TABLE)
    stream.add((1, "parent"))
    writer.flush()
    stream.add((2, "parent, still waiting"))
    pid = os.fork()
    if pid == 0:
        writer.forget_files()
        writer.open(str(child), 1 << 30, 0)
        stream.add((3, "child"))
        writer.flush()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    writer.flush()
    assert [row["n"] for row in streams.rows(parent, "numbers")] == ["1", "2"]
    assert [row["n"] for row in streams.rows(child, "numbers")] == ["3"]
