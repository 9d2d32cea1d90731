"""Streams on disk: whole rows, torn rows, caps with kept totals, pauses, folders that nobody planted."""

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

from profilemate.probe import folders
from profilemate.probe.settings import Settings
from profilemate.probe.writer import Writer
from profilemate.schema.table import Table, fields

TABLE = Table("numbers", "A table.", fields(("n", "int", "a number"), ("text", "str", "words")))
TOTALS = Table(
    "sums",
    "Kept totals.",
    fields(
        ("n", "int", "sum so far"),
    ),
)


def open_writer(folder: Path, share: int = 1 << 30) -> Writer:
    writer = Writer()
    writer.open(str(folder), share, 0)
    return writer


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


def test_no_rows_are_removed_before_their_totals_are_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = open_writer(tmp_path, share=100_000)
    stream, sums = writer.stream(TABLE), writer.stream(TOTALS, detail=False)
    writer.before_drop.append(lambda: sums.add((1,)))

    def full_disk(folder: str, data: bytes) -> int:
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


def failing_write(monkeypatch: pytest.MonkeyPatch, failures: list[Any]) -> None:
    real = os.write

    def write(descriptor: int, data: bytes) -> int:
        if failures:
            failure = failures.pop(0)
            if isinstance(failure, int):
                return real(descriptor, data[:failure])
            raise failure
        return real(descriptor, data)

    monkeypatch.setattr(os, "write", write)


@pytest.mark.parametrize(
    ("failure", "lost", "torn"),
    [(OSError(errno.ENOSPC, "full"), 2, False), (5, 1, True), (4, 1, False), (0, 2, False)],
)
def test_a_failed_or_short_write_is_counted_and_the_next_row_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Any, lost: int, torn: bool
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
    assert lines[-1] == "4,x"
    (gap,) = streams.rows(tmp_path, "gaps")
    assert (gap["table"], gap["rows"], gap["reason"]) == ("numbers", str(lost + 1), "ENOSPC")
    assert ("2" in lines) == torn


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


def test_nothing_is_written_below_the_floor_of_free_space(tmp_path: Path) -> None:
    writer = Writer()
    writer.open(str(tmp_path), 1 << 30, floor_bytes=1 << 62)
    writer.stream(TABLE).add((1, "x"))
    writer.flush()
    assert list(tmp_path.iterdir()) == []


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


def test_two_sessions_of_one_second_have_two_folders(tmp_path: Path) -> None:
    first, second = (folders.create_session(str(tmp_path), Settings()) for _ in range(2))
    assert first != second
    for path in (first, second):
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o700
        assert (Path(path) / "session.json").exists()


def test_a_default_folder_of_somebody_else_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    default = str(tmp_path / "vllm_profiling")
    monkeypatch.setattr(folders, "DEFAULT_DIRECTORY", default)
    os.mkdir(default)
    mine = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: mine + 1)
    with pytest.raises(folders.FolderRefusedError):
        folders._checked(default)
    assert folders.usable_directory(default) != default


def test_an_unusable_folder_is_refused_with_a_sentence(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(folders.FolderRefusedError, match="cannot be made"):
        folders.create_session(str(file / "below"), Settings())


def test_the_mount_of_shared_memory_is_memory_backed() -> None:
    assert folders.mount_type("/dev/shm") in folders.MEMORY_BACKED
    assert folders.mount_type("/proc") == "proc"
