"""`profilemate list`: which sessions there are, how each stands, and a table that fits."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import golden
import pytest
from sample_rows import add_server
from session_builder import SECOND, SessionBuilder, at

from profilemate.cli.main import main
from profilemate.session.alive import boot_id, pid_namespace
from profilemate.sessions.grid import Column, fitting
from profilemate.sessions.requests_ended import MOST_BYTES
from profilemate.sessions.words import age_text, bytes_text, seconds_of, size_of, span_text
from profilemate.trackers.requests import events as requests

HERE = {"host": socket.gethostname(), "boot_id": boot_id()}


def listed(folder: Path, capsys: pytest.CaptureFixture[str], *options: str) -> list[dict[str, Any]]:
    """`profilemate list --json`."""
    assert main(["list", str(folder), "--json", *options]) == 0
    return list(json.loads(capsys.readouterr().out))


def front_end(session: SessionBuilder, role: str = "APIServer", **record: Any) -> None:
    """A front end of this host with one row, whose process is gone."""
    session.process(role, **{**HERE, "ended_ns": None, **record}).rows(
        requests.ENDS, {"time_ns": at(5), "request": "a", "end_ns": at(5)}
    )


@pytest.mark.parametrize(
    ("record", "state"),
    [
        ({"ended_ns": at(6)}, "ended"),
        ({"ended_ns": None}, "killed"),
        ({"ended_ns": None, "boot_id": "an earlier boot"}, "killed"),
        ({"ended_ns": None, "host": "another"}, "unknown"),
        ({"ended_ns": at(6), "host": "another"}, "ended"),
    ],
)
def test_how_a_session_stands(
    record: dict[str, Any], state: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    front_end(SessionBuilder(tmp_path, **HERE, pid_namespace=pid_namespace()), **record)
    [found] = listed(tmp_path, capsys)
    assert found["state"] == state


def test_an_older_profilemate_does_not_tell_how_it_ended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    session = SessionBuilder(tmp_path, **HERE)
    front_end(session)
    path = next(session.path.glob("processes/*/process.json"))
    path.write_text(
        json.dumps({key: value for key, value in json.loads(path.read_text()).items() if key != "ended_ns"})
    )
    assert listed(tmp_path, capsys)[0]["state"] == "over"


def test_engines_alone_do_not_tell_how_the_server_ended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """vLLM kills its engines itself, so that a missing end says nothing."""
    front_end(SessionBuilder(tmp_path, **HERE), "EngineCore")
    assert listed(tmp_path, capsys)[0]["state"] == "over"


def test_a_session_in_another_container_of_this_host_may_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    front_end(SessionBuilder(tmp_path, **HERE, pid_namespace="pid:[1]"))
    assert listed(tmp_path, capsys)[0]["state"] == "unknown"


def test_a_live_process_makes_it_running(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    golden.alive_in(golden.copy("running", tmp_path))
    [found] = listed(tmp_path, capsys)
    assert (found["state"], found["name"]) == ("running", "running")


def test_a_session_whose_starter_lives_runs_before_any_process_of_it_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    golden.alive_in(golden.copy("nothing_yet", tmp_path))
    assert listed(tmp_path, capsys)[0]["state"] == "running"


def test_states_of_the_golden_sessions(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """On the host that recorded them, long after."""
    for module in ("profilemate.sessions.state", "profilemate.session.alive"):
        monkeypatch.setattr(f"{module}.socket.gethostname", lambda: "vm")
    recorded = json.loads((golden.SESSIONS / "server" / "session.json").read_text())
    monkeypatch.setattr("profilemate.sessions.state.pid_namespace", lambda: recorded["pid_namespace"])
    found = {one["name"]: (one["state"], one["trimmed"]) for one in listed(golden.SESSIONS, capsys)}
    expected = dict.fromkeys(found, ("ended", False)) | {
        "empty": ("empty", False),
        "nothing_yet": ("empty", False),
        "killed": ("killed", False),
        "running": ("killed", False),
        "old_columns": ("over", False),
        "two_engines": ("over", False),
        "cap_reached": ("over", False),
        "script_names": ("ended", False),
        "trimmed": ("ended", True),
    }
    assert found == expected


def test_counts_size_and_duration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    session = SessionBuilder(tmp_path, **{"host": "elsewhere"})
    add_server(session)
    rows = [{"time_ns": at(4 + n), "request": f"{n}", "end_ns": at(4 + n)} for n in range(3)]
    session.process("APIServer", engine_config={"model": "org/a model"}).rows(requests.ENDS, *rows)
    [found] = listed(tmp_path, capsys)
    size = sum(path.stat().st_size for path in session.path.rglob("*") if path.is_file())
    assert found["size_bytes"] == size
    assert (found["requests"], found["requests_are_exact"], found["engine_steps"]) == (3, True, 2)
    assert found["duration_sec"] == 6.0
    assert found["begun_unix_sec"] == 1_764_000_000.0


def test_requests_of_a_capped_session_include_those_whose_rows_are_gone(capsys: pytest.CaptureFixture[str]) -> None:
    found = {one["name"]: one for one in listed(golden.SESSIONS, capsys)}["cap_reached"]
    rows = sum(
        len(path.read_text().splitlines()) - 1
        for path in golden.SESSIONS.glob("cap_reached/processes/*/request_ends*.csv")
    )
    assert found["requests"] > rows
    assert (found["requests"], found["requests_are_exact"]) == (210, True)


def test_many_requests_are_estimated_and_said_to_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    session = SessionBuilder(tmp_path)
    row = f"{at(5)},0123456789abcdef,stop,True,{at(5)},1,1,1,1,1,1,1,1,1,0\n"
    count = MOST_BYTES // len(row) + 50_000
    session.process("APIServer").raw("request_ends.csv", (requests.ENDS.header + row * count).encode())
    [found] = listed(tmp_path, capsys)
    assert found["requests_are_exact"] is False
    assert found["requests"] == pytest.approx(count, rel=0.01)
    assert main(["list", str(tmp_path)]) == 0
    assert f"~{found['requests']:,}" in capsys.readouterr().out


def test_newest_first_and_only_the_last(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(5):
        SessionBuilder(tmp_path, f"session_2025112{number}_160000", created_wall_ns=SECOND * (1_764_000_000 + number))
    assert [one["name"] for one in listed(tmp_path, capsys)] == [f"session_2025112{n}_160000" for n in (4, 3, 2, 1, 0)]
    assert len(listed(tmp_path, capsys, "--last", "2")) == 2
    assert main(["list", str(tmp_path), "--last", "2"]) == 0
    assert "the newest 2 are shown" in capsys.readouterr().out


def test_links_and_other_folders_are_no_sessions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    SessionBuilder(tmp_path / "elsewhere")
    (tmp_path / "here" / "notes").mkdir(parents=True)
    (tmp_path / "here" / "session_20250101_120000").symlink_to(tmp_path / "elsewhere" / "session_20251124_160000")
    assert listed(tmp_path / "here", capsys) == []
    assert main(["list", str(tmp_path / "here")]) == 0
    assert "there is no session in" in capsys.readouterr().out


@pytest.mark.parametrize("wanted", ["missing", "file", "session_20251124_160000"])
def test_bad_input_is_a_sentence(wanted: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    SessionBuilder(tmp_path)
    assert main(["list", str(tmp_path / wanted)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("profilemate: ")
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize("width", [20, 40, 60, 80, 120, 200])
def test_the_table_fits_the_terminal(
    width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    assert main(["list", str(golden.SESSIONS)]) == 0
    table, _, rest = capsys.readouterr().out.partition("\n\n")
    assert max(map(len, table.splitlines())) <= width
    header = table.splitlines()[0].split()
    left_out = {title for title in ("begun", "age", "model", "requests", "steps") if title not in header}
    assert all(title in rest for title in left_out)
    if width >= 60:
        assert "two_engines" in table


def test_columns_of_least_use_go_first() -> None:
    columns = [Column("name"), Column("seldom", rank=9), Column("often", rank=1), Column("text", rank=2, least=4)]
    rows = [["a" * 10, "b" * 10, "c" * 10, "d" * 30]]
    assert fitting(columns, rows, 100) == {0: 10, 1: 10, 2: 10, 3: 30}
    assert fitting(columns, rows, 50) == {0: 10, 1: 10, 2: 10, 3: 14}
    assert fitting(columns, rows, 30) == {0: 10, 2: 10, 3: 6}
    assert fitting(columns, rows, 25) == {0: 10, 2: 10}
    assert fitting(columns, rows, 8) == {0: 8}


def test_control_characters_of_a_folder_do_not_reach_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    SessionBuilder(tmp_path, "session_\x1b[31mred")
    assert main(["list", str(tmp_path)]) == 0
    assert "\x1b" not in capsys.readouterr().out


def test_two_thousand_sessions_are_listed_in_seconds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Not a measurement: a bound that reading whole files would break many times over."""
    session = SessionBuilder(tmp_path / "one")
    add_server(session)
    large = session.process("APIServer")
    large.raw("request_ends.csv", (requests.ENDS.header + f"{at(5)},a,,,,,,,,,,,,,\n" * 60_000).encode())
    for number in range(300):
        target = tmp_path / "many" / f"session_20250101_{number:06d}"
        for path in session.path.rglob("*"):
            if path.is_file():
                (target / path.relative_to(session.path)).parent.mkdir(parents=True, exist_ok=True)
                os.link(path, target / path.relative_to(session.path))
    began = time.process_time()
    assert len(listed(tmp_path / "many", capsys)) == 300
    assert time.process_time() - began < 6


def test_without_rich_the_pip_line_is_said(tmp_path: Path) -> None:
    SessionBuilder(tmp_path)
    code = (
        "import sys; sys.modules['rich'] = None; sys.modules['rich.cells'] = None; sys.modules['rich.console'] = None\n"
        "from profilemate.cli.main import main; sys.exit(main(sys.argv[1:]))"
    )
    for options, expected in ((["--json"], 0), ([], 2)):
        done = subprocess.run(
            [sys.executable, "-c", code, "list", str(tmp_path), *options], capture_output=True, text=True, check=False
        )
        assert done.returncode == expected, done.stderr
        assert ("pip install 'profilemate[report]'" in done.stderr) == (expected == 2)


def test_sizes_and_ages_as_people_say_them() -> None:
    assert [size_of(text) for text in ("12", "1k", "500M", "5GiB", "1.5 GB")] == [
        12, 1 << 10, 500 << 20, 5 << 30, 3 << 29,
    ]  # fmt: skip
    assert [seconds_of(text) for text in ("90s", "30m", "12h", "7d", "2w")] == [90, 1800, 43_200, 604_800, 1_209_600]
    assert [bytes_text(count) for count in (0, 1023, 1 << 20, 150 << 20, 3 << 40)] == [
        "0 B", "1023 B", "1.0 MiB", "150 MiB", "3.0 TiB",
    ]  # fmt: skip
    assert [span_text(seconds) for seconds in (1.26, 59.9, 61, 3_700, 200_000)] == [
        "1.3 s", "59 s", "1 min 01 s", "1 h 01 min", "2 d 07 h",
    ]  # fmt: skip
    assert [age_text(seconds) for seconds in (-5, 59, 120, 7_200, 90_000)] == ["0 s", "59 s", "2 min", "2 h", "1 d"]


def test_the_head_of_a_record_is_what_the_whole_says(tmp_path: Path) -> None:
    from profilemate.sessions.head import record_head

    for path in golden.SESSIONS.glob("*/processes/*/process.json"):
        if path.parents[2].name != "damaged":
            whole = json.loads(path.read_text())
            del whole["hooks"]
            assert record_head(path) == whole or record_head(path) == {**whole, "hooks": []}
    tricky = {"role": 'x"hooks": [', "text": '"hooks": [', "hooks": [{"name": "a"}], "after": 1}
    (tmp_path / "process.json").write_text(json.dumps(tricky))
    assert record_head(tmp_path / "process.json")["role"] == tricky["role"]
