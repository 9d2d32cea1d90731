"""Golden sessions of odd worlds: each command says what is missing of each and counts the rest right, without a traceback."""

from __future__ import annotations

import csv
import filecmp
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import environment
import golden
import pytest

from profilemate.cli.main import main
from profilemate.schema import names

GOLDEN = environment.ROOT / "tests" / "golden"
SESSIONS = GOLDEN / "sessions"
EXPECTED: dict[str, dict[str, Any]] = json.loads((GOLDEN / "expected.json").read_text())
"""By session: `numbers` of the summary worked out from the rows by hand, `rows` of the README's files, `says`, `says_not`."""

REFUSED = ("old_format", "trimmed")
READABLE = [name for name in EXPECTED if name not in REFUSED]
MOST_BYTES = 1_500_000


@pytest.fixture
def session(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of a golden session."""
    return Path(shutil.copytree(SESSIONS / request.param, tmp_path / request.param))


def at(record: Mapping[str, Any], path: str) -> Any:
    """A number by its dotted name."""
    found: Any = record
    for part in path.split("."):
        found = found[int(part)] if isinstance(found, list) else found[part]
    return found


def summary(path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[dict[str, Any], str]:
    """`profilemate summary`, as JSON and as text."""
    assert main(["summary", str(path), "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert main(["summary", str(path)]) == 0
    return record, capsys.readouterr().out


def test_every_golden_session_is_expected() -> None:
    assert {path.name for path in SESSIONS.iterdir()} == set(EXPECTED)
    assert {name for name in EXPECTED if f"`{name}`" not in (GOLDEN / "README.md").read_text()} == set()


@pytest.mark.parametrize("session", READABLE, indirect=True)
def test_the_summary_counts_what_was_counted_by_hand(session: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record, said = summary(session, capsys)
    assert "metadata.json holds something else" not in said, "a part of the text could not be made"
    wanted = EXPECTED[session.name]["numbers"]
    assert {path: at(record["summary"], path) for path in wanted} == wanted


@pytest.mark.parametrize("session", READABLE, indirect=True)
def test_it_says_what_is_missing(session: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, text = summary(session, capsys)
    expected = EXPECTED[session.name]
    assert [sentence for sentence in expected["says"] if sentence not in text] == []
    assert [sentence for sentence in expected.get("says_not", []) if sentence in text] == []
    assert "\x1b" not in text


@pytest.mark.parametrize("session", READABLE, indirect=True)
def test_every_file_is_written_and_every_row_is_whole(session: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(session)]) == 0
    assert capsys.readouterr().out == f"{session}\n"
    rows = EXPECTED[session.name]["rows"]
    metadata = json.loads((session / names.METADATA_FILE).read_text())
    assert {name: metadata["files"][name] for name in rows} == rows
    for name, count in metadata["files"].items():
        with (session / name).open(newline="") as file:
            header, *found = csv.reader(file)
        assert len(found) == count, name
        assert {len(row) for row in found} <= {len(header)}, name
    assert main(["export", str(session), "--format", "prometheus"]) == 0


def test_an_older_format_is_refused_with_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = shutil.copytree(SESSIONS / "old_format", tmp_path / "old_format")
    for command in (["export"], ["summary"], ["summary", "--json"]):
        assert main([command[0], str(path), *command[1:]]) == 2
        told = capsys.readouterr()
        assert told.out == ""
        assert told.err == (
            "profilemate: old_format/session.json has format 1, this ProfileMate reads format 2: use the one that wrote it\n"
        )
    assert sorted(path.iterdir()) == [path / "processes", path / "session.json"]


def test_a_trimmed_session_keeps_its_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = Path(shutil.copytree(SESSIONS / "trimmed", tmp_path / "trimmed"))
    before = {file.name: file.read_bytes() for file in path.iterdir() if file.is_file()}
    assert main(["export", str(path)]) == 2
    assert "its detail was removed" in capsys.readouterr().err
    record, _ = summary(path, capsys)
    wanted = EXPECTED["trimmed"]["numbers"]
    assert {name: at(record["summary"], name) for name in wanted} == wanted
    assert wanted == EXPECTED["server"]["numbers"]
    assert {file.name: file.read_bytes() for file in path.iterdir() if file.is_file()} == before


def test_a_session_that_runs_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = golden.alive_in(golden.copy("running", tmp_path))
    record, text = summary(path, capsys)
    assert "Still running: APIServer, EngineCore, Worker; the numbers are so far" in text
    wanted = EXPECTED["running"]["numbers"]
    assert {name: at(record["summary"], name) for name in wanted} == wanted


@pytest.mark.parametrize("name", ["no_session_json", "clock_step", "old_columns"])
def test_counts_do_not_depend_on_what_is_missing(name: str) -> None:
    """These hold all rows of the session that they were made from."""
    whole, odd = EXPECTED["server"]["numbers"], EXPECTED[name]["numbers"]
    assert {key: odd[key] for key in odd if key in whole} == {key: whole[key] for key in odd if key in whole}
    assert len(set(odd) & set(whole)) > 10


def test_the_commands_survive_as_processes_of_their_own(tmp_path: Path) -> None:
    """The damaged one through the real command line: exit code and standard error."""
    path = shutil.copytree(SESSIONS / "damaged", tmp_path / "damaged")
    for command in ("export", "summary"):
        done = subprocess.run(
            [sys.executable, "-m", "profilemate", command, str(path)],
            cwd=environment.ROOT, env=environment.clean(), capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")


def test_the_golden_sessions_are_small_and_name_no_folder_of_the_machine_that_made_them() -> None:
    files = [path for path in SESSIONS.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < MOST_BYTES
    ours = [b"/work/", b"/root/", b"/home/", os.fsencode(environment.ROOT)]
    assert [path for path in files if any(word in path.read_bytes() for word in ours)] == []


def test_the_odd_ones_are_what_the_script_makes_of_the_real_ones(tmp_path: Path) -> None:
    sys.path.insert(0, str(GOLDEN))
    try:
        import make_sessions
    finally:
        sys.path.remove(str(GOLDEN))
    for name in make_sessions.DERIVED:
        if name not in make_sessions.FROZEN:
            make_sessions.derive(name, tmp_path / name)
            assert differences(SESSIONS / name, tmp_path / name) == [], name


def differences(one: Path, other: Path) -> list[str]:
    """Files that are not the same in two folders."""
    both = {path.relative_to(folder) for folder in (one, other) for path in folder.rglob("*") if path.is_file()}
    return [
        str(name)
        for name in sorted(both)
        if not ((one / name).is_file() and (other / name).is_file() and filecmp.cmp(one / name, other / name, False))
    ]
