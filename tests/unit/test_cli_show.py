"""`profilemate show`: processes, hooks, tables, gaps and damage of one session; rows of a table as CSV."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import golden
import pytest
import streams
from sample_rows import add_server
from session_builder import SessionBuilder

from profilemate.cli.main import main
from profilemate.trackers.kv_cache import events as kv


def shown(session: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """`profilemate show --json`."""
    assert main(["show", str(session), "--json"]) == 0
    return dict(json.loads(capsys.readouterr().out))


@pytest.mark.parametrize("name", ["server", "two_engines", "everything", "cap_reached", "killed", "hybrid_cache"])
def test_rows_and_sizes_are_those_of_the_files(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    session = golden.SESSIONS / name
    found = {(one["process"], one["table"]): one for one in shown(session, capsys)["tables"]}
    expected = {}
    for path in session.glob("processes/*/*.csv"):
        table = path.name.split(".")[0]
        expected[path.parent.name, table] = len(streams.rows(path.parent, table))
    assert {key: one["rows"] for key, one in found.items()} == expected
    sizes = sum(path.stat().st_size for path in session.glob("processes/*/*.csv"))
    assert sum(one["size_bytes"] for one in found.values()) == sizes


def test_first_and_last_times_are_seconds_since_the_session_began(capsys: pytest.CaptureFixture[str]) -> None:
    session = golden.SESSIONS / "server"
    begun = json.loads((session / "session.json").read_text())["created_monotonic_ns"]
    for one in shown(session, capsys)["tables"]:
        rows = streams.rows(session / "processes" / one["process"], one["table"])
        assert one["first_sec"] == (int(rows[0]["time_ns"]) - begun) / 1e9
        assert one["last_sec"] == (int(rows[-1]["time_ns"]) - begun) / 1e9


def test_processes_with_ranks_state_versions_and_hooks(capsys: pytest.CaptureFixture[str]) -> None:
    session = golden.SESSIONS / "two_engines"
    processes = {one["role"]: one for one in shown(session, capsys)["processes"]}
    assert list(processes) == ["APIServer", "EngineCore_DP0", "EngineCore_DP1", "Worker_DP0", "Worker_DP1"]
    for path in streams.processes(session):
        record = streams.record(path)
        one = processes[record["role"]]
        assert (one["pid"], one["host"], one["ranks"]) == (record["pid"], record["host"], record["ranks"])
        assert one["versions"]["vllm"] == record["vllm"]
        assert one["hooks"] == {"put_in": len(record["hooks"])}
        assert one["state"] == "gone"


def test_a_process_that_lives_and_one_that_ended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    session = golden.alive_in(golden.copy("running", tmp_path))
    assert {one["state"] for one in shown(session, capsys)["processes"]} == {"running"}
    states = {one["role"]: one["state"] for one in shown(golden.SESSIONS / "server", capsys)["processes"]}
    assert states["APIServer"] == "ended"


def test_lost_rows_are_told_by_table(capsys: pytest.CaptureFixture[str]) -> None:
    session = golden.SESSIONS / "cap_reached"
    lost: dict[str, int] = {}
    for row in streams.all_rows(session, "gaps"):
        lost[row["table"]] = lost.get(row["table"], 0) + int(row["rows"])
    assert len(lost) > 2
    found = shown(session, capsys)
    assert {one["table"]: one["lost_rows"] for one in found["tables"] if one["lost_rows"]} == lost
    assert main(["show", str(session)]) == 0
    out = capsys.readouterr().out
    assert all(f"rows missing: {rows:,} of {table} (size_cap)" in out for table, rows in lost.items())


def test_damage_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    faults = {
        (one["where"].rpartition("/")[2], one["what"]) for one in shown(golden.SESSIONS / "damaged", capsys)["faults"]
    }
    assert ("health.csv", "not a plain file, left out") in faults
    assert ("forward_passes.csv", "last row torn, left out") in faults
    assert ("kv_evictions.csv", "the header is not that of this table") in faults
    assert any(name == "process.json" and what.startswith("cannot be read") for name, what in faults)


def test_hooks_that_did_not_do_their_work_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(golden.SESSIONS / "hooks_off")]) == 0
    out = capsys.readouterr().out
    assert "hook did not fit: scheduler.update_from_output (has no parameter 'blocks')" in out
    assert "hook failed 5 times, switched_off: scheduler.schedule" in out


@pytest.mark.parametrize("width", [40, 60, 80, 120])
@pytest.mark.parametrize("name", sorted(path.name for path in golden.SESSIONS.iterdir() if path.name != "old_format"))
def test_every_golden_session_is_shown_in_any_terminal(
    name: str, width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    assert main(["show", str(golden.SESSIONS / name)]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert f"Files: {golden.SESSIONS / name}" in out
    grids = [block for block in out.split("\n\n") if block.startswith(("process ", "table "))]
    assert all(len(line) <= width for block in grids for line in block.splitlines())


def rows_of(session: Path, capsys: pytest.CaptureFixture[str], *options: str) -> list[dict[str, str]]:
    """`profilemate show --table`."""
    assert main(["show", str(session), "--table", *options]) == 0
    return list(csv.DictReader(io.StringIO(capsys.readouterr().out)))


def test_a_table_as_csv_over_all_processes(capsys: pytest.CaptureFixture[str]) -> None:
    session = golden.SESSIONS / "two_engines"
    expected = [
        {"process": path.name, **row}
        for path in streams.processes(session, "Worker")
        for row in streams.rows(path, "forward_passes")
    ]
    assert rows_of(session, capsys, "forward_passes", "--head", "0") == expected
    assert rows_of(session, capsys, "forward_passes") == expected[:20]
    assert rows_of(session, capsys, "forward_passes", "--head", "3") == expected[:3]


def test_processes_with_other_columns_share_one_header(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    session = SessionBuilder(tmp_path)
    session.process("Worker").raw("mine.csv", b"time_ns,a\n1,2\n")
    session.process("Worker").raw("mine.csv", b"time_ns,b,a\n3,4,5\n").raw("mine.1.csv", b"time_ns,a\n6,7\n8\n")
    rows = rows_of(session.path, capsys, "mine")
    assert [(row["time_ns"], row["a"], row["b"]) for row in rows] == [("1", "2", ""), ("6", "7", ""), ("3", "5", "4")]


def test_torn_rows_are_not_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    session = SessionBuilder(tmp_path)
    session.process("EngineCore").rows(kv.USAGE, {"time_ns": 5, "kind": "peak"}, tail="6,0,in")
    assert [row["time_ns"] for row in rows_of(session.path, capsys, "kv_usage")] == ["5"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--table", "nothing"], "has no table 'nothing'; there are "),
        (["--table", "../session"], "has no table '../session'"),
        (["--head", "3"], "--head is about the rows of --table NAME"),
    ],
)
def test_bad_input_is_a_sentence(
    options: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    session = SessionBuilder(tmp_path)
    add_server(session)
    assert main(["show", str(session.path), *options]) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert len(error.splitlines()) == 1


def test_an_older_format_and_no_session_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(golden.SESSIONS / "old_format")]) == 2
    assert "format 1" in capsys.readouterr().err
    assert main(["show", str(tmp_path)]) == 2
    assert "there is no session in" in capsys.readouterr().err
