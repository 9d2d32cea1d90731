"""A session is its user's alone, whatever writes into it; what a user asks for by name has the rights of any output."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import environment
import golden
import hostile_commands as commands
import pytest

DRIVER = environment.ROOT / "tests" / "driver" / "drive.py"
IN_THE_SESSION = ("export {session}", "summary {session}", "report {session}", "advise {session}", "compare {session} {other}",
                  "show {session}", "list {folder}", "prune {folder} --keep 0 --detail-only --yes")  # fmt: skip
BY_NAME = ("report {session} -o {out}/page.html", "compare {session} {other} --html {out}/compare.html",
           "plot {session} --what kv_usage -o {out}/kv.svg", "export {session} --output {out}/files",
           "export {session} --format prometheus --output {out}/samples.prom")  # fmt: skip


@pytest.fixture
def open_umask() -> Iterator[None]:
    """A umask that would leave everything open to all."""
    before = os.umask(0)
    yield
    os.umask(before)


def modes(folder: Path) -> dict[str, int]:
    """Rights of everything in a folder, itself included."""
    return {
        str(path.relative_to(folder.parent)): stat.S_IMODE(path.lstat().st_mode)
        for path in [folder, *folder.rglob("*")]
    }


def open_ones(session: Path) -> dict[str, str]:
    """What of a session others could read."""
    return {
        name: oct(mode)
        for name, mode in modes(session).items()
        if mode != (0o700 if (session.parent / name).is_dir() else 0o600)
    }


@pytest.mark.server
def test_a_recorded_session_is_private(tmp_path: Path, open_umask: None) -> None:
    """Of vLLM's own scheduler, then exported, and detail removed: folders 0700, files 0600."""
    directory = tmp_path / "new" / "sessions"
    done = subprocess.run(
        [sys.executable, str(DRIVER), "--requests", "40"],
        env={**environment.clean(), "PYTHONPATH": str(environment.ROOT), "PROFILEMATE_DIR": str(directory)},
        capture_output=True, text=True, timeout=environment.HANGS_SECONDS, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    [session] = directory.iterdir()
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert len(modes(session)) > 6 and open_ones(session) == {}
    other = golden.copy("server", tmp_path)
    for words in IN_THE_SESSION:
        command = commands.Command(words)
        assert commands.faults_of(command, commands.run(command.arguments(session, other, tmp_path))) == []
        assert open_ones(session) == {}, words


def private_copy(name: str, directory: Path) -> Path:
    """As it was recorded: git keeps no such rights."""
    session = golden.copy(name, directory)
    for path in [session, *session.rglob("*")]:
        path.chmod(0o700 if path.is_dir() else 0o600)
    return session


def test_a_merged_session_is_private(tmp_path: Path, open_umask: None) -> None:
    """Also where its streams had to be copied, and where ids in them were changed."""
    first, second = (private_copy(name, tmp_path) for name in ("server", "running"))
    golden.alive_in(second)
    command = commands.Command("merge {session} {other} --force -o {out}/all")
    outcome = commands.run(command.arguments(first, second, tmp_path))
    assert commands.faults_of(command, outcome) == [] and outcome.code == 0
    assert len(modes(tmp_path / "all")) > 10 and open_ones(tmp_path / "all") == {}


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_what_is_asked_for_by_name_has_the_rights_of_any_output(tmp_path: Path, mask: int) -> None:
    session, other = private_copy("server", tmp_path), golden.copy("two_engines", tmp_path)
    out = tmp_path / "out"
    out.mkdir()
    before = os.umask(mask)
    try:
        for words in BY_NAME:
            command = commands.Command(words)
            outcome = commands.run(command.arguments(session, other, out))
            assert commands.faults_of(command, outcome) == [] and outcome.code == 0
    finally:
        os.umask(before)
    found = modes(out)
    del found["out"]
    assert len(found) > 15
    assert {
        name: mode for name, mode in found.items() if mode != (0o777 if name == "out/files" else 0o666) & ~mask
    } == {}
    assert open_ones(session) == {}


def test_a_device_that_is_named_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    """As root could replace /dev/null by a page."""
    session = golden.copy("empty", tmp_path)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    outcome = commands.run(["export", str(session), "--format", "prometheus", "--output", str(pipe)])
    assert outcome.code == 0 and not outcome.error
    assert stat.S_ISFIFO(pipe.lstat().st_mode)
    os.close(reader)


def test_a_report_takes_the_place_of_a_link_and_leaves_what_it_leads_to(tmp_path: Path) -> None:
    session = private_copy("empty", tmp_path)
    (tmp_path / "theirs").write_text("kept")
    (session / "report.html").symlink_to(tmp_path / "theirs")
    assert commands.run(["report", str(session)]).code == 0
    assert (tmp_path / "theirs").read_text() == "kept"
    assert not (session / "report.html").is_symlink() and open_ones(session) == {}
