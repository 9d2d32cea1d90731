"""benchmarks/read_speed: all readers answer alike, and an answer that differs is an error."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import environment
import pytest

import profilemate
from profilemate.session.session import Session
from profilemate.trackers.engine_steps import events as engine_steps
from profilemate.trackers.kv_cache import events as kv

FOLDER = environment.ROOT / "benchmarks" / "read_speed"
READERS = ["profilemate.open", "pandas.read_csv, usecols", "pandas.read_csv", "DuckDB read_csv", "pure Python"]


def run(*arguments: str) -> str:
    """Run it from elsewhere; its standard output."""
    done = subprocess.run(
        [sys.executable, str(FOLDER), *arguments],
        cwd="/",
        env=environment.clean(),
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_all_readers_are_measured_and_answer_alike(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    shown = run(
        "--rows", "3000", "--slow-rows", "3000", "--repeats", "1", "--json", str(file), "--folder", str(tmp_path)
    )
    results = json.loads(file.read_text())["results"]
    expected = [(table, reader, 3000) for table in ("engine_steps", "kv_evictions") for reader in READERS]
    assert [(one["table"], one["reader"], one["rows"]) for one in results] == expected
    for one in results:
        assert one["rows_per_second"] == pytest.approx(3000 / one["seconds"]) and one["file_bytes"] > 100_000
        assert 15 << 20 < one["peak_bytes"] < 2 << 30
        assert f"| {one['table']} | 3,000 |" in shown and one["reader"] in shown
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"], "the files are removed"


def test_the_sessions_are_whole(tmp_path: Path) -> None:
    for table in ("engine_steps", "kv_evictions"):
        run("--make", str(tmp_path / table), table, "2500")
        opened = profilemate.open(tmp_path / table)
        assert opened.table(table).height == 2500
        assert not [said for said in opened.missing() if table in said]
    steps = Session(tmp_path / "engine_steps")
    for tracker in (engine_steps.STEPS, kv.STEPS):
        assert sum(1 for _ in steps.rows(steps.processes[0], tracker)) == 2500


def test_rows_come_again_in_a_long_session(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(FOLDER.parent))
    from read_speed import make_session

    monkeypatch.setattr(make_session, "DISTINCT_ROWS", 100)
    make_session.make(tmp_path, "kv_evictions", 350)
    blocks = profilemate.open(tmp_path).table("kv_evictions")["time_ns"].to_list()
    assert len(set(blocks[:100])) == 100 and blocks == 3 * blocks[:100] + blocks[:50]


def test_an_answer_that_differs_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER.parent))
    from read_speed.cli import _check

    def answers(last: float) -> dict[str, list[dict[str, Any]]]:
        return {"profilemate.open": [{"answer": {"a": [5.0, 1.0]}}], "other": [{"answer": {"a": [5.0, last]}}]}

    _check(answers(1.0), 5)
    with pytest.raises(SystemExit, match="other gives another answer"):
        _check(answers(1.1), 5)
