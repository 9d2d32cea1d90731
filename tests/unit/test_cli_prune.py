"""`profilemate prune`: only what was asked for goes, only what ProfileMate wrote, and nothing through a link."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
import time
from pathlib import Path
from typing import Any

import golden
import pytest
from sample_rows import add_server
from session_builder import SECOND, SessionBuilder

from profilemate.cli.main import main
from profilemate.export import readme_files
from profilemate.session.errors import SessionError
from profilemate.session.session import Session
from profilemate.sessions import removal
from profilemate.sessions.inventory import entries_in
from profilemate.sessions.removal import remove_session

DAY = 86_400


def make(folder: Path, number: int, age_days: float, host: str = "", **record: Any) -> Path:
    """A session that began so many days ago on this host, in an earlier boot, and was touched then for the last time."""
    begun_ns = round((time.time() - age_days * DAY) * SECOND)
    session = SessionBuilder(folder, f"session_2025010{number}_120000", **{"created_wall_ns": begun_ns, **record})
    add_server(session)
    for path in session.path.glob("processes/*/process.json"):
        path.write_text(json.dumps({**json.loads(path.read_text()), "host": host or socket.gethostname()}))
    touch(session.path, age_days)
    return session.path


def touch(path: Path, age_days: float) -> None:
    """As if nothing below had changed for so many days."""
    moment = time.time() - age_days * DAY
    for found in path.rglob("*"):
        os.utime(found, (moment, moment), follow_symlinks=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four sessions: 1, 3, 8 and 30 days old; number 1 is the oldest."""
    for number, age_days in ((1, 30), (2, 8), (3, 3), (4, 1)):
        make(tmp_path / "sessions", number, age_days)
    return tmp_path / "sessions"


def numbers(folder: Path) -> list[int]:
    """Which of them are there."""
    return sorted(int(path.name[15]) for path in folder.glob("session_2025*"))


def prune(folder: Path, *options: str) -> int:
    return main(["prune", str(folder), *options])


@pytest.mark.parametrize(
    ("options", "left"),
    [
        (["--older-than", "7d"], [3, 4]),
        (["--keep", "3"], [2, 3, 4]),
        (["--keep", "0"], []),
        (["--older-than", "2d", "--keep", "2"], [3, 4]),
        (["--larger-than", "1G"], [1, 2, 3, 4]),
        (["--larger-than", "100"], []),
        (["--older-than", "7d", "--larger-than", "1G"], [1, 2, 3, 4]),
        (["--to-size", "0"], []),
        (["--to-size", "1G"], [1, 2, 3, 4]),
    ],
)
def test_what_every_rule_lets_go_goes(options: list[str], left: list[int], folder: Path) -> None:
    assert prune(folder, *options) == 0
    assert numbers(folder) == [1, 2, 3, 4]
    assert prune(folder, *options, "--yes") == 0
    assert numbers(folder) == left


def test_to_a_size_the_oldest_go_and_no_more_than_needed(folder: Path) -> None:
    size = entries_in(folder)[0].size_bytes
    assert prune(folder, "--to-size", str(2 * size + 100), "--yes") == 0
    assert numbers(folder) == [3, 4]


def test_without_yes_nothing_changes_and_the_size_is_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert prune(folder, "--older-than", "7d") == 0
    assert "would remove 2 sessions" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


@pytest.mark.parametrize("options", [[], ["--yes"], ["--keep", "-1"], ["--older-than", "soon"], ["--to-size", "big"]])
def test_bad_input_is_refused(options: list[str], folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = prune(folder, *options)
    except SystemExit as error:  # argparse
        code = int(str(error.code))
    assert code == 2
    assert "Traceback" not in capsys.readouterr().err
    assert numbers(folder) == [1, 2, 3, 4]


def test_a_running_session_stays(folder: Path) -> None:
    running = make(folder, 5, 90)
    golden.alive_in(running)
    assert prune(folder, "--keep", "0", "--yes") == 0
    assert numbers(folder) == [5]
    assert (running / "session.json").exists()


def test_one_that_began_to_run_since_it_was_chosen_stays(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from profilemate.cli import prune as command

    real = command.choose

    def choose_and_start(*arguments: Any) -> Any:
        chosen = real(*arguments)
        golden.alive_in(folder / "session_20250101_120000")
        return chosen

    monkeypatch.setattr(command, "choose", choose_and_start)
    assert prune(folder, "--keep", "0", "--yes") == 1
    assert numbers(folder) == [1]
    assert "it is running" in capsys.readouterr().out


def test_one_on_another_host_stays_unless_asked_for_and_while_it_is_written(folder: Path) -> None:
    path = make(folder, 5, 90, host="another")
    assert prune(folder, "--keep", "0", "--yes") == 0
    assert numbers(folder) == [5]
    os.utime(next(path.glob("processes/*/engine_steps.csv")))
    assert prune(folder, "--keep", "0", "--unknown-too", "--yes") == 0
    assert numbers(folder) == [5]
    touch(path, 90)
    assert prune(folder, "--keep", "0", "--unknown-too", "--yes") == 0
    assert numbers(folder) == []


def test_without_rich_nothing_is_removed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rich.console", None)
    assert prune(folder, "--keep", "0", "--yes") == 2
    assert numbers(folder) == [1, 2, 3, 4]


def test_what_is_no_session_stays(folder: Path) -> None:
    for name in ("processes", "session_20240101_120000/other"):
        (folder / "notes" / name).mkdir(parents=True, exist_ok=True)
    (folder / "backup" / "processes").mkdir(parents=True)
    (folder / "backup" / "session.json").write_text('{"mine": true}')
    (folder / "session_20240101_120000").mkdir()
    assert prune(folder, "--keep", "0", "--yes") == 0
    assert {path.name for path in folder.iterdir()} == {"notes", "backup", "session_20240101_120000"}
    assert (folder / "backup" / "session.json").exists()


def test_a_link_to_a_session_is_not_followed(folder: Path, tmp_path: Path) -> None:
    other = make(tmp_path / "other", 9, 90)
    (folder / "session_20250109_120000").symlink_to(other)
    assert prune(folder, "--keep", "0", "--yes") == 0
    assert (other / "session.json").exists()
    assert (folder / "session_20250109_120000").is_symlink()


def test_all_that_profilemate_writes_goes(tmp_path: Path) -> None:
    """Exported files, a report, a user's table and its export, half-written records, older segments, the trimmed mark."""
    path = golden.copy("script_names", tmp_path, "session_20250101_120000")
    readme_files.write(Session(path))
    assert (path / "my_tracker.csv").exists()
    (path / "report.html").write_text("x")
    (path / "detail_removed.json").write_text("{}")
    (path / ".metadata.json.123.new").write_text("x")
    process = next(path.glob("processes/Worker*"))
    (process / "process.json.77.new").write_text("{")
    (process / "my_tracker.csv.77.new").write_text("")
    (process / "forward_passes.3.csv").write_text("time_ns\n1\n")
    removed = remove_session(path)
    assert removed.left == []
    assert not path.exists()


def test_foreign_files_stay_and_are_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder / "session_20250101_120000"
    process = next(path.glob("processes/Worker*"))
    (path / "notes.md").write_text("mine")
    (process / "trace.json").write_text("mine")
    (process / "mine.csv").write_text("a,b\n1,2\n")
    (process / "graph_captures.1.csv").symlink_to(path / "notes.md")
    (path / "processes" / "linked").symlink_to(folder / "session_20250102_120000")
    touch(path, 30)
    assert prune(folder, "--older-than", "20d", "--yes") == 1
    out = capsys.readouterr().out
    assert all(
        name in out for name in ("notes.md", "trace.json", "mine.csv", "graph_captures.1.csv", "processes/linked")
    )
    left = {str(found.relative_to(path)) for found in path.rglob("*") if found.is_symlink() or found.is_file()}
    inner = f"processes/{process.name}"
    assert left == {
        "notes.md", f"{inner}/trace.json", f"{inner}/mine.csv", f"{inner}/graph_captures.1.csv", "processes/linked",
    }  # fmt: skip
    assert (folder / "session_20250102_120000" / "session.json").exists()


def test_a_session_swapped_for_a_link_is_not_entered(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at it and the removal, somebody puts a link to another folder in its place."""
    victim = make(tmp_path / "victim", 9, 1)
    path = folder / "session_20250101_120000"
    real = removal._users_files

    def swap(looked_at: Path) -> frozenset[str]:
        path.rename(tmp_path / "away")
        path.symlink_to(victim)
        return real(looked_at)

    monkeypatch.setattr(removal, "_users_files", swap)
    with pytest.raises(SessionError, match="not a folder any more"):
        remove_session(path)
    assert (victim / "session.json").exists()


def test_a_session_swapped_for_another_folder_is_not_removed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim = make(tmp_path / "victim", 9, 1)
    path = folder / "session_20250101_120000"

    def swap(looked_at: Path) -> frozenset[str]:
        path.rename(tmp_path / "away")
        shutil.copytree(victim, path)
        return frozenset()

    monkeypatch.setattr(removal, "_users_files", swap)
    with pytest.raises(SessionError, match="another folder"):
        remove_session(path)
    assert (path / "session.json").exists()


def test_processes_swapped_for_a_link_while_it_is_removed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim = make(tmp_path / "victim", 9, 1)
    path = folder / "session_20250101_120000"
    real = removal._remove_processes

    def swap(session: int, removed: Any) -> None:
        (path / "processes").rename(tmp_path / "away")
        (path / "processes").symlink_to(victim / "processes")
        real(session, removed)

    monkeypatch.setattr(removal, "_remove_processes", swap)
    removed = remove_session(path)
    assert any(left.startswith("processes") for left in removed.left)
    assert len(list(victim.glob("processes/*/*.csv"))) > 3


def test_detail_only_keeps_files_and_totals(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder / "session_20250101_120000"
    assert prune(folder, "--older-than", "20d", "--detail-only", "--yes") == 0
    assert numbers(folder) == [1, 2, 3, 4]
    assert list(path.glob("processes/*/engine_steps.csv")) == []
    assert len((path / "kv_cache_evictions.csv").read_text().splitlines()) == 3
    assert main(["summary", str(path)]) == 0
    assert "evictions 2" in capsys.readouterr().out
    assert prune(folder, "--older-than", "20d", "--detail-only") == 0
    assert "nothing to remove" in capsys.readouterr().out


def test_an_older_format_may_be_removed_but_not_trimmed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = golden.copy("old_format", tmp_path, "session_20250101_120000")
    touch(path, 40)
    assert prune(tmp_path, "--keep", "0", "--detail-only", "--yes") == 1
    assert "has format 1" in capsys.readouterr().out
    assert list(path.glob("processes/*/engine_steps.csv"))
    assert prune(tmp_path, "--keep", "0", "--yes") == 0
    assert not path.exists()


def test_json_says_what_went_and_why_the_others_stay(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    golden.alive_in(folder / "session_20250101_120000")
    assert prune(folder, "--older-than", "7d", "--json", "--yes") == 0
    found = {one["name"][8:16]: one for one in json.loads(capsys.readouterr().out)}
    assert found["20250101"]["reason"] == "it is running"
    assert [found[f"2025010{n}"]["removed"] for n in (1, 2, 3, 4)] == [None, True, None, None]
    assert found["20250102"]["removed_bytes"] == found["20250102"]["size_bytes"]
