"""`profilemate merge`: sessions of several hosts as one, with nothing lost, counted twice or silently moved in time."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import cutting
import golden
import hosts
import pytest
import streams
from sample_rows import add_server, step
from session_builder import CREATED_WALL_NS, SECOND, SessionBuilder, at

from profilemate.cli.main import main
from profilemate.trackers.kv_cache import events as kv
from profilemate.trackers.requests import events as requests

TWO = golden.SESSIONS / "two_engines"
MONOTONIC = 7_777 * SECOND
MILLISECOND = 1_000_000
COUNTS = ("kv_cache", "cuda_graphs", "forward_passes", "engine_steps", "requests", "encoder_decoder")


def merge(output: Path, *sessions: Path, options: tuple[str, ...] = ()) -> int:
    return main(["merge", *map(str, sessions), "-o", str(output), *options])


def clocks(output: Path) -> dict[str, dict[str, Any]]:
    """What session.json says of each host's clock."""
    record = json.loads((output / "session.json").read_text())
    return {clock["host"]: clock for clock in record["clocks"]}


def summary(session: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["summary", str(session), "--json"]) == 0
    return dict(json.loads(capsys.readouterr().out))


def counts(record: Any) -> Any:
    """Numbers of a summary that are counts: whole numbers and texts, without times."""
    if isinstance(record, dict):
        return {key: counts(value) for key, value in record.items() if not isinstance(value, float)}
    return [counts(value) for value in record] if isinstance(record, list) else record


@pytest.mark.parametrize("wall_ms", [0, 0.35, -0.35, 1300, -90_000])
def test_two_halves_of_a_session_are_the_whole_again(
    wall_ms: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Engine 1 of a real session ran on another host, whose wall clock is off by a known amount."""
    off_ns = round(wall_ms * MILLISECOND)
    here, other = hosts.split(TWO, tmp_path, "DP1", off_ns, MONOTONIC)
    assert merge(tmp_path / "both", here, other) == 0
    whole = golden.copy("two_engines", tmp_path)
    before, after = summary(whole, capsys), summary(tmp_path / "both", capsys)
    for tracker in COUNTS:
        assert counts(after["summary"][tracker]) == counts(before["summary"][tracker]), tracker
    assert after["files"] == before["files"]
    clock = clocks(tmp_path / "both")["hostb"]
    low, high = clock["error_ns"]
    assert low <= -off_ns - clock["moved_ns"] + 100_000
    assert high >= -off_ns - clock["moved_ns"] - 100_000
    assert high - low < 10 * MILLISECOND
    assert (clock["moved_ns"] != 0) == (abs(wall_ms) > 10)
    assert any(note.startswith("clocks: hostb") for note in after["notes"])


def test_the_error_is_what_the_requests_leave(tmp_path: Path) -> None:
    """By hand from the rows: arrival before queued, last token before the end seen, over the eight requests of engine 1."""
    here, other = hosts.split(TWO, tmp_path, "DP1", 0, MONOTONIC)
    assert merge(tmp_path / "both", here, other) == 0
    theirs = {row["request"] for row in streams.all_rows(TWO, "engine_requests", "EngineCore_DP1")}
    arrivals = {row["request"]: int(row["arrival_ns"]) for row in streams.all_rows(TWO, "request_arrivals")}
    ends = [row for row in streams.all_rows(TWO, "request_ends") if row["request"] in theirs]
    least = max(arrivals[row["request"]] - int(row["queued_ns"]) for row in ends)
    most = min(int(row["end_ns"]) - int(row["last_token_ns"]) for row in ends)
    clock = clocks(tmp_path / "both")["hostb"]
    assert clock["requests_seen_on_both"] == len(ends)
    shift = clock["wall_minus_monotonic_ns"] + MONOTONIC - clocks(tmp_path / "both")["vm"]["wall_minus_monotonic_ns"]
    assert abs(shift) < MILLISECOND  # what the anchors of the recording differ by
    assert clock["error_ns"] == [least - shift, most - shift]


def test_ids_hashed_with_another_secret_become_the_front_ends(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here, other = hosts.split(TWO, tmp_path, "DP1", 0, MONOTONIC)
    for path in other.glob("processes/*/*.csv"):
        stream = cutting.Stream(path)
        stream.change(lambda cell: cell[::-1], *({"request", "for_request"} & set(stream.columns))).write()
    assert merge(tmp_path / "both", here, other) == 0
    after = summary(tmp_path / "both", capsys)
    assert (after["summary"]["requests"]["requests"], after["summary"]["requests"]["without_scheduler"]) == (20, 0)
    assert any("requests had other ids" in note for note in after["notes"])
    theirs = {row["request"] for row in streams.all_rows(TWO, "engine_requests", "EngineCore_DP1")}
    assert {
        row["request"] for row in streams.all_rows(tmp_path / "both", "engine_requests", "EngineCore_DP1")
    } == theirs
    reversed_ids = {row["request"] for row in streams.all_rows(other, "engine_requests")}
    assert not reversed_ids & theirs  # the session itself is as it was


def test_three_sessions_with_offsets_that_are_known(tmp_path: Path) -> None:
    """Constructed: each engine's requests leave one interval, whose middle its clock is moved to."""
    front, parts = SessionBuilder(tmp_path / "front"), []
    process = front.process("APIServer", engine_index=None)
    for number, off_ns in ((1, 5 * SECOND), (2, -3 * SECOND)):
        parts.append(headless(tmp_path / f"n{number}", number, off_ns))
        for request in range(3):
            queued, last = at(2 + request) + off_ns, at(3 + request) + off_ns
            process.rows(
                requests.ARRIVALS,
                {
                    "time_ns": at(2 + request),
                    "request": f"{number}{request}",
                    "arrival_ns": at(1.9 - request + request),
                },
            )
            process.rows(
                requests.ENDS,
                {
                    "time_ns": at(3.3 + request), "request": f"{number}{request}", "reason": "stop", "prompt_tokens": 10,
                    "end_ns": at(3.1 + request), "queued_ns": queued, "scheduled_ns": queued + 1, "last_token_ns": last,
                },
            )  # fmt: skip
    assert merge(tmp_path / "all", front.path, *parts) == 0
    found = clocks(tmp_path / "all")
    for number, off_ns in ((1, 5 * SECOND), (2, -3 * SECOND)):
        clock = found[f"n{number}"]
        assert clock["requests_seen_on_both"] == 3
        assert clock["moved_ns"] + clock["error_ns"][0] <= -off_ns <= clock["moved_ns"] + clock["error_ns"][1]
        assert clock["moved_ns"] == -off_ns  # 0.1 s before it was queued, 0.1 s after its last token
        assert clock["error_ns"] == [-100 * MILLISECOND, 100 * MILLISECOND]
        assert clock["requests_disagree_by_ns"] == 0


def headless(directory: Path, number: int, off_ns: int) -> Path:
    """A node with an engine alone; its monotonic clock is ahead by so much, and its wall clock does not show it."""
    session = SessionBuilder(directory, f"session_2025112{number}_160000", boot_id=f"boot {number}", host=f"n{number}")
    clock = {"wall_ns": CREATED_WALL_NS + SECOND, "monotonic_ns": at(1)}
    engine = session.process(
        f"EngineCore_DP{number}", boot_id=f"boot {number}", host=f"n{number}", engine_index=number, clock=clock
    )
    engine.rows(kv.STEPS, *({**step(n, 2 + n, 10), "time_ns": at(2 + n) + off_ns} for n in (1, 2)))
    for request in range(3):
        queued = at(2 + request) + off_ns
        engine.rows(
            requests.IN_ENGINE,
            {
                "time_ns": at(3 + request) + off_ns, "engine": 0, "request": f"{number}{request}", "event": "finished",
                "queued_ns": queued, "scheduled_ns": queued + 1, "prompt_tokens": 10, "status": "STOPPED",
            },
        )  # fmt: skip
    return session.path


def test_requests_that_contradict_one_another_are_said_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The clock drifted by 2 s: no single offset puts every request right."""
    front = SessionBuilder(tmp_path / "front")
    process = front.process("APIServer", engine_index=None)
    node = headless(tmp_path / "n1", 1, 0)
    for request, drift in ((0, 0.0), (1, 2.0)):
        process.rows(
            requests.ARRIVALS, {"time_ns": at(2), "request": f"1{request}", "arrival_ns": at(1.9 + request + drift)}
        )
        process.rows(
            requests.ENDS,
            {
                "time_ns": at(5), "request": f"1{request}", "reason": "stop", "prompt_tokens": 10,
                "end_ns": at(3.1 + request + drift), "queued_ns": at(2 + request), "scheduled_ns": at(2 + request) + 1,
                "last_token_ns": at(3 + request),
            },
        )  # fmt: skip
    assert merge(tmp_path / "all", front.path, node) == 0
    assert clocks(tmp_path / "all")["n1"]["requests_disagree_by_ns"] == 1_800 * MILLISECOND
    assert "drifted apart by 1,800.000 ms at least" in capsys.readouterr().out


def test_without_common_requests_no_bound_is_claimed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    here, other = hosts.split(TWO, tmp_path, "Worker_DP1", 0, MONOTONIC)
    assert merge(tmp_path / "both", here, other) == 0
    assert clocks(tmp_path / "both")["hostb"]["error_ns"] is None
    assert "nothing here bounds the error" in capsys.readouterr().out


def test_one_kernel_has_one_clock(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two containers of one host: the boot is the same, so that nothing has to be aligned."""
    here, other = hosts.split(TWO, tmp_path, "DP1", 0, 0)
    for path in [other / "session.json", *other.glob("processes/*/process.json")]:
        record = json.loads(path.read_text())
        record["boot_id"] = json.loads((here / "session.json").read_text())["boot_id"]
        path.write_text(json.dumps(record))
    assert merge(tmp_path / "both", here, other) == 0
    assert "share its clock: no error" in capsys.readouterr().out
    whole = golden.copy("two_engines", tmp_path)
    assert main(["export", str(whole)]) == main(["export", str(tmp_path / "both")]) == 0
    for name in set(streams.README_FILES) - {"metadata.json"}:
        text, expected = ((path / name).read_text() for path in (tmp_path / "both", whole))
        assert text.replace("both", "session_20261128_064901") == expected, name


def test_a_wall_clock_that_moved_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    here, other = hosts.split(TWO, tmp_path, "DP1", 0, MONOTONIC)
    path = next(other.glob("processes/Worker*/process.json"))
    record = json.loads(path.read_text())
    record["clock"]["wall_ns"] += 40 * MILLISECOND
    path.write_text(json.dumps(record))
    assert merge(tmp_path / "both", here, other) == 0
    assert "the wall clock of hostb (b/two_engines) moved by 4" in capsys.readouterr().out


def two_servers(tmp_path: Path) -> tuple[Path, Path]:
    """Two servers of their own, each with an engine 0, the second one on another host."""
    first, second = SessionBuilder(tmp_path / "x"), SessionBuilder(tmp_path / "y", boot_id="other", host="y")
    add_server(first)
    add_server(second)
    for path in second.path.glob("processes/*/process.json"):
        record = json.loads(path.read_text())
        path.write_text(json.dumps({**record, "boot_id": "other", "host": "y", "start_time": 5}))
    return first.path, second.path


def test_engines_of_one_number_stay_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = two_servers(tmp_path)
    assert merge(tmp_path / "both", first, second) == 0
    assert (
        "engine numbers 0 of y/session_20251124_160000 are taken: of its engines 0 is 1 here" in capsys.readouterr().out
    )
    merged, single = summary(tmp_path / "both", capsys)["summary"], summary(first, capsys)["summary"]
    for name in ("evicted", "allocated", "query_tokens", "steps"):
        assert merged["kv_cache"][name] == 2 * single["kv_cache"][name], name
    assert merged["cuda_graphs"]["replays"] == 2 * single["cuda_graphs"]["replays"]
    assert [engine["engine"] for engine in merged["kv_cache"]["engines"]] == [0, 1]
    passes = (tmp_path / "both" / "forward_pass_timing.csv").read_text().splitlines()
    assert {line.rpartition(",")[2] for line in passes[1:]} in ({"0", "1"}, set())


def test_engines_inside_one_process_stay_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two programs with `LLM`, each front end, engine and worker in one process."""
    first = golden.copy("no_graphs", tmp_path)
    second = golden.copy("no_graphs", tmp_path, "other")
    assert merge(tmp_path / "both", first, second) == 0
    records = [streams.record(path) for path in streams.processes(tmp_path / "both")]
    assert sorted((record["engine_index"], record["ranks"]["dp"]) for record in records) == [(0, 0), (1, 1)]
    merged, single = summary(tmp_path / "both", capsys)["summary"], summary(first, capsys)["summary"]
    assert [engine["engine"] for engine in merged["kv_cache"]["engines"]] == [0, 1]
    assert merged["forward_passes"]["passes"] == 2 * single["forward_passes"]["passes"]


def test_processes_of_one_name_are_both_kept(tmp_path: Path) -> None:
    """Two containers may have the same host name, process ids and start times."""
    first, second = two_servers(tmp_path)
    assert merge(tmp_path / "both", first, second) == 0
    assert len(streams.processes(tmp_path / "both")) == 6
    assert [path.name.endswith(".2") for path in streams.processes(tmp_path / "both", "Worker")] == [False, True]


def test_streams_are_linked_and_the_sessions_left_alone(tmp_path: Path) -> None:
    here, other = hosts.split(TWO, tmp_path, "DP1", 0, MONOTONIC)
    before = {path: path.read_bytes() for part in (here, other) for path in part.rglob("*") if path.is_file()}
    assert merge(tmp_path / "both", here, other) == 0
    assert {path: path.read_bytes() for path in before} == before
    for path in before:
        if path.suffix == ".csv":
            assert os.path.samefile(path, tmp_path / "both" / path.relative_to(path.parents[2]))
        elif path.name == "process.json":
            assert not os.path.samefile(path, tmp_path / "both" / path.relative_to(path.parents[2]))
    shutil.rmtree(here)
    assert main(["export", str(tmp_path / "both")]) == 0
    modes = [path.stat().st_mode & 0o077 for path in (tmp_path / "both").rglob("*") if path.name.endswith(".json")]
    assert set(modes) == {0}


def test_where_links_cannot_be_made_the_streams_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **options: Any) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr("profilemate.sessions.merge.write.os.link", refuse)
    here, other = hosts.split(TWO, tmp_path, "DP1", 0, MONOTONIC)
    assert merge(tmp_path / "both", here, other) == 0
    path = next(here.glob("processes/Worker*/forward_passes.csv"))
    copied = tmp_path / "both" / path.relative_to(here)
    assert copied.read_bytes() == path.read_bytes()
    assert not os.path.samefile(path, copied)


def test_a_process_without_a_record_is_put_on_its_sessions_clock(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here, other = hosts.split(TWO, tmp_path, "DP1", 0, MONOTONIC)
    (next(other.glob("processes/Worker*")) / "process.json").unlink()
    assert merge(tmp_path / "both", here, other) == 0
    whole = golden.copy("two_engines", tmp_path)
    times = [
        sorted(float(line.split(",")[0]) for line in (session / "forward_pass_timing.csv").read_text().splitlines()[1:])
        for session in (whole, tmp_path / "both")
        if main(["export", str(session)]) == 0
    ]
    assert times[1] == pytest.approx(times[0], abs=0.01)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("apart", "was not recorded at the same time"),
        ("running", "is running"),
        ("trimmed", "its detail was removed"),
        ("format", "has format 1"),
        ("twice", "named twice"),
        ("alone", "two sessions at least"),
        ("nothing", "has no process"),
        ("taken", "is there already"),
    ],
)
def test_what_is_not_to_be_joined_is_refused(
    change: str, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here, other = hosts.split(TWO, tmp_path, "DP1", 0, MONOTONIC)
    sessions = [here, other]
    if change == "apart":
        sessions = list(hosts.split(TWO, tmp_path / "late", "DP1", 3_600 * SECOND, MONOTONIC))
    elif change == "running":
        golden.alive_in(here)
    elif change == "trimmed":
        (other / "detail_removed.json").write_text("{}")
    elif change == "format":
        cutting.changed_record(other / "session.json", format=1)
    elif change == "twice":
        sessions = [here, here]
    elif change == "alone":
        sessions = [here]
    elif change == "nothing":
        shutil.rmtree(other / "processes")
    else:
        (tmp_path / "both").mkdir()
        (tmp_path / "both" / "mine").write_text("")
    assert merge(tmp_path / "both", *sessions) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert len(error.splitlines()) == 1
    if change == "taken":
        assert [path.name for path in (tmp_path / "both").iterdir()] == ["mine"]
    else:
        assert not (tmp_path / "both").exists()
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("change", ["apart", "running"])
def test_force_joins_them_and_keeps_the_doubt(change: str, tmp_path: Path) -> None:
    wall_ns = 3_600 * SECOND if change == "apart" else 0
    here, other = hosts.split(TWO, tmp_path, "DP1", wall_ns, MONOTONIC)
    if change == "running":
        golden.alive_in(here)
    assert merge(tmp_path / "both", here, other, options=("--force",)) == 0
    notes = json.loads((tmp_path / "both" / "session.json").read_text())["clock_notes"]
    assert any(("same time" if change == "apart" else "running") in note for note in notes)
    if change == "running":  # what grows is copied
        path = next(here.glob("processes/APIServer*/request_ends.csv"))
        assert not os.path.samefile(path, tmp_path / "both" / path.relative_to(here))


def test_nothing_is_left_where_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    here, other = hosts.split(TWO, tmp_path, "DP1", 0, MONOTONIC)
    monkeypatch.setattr("profilemate.sessions.merge.write.os.link", fail)
    monkeypatch.setattr("profilemate.sessions.merge.write.shutil.copyfile", fail)
    assert merge(tmp_path / "both", here, other) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_json_is_the_new_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    here, other = hosts.split(TWO, tmp_path, "DP1", 0, MONOTONIC)
    assert merge(tmp_path / "both", here, other, options=("--json",)) == 0
    assert json.loads(capsys.readouterr().out) == json.loads((tmp_path / "both" / "session.json").read_text())


def test_merged_of_merged_is_merged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """First the two halves, then a third host's worker."""
    rest, worker = hosts.split(TWO, tmp_path / "first", "Worker_DP0", 0, MONOTONIC, "hostc")
    here, other = hosts.split(rest, tmp_path / "second", "DP1", 0, 2 * MONOTONIC)
    for path in [other / "session.json", *other.glob("processes/*/process.json")]:
        cutting.changed_record(path, boot_id="a third boot")
    assert merge(tmp_path / "two", here, other) == 0
    assert merge(tmp_path / "three", tmp_path / "two", worker) == 0
    whole = golden.copy("two_engines", tmp_path)
    before, after = summary(whole, capsys), summary(tmp_path / "three", capsys)
    for tracker in COUNTS:
        assert counts(after["summary"][tracker]) == counts(before["summary"][tracker]), tracker
