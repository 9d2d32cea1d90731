"""Files under a writer's feet: descriptors that others close or take, files that others remove."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import streams
from writers import TABLE, open_writer, write_rows

from profilemate.probe import folders


def test_a_closed_descriptor_costs_no_row(tmp_path: Path) -> None:
    writer = open_writer(tmp_path)
    write_rows(writer, 3)
    os.close(writer.stream(TABLE).descriptor)
    write_rows(writer, 3)
    assert [row["n"] for row in streams.rows(tmp_path, "numbers")] == ["0", "1", "2"] * 2
    assert not (tmp_path / "gaps.csv").exists() and writer.paused_until_ns == 0
    os.close(writer.stream(TABLE).descriptor)
    writer.forget_files()


OTHERS: dict[str, Callable[[Path], Any]] = {
    "file": lambda folder: (folder / "theirs").open("ab+", buffering=0),
    "socket": lambda folder: socket.socketpair()[0],
    "pipe": lambda folder: os.fdopen(os.pipe()[1], "wb"),
    "device": lambda folder: os.fdopen(os.open("/dev/null", os.O_WRONLY), "wb"),
}


@pytest.mark.parametrize("other", OTHERS)
def test_who_closes_our_descriptor_and_opens_a_file_gets_no_row_of_ours(tmp_path: Path, other: str) -> None:
    writer = open_writer(tmp_path)
    write_rows(writer, 3)
    number = writer.stream(TABLE).descriptor
    os.close(number)
    theirs = OTHERS[other](tmp_path)
    assert theirs.fileno() != number
    write_rows(writer, 3)
    assert [row["n"] for row in streams.rows(tmp_path, "numbers")] == ["0", "1", "2"] * 2
    assert other != "file" or (tmp_path / "theirs").read_bytes() == b""
    theirs.close()


@pytest.mark.parametrize("other", OTHERS)
def test_a_file_put_under_our_very_number_is_noticed_within_a_second_and_stays_open(tmp_path: Path, other: str) -> None:
    writer = open_writer(tmp_path)
    write_rows(writer, 3)
    number = writer.stream(TABLE).descriptor
    theirs = OTHERS[other](tmp_path)
    os.dup2(theirs.fileno(), number)
    writer._next_look_ns = 0
    write_rows(writer, 3)
    writer.flush()
    assert [row["n"] for row in streams.rows(tmp_path, "numbers")] == ["0", "1", "2"] * 2
    assert other != "file" or (tmp_path / "theirs").read_bytes() == b""
    assert os.path.sameopenfile(number, theirs.fileno()), "it was closed"
    theirs.close()
    os.close(number)


def test_where_no_descriptor_is_left_the_file_is_made_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = open_writer(tmp_path)

    def none_left(descriptor: int, command: int, lowest: int) -> int:
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr(fcntl, "fcntl", none_left)
    write_rows(writer, 1)
    assert writer.trouble == "EMFILE" and list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    writer.paused_until_ns = 0
    write_rows(writer, 2)
    assert len(streams.rows(tmp_path, "numbers")) == 2
    assert [row["reason"] for row in streams.rows(tmp_path, "gaps")] == ["EMFILE"]


@pytest.fixture
def few_descriptors() -> Iterator[Callable[[int], None]]:
    """Sets the limit of open files, which is what it was at the end."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    folders.forget_limit()
    yield lambda limit: resource.setrlimit(resource.RLIMIT_NOFILE, (limit, before[1]))
    resource.setrlimit(resource.RLIMIT_NOFILE, before)
    folders.forget_limit()


def take_all_descriptors() -> list[int]:
    """Every number that is free."""
    taken = []
    while True:
        try:
            taken.append(os.dup(0))
        except OSError:
            return taken


def test_with_no_descriptor_left_a_new_segment_takes_the_number_of_the_one_before(
    tmp_path: Path, few_descriptors: Callable[[int], None]
) -> None:
    few_descriptors(256)
    writer = open_writer(tmp_path)
    write_rows(writer, 3)
    number = writer.stream(TABLE).descriptor
    taken = take_all_descriptors()
    try:
        writer.stream(TABLE).start_segment()
        write_rows(writer, 3)
        assert writer.stream(TABLE).descriptor == number and not writer.trouble
    finally:
        for descriptor in taken:
            os.close(descriptor)
    assert [row["n"] for row in streams.rows(tmp_path, "numbers")] == ["0", "1", "2"] * 2


def test_the_last_free_descriptors_are_the_servers(tmp_path: Path, few_descriptors: Callable[[int], None]) -> None:
    """In a soak a client was refused since a new segment had taken the descriptor of a connection that had ended."""
    few_descriptors(256)
    taken = take_all_descriptors()
    try:
        for descriptor in taken[:2]:
            os.close(descriptor)
        writer = open_writer(tmp_path)
        write_rows(writer, 3)
        assert writer.trouble == "EMFILE" and list(tmp_path.iterdir()) == []
        assert [os.dup(0), os.dup(0)] == taken[:2]
    finally:
        for descriptor in taken:
            os.close(descriptor)
    writer.paused_until_ns = 0
    write_rows(writer, 2)
    assert [row["rows"] for row in streams.rows(tmp_path, "gaps")] == ["3"]


def test_where_the_limit_is_lowered_meanwhile_none_is_taken_until_it_is_raised(
    tmp_path: Path, few_descriptors: Callable[[int], None]
) -> None:
    """Our number lies beyond the new limit, so that all below it are the server's."""
    few_descriptors(1024)
    writer = open_writer(tmp_path)
    write_rows(writer, 3)
    assert writer.stream(TABLE).descriptor >= 512
    few_descriptors(256)
    write_rows(writer, 3)
    assert not writer.trouble, "what is open goes on"
    writer.stream(TABLE).start_segment()
    write_rows(writer, 3)
    assert writer.trouble == "EMFILE"
    few_descriptors(1024)
    writer.paused_until_ns = 0
    write_rows(writer, 2)
    assert [row["rows"] for row in streams.rows(tmp_path, "gaps")] == ["3"]
    few_descriptors(256)
    writer.forget_files()
    writer.open(str(tmp_path / "child"), 1 << 30, 0)
    (tmp_path / "child").mkdir()
    write_rows(writer, 2)
    assert not writer.trouble, "a forked child has its own limit"


@pytest.mark.parametrize("limit", [8, 64, 1024, 1 << 20])
def test_however_few_descriptors_are_allowed_ours_is_far_from_the_standard_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda what: (limit, limit))
    folders.forget_limit()
    descriptor = folders.open_new(str(tmp_path / "new"))
    assert descriptor >= max(3, min(limit // 2, 512)) and not os.get_inheritable(descriptor)
    os.close(descriptor)
    folders.forget_limit()


def test_a_forked_child_closes_nobody_elses_file(tmp_path: Path) -> None:
    writer = open_writer(tmp_path)
    write_rows(writer, 1)
    number = writer.stream(TABLE).descriptor
    with (tmp_path / "theirs").open("wb") as theirs:
        os.dup2(theirs.fileno(), number)
        writer.forget_files()
        assert os.path.sameopenfile(number, theirs.fileno())
    os.close(number)


def test_files_that_somebody_removed_are_made_anew_and_their_rows_are_told(tmp_path: Path) -> None:
    writer = open_writer(tmp_path)
    write_rows(writer, 5)
    (tmp_path / "numbers.csv").unlink()
    writer._next_look_ns = 0
    write_rows(writer, 2)
    writer.flush()
    assert [row["n"] for row in streams.rows(tmp_path, "numbers")] == ["0", "1"]
    assert [(row["rows"], row["reason"]) for row in streams.rows(tmp_path, "gaps")] == [("5", "removed")]


def test_a_removed_folder_stops_recording_quietly(tmp_path: Path) -> None:
    folder = tmp_path / "process"
    folder.mkdir()
    writer = open_writer(folder)
    write_rows(writer, 5)
    shutil.rmtree(folder)
    writer._next_look_ns = 0
    write_rows(writer, 3)
    assert writer.trouble == "ENOENT" and not folder.exists()
    assert writer.paused_until_ns > time.monotonic_ns()


def test_a_segment_that_somebody_removed_is_no_trouble(tmp_path: Path) -> None:
    writer = open_writer(tmp_path, share=100_000)
    stream = writer.stream(TABLE)
    made = 0
    while len(stream.segments) < 2:
        stream.add((made, "some words"))
        made += 1
        writer.flush()
    os.unlink(stream.segments[0].path)
    for n in range(made, 20_000):
        stream.add((n, "some words"))
        writer.flush()
    assert writer.paused_until_ns == 0
    rows = [int(row["n"]) for row in streams.rows(tmp_path, "numbers")]
    dropped = sum(int(row["rows"]) for row in streams.rows(tmp_path, "gaps"))
    assert rows[-1] == 19_999 and len(rows) + dropped == 20_000


def test_a_kill_while_a_file_begins_leaves_none_without_a_header(tmp_path: Path) -> None:
    """SIGTERM and then SIGKILL between open(2) and write(2) left an empty kv_usage.csv once in twenty deaths on a slow disk."""
    child = os.fork()
    if child == 0:
        os.write = lambda descriptor, data: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment, return-value]
        write_rows(open_writer(tmp_path), 1)
        os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert [path.name for path in tmp_path.iterdir()] == [f"numbers.csv.{child}.new"]


def test_what_could_not_be_taken_back_is_not_in_the_way(tmp_path: Path) -> None:
    (tmp_path / f"numbers.csv.{os.getpid()}.new").write_text("half a hea")
    write_rows(open_writer(tmp_path), 2)
    assert [path.name for path in tmp_path.iterdir()] == ["numbers.csv"]
    assert len(streams.rows(tmp_path, "numbers")) == 2


def test_a_file_that_somebody_put_in_place_of_ours_is_not_replaced(tmp_path: Path) -> None:
    theirs = tmp_path / "numbers.csv"
    theirs.write_text("theirs")
    writer = open_writer(tmp_path)
    write_rows(writer, 2)
    assert writer.trouble == "EEXIST" and theirs.read_text() == "theirs"
    theirs.unlink()
    writer.paused_until_ns = 0
    write_rows(writer, 2)
    assert len(streams.rows(tmp_path, "numbers")) == 2
    assert [row["rows"] for row in streams.rows(tmp_path, "gaps")] == ["2"]
