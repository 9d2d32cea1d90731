"""The folder cap: what goes, what never goes."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from sample_rows import add_engine, add_server, step
from session_builder import SessionBuilder, at

from profilemate.cli.main import main
from profilemate.export import readme_files, retention
from profilemate.session import alive
from profilemate.session.errors import SessionError
from profilemate.session.session import Session
from profilemate.trackers.kv_cache import events as kv


@pytest.fixture
def three(tmp_path: Path) -> list[SessionBuilder]:
    """Three ended sessions with current files, oldest first."""
    found = []
    for day in (1, 2, 3):
        session = add_server(SessionBuilder(tmp_path, f"session_2025010{day}_000000"))
        readme_files.write(Session(session.path))
        silence(session.path)
        found.append(session)
    return found


def silence(path: Path) -> None:
    """Let the session's processes, which are of another host, have written nothing for two hours."""
    for file in [path / "processes", *path.glob("processes/*"), *path.glob("processes/*/*")]:
        os.utime(file, (time.time() - 7200,) * 2, follow_symlinks=False)


def size(path: Path) -> int:
    """Bytes of all files below."""
    return sum(file.lstat().st_size for file in path.rglob("*") if file.is_file())


def detail(session: SessionBuilder) -> list[str]:
    return sorted(path.name for path in session.path.glob("processes/*/*.csv"))


def test_the_oldest_goes_first_and_only_as_many_as_needed(three: list[SessionBuilder], tmp_path: Path) -> None:
    trimmed = retention.enforce(tmp_path, size(tmp_path) - 100, readme_files.is_current)
    assert [path.name for path in trimmed] == [three[0].path.name]
    assert detail(three[0]) == ["health.csv"]
    assert "engine_steps.csv" in detail(three[1])
    assert three[0].lines("kv_cache_evictions.csv")


def test_a_trimmed_session_keeps_its_files_and_its_summary(
    three: list[SessionBuilder], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = three[0].text("cuda_graph_usage.csv")
    retention.enforce(tmp_path, 1, readme_files.is_current)
    assert main(["export", str(three[0].path)]) == 2
    assert "its detail was removed" in capsys.readouterr().err
    with pytest.raises(SessionError):
        readme_files.write(Session(three[0].path), tmp_path / "out")
    assert main(["summary", str(three[0].path)]) == 0
    assert "peak 50 of 200 blocks" in capsys.readouterr().out
    assert three[0].text("cuda_graph_usage.csv") == before


def test_a_living_session_and_stale_files_are_left_alone(tmp_path: Path) -> None:
    start = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    living = SessionBuilder(tmp_path, "session_20250101_000000")
    add_engine(living, pid=os.getpid(), start_time=start, boot_id=alive.boot_id())
    readme_files.write(Session(living.path))
    silence(living.path)
    stale = SessionBuilder(tmp_path, "session_20250102_000000")
    add_engine(stale)
    silence(stale.path)
    assert retention.enforce(tmp_path, 1, readme_files.is_current) == []
    assert detail(living) and detail(stale)


def test_sessions_that_begin_while_one_tidies_up_are_not_left_to_the_next_start(
    three: list[SessionBuilder], tmp_path: Path
) -> None:
    """Servers that are killed and started at once: whoever comes meanwhile finds the folder taken and goes away."""
    newer: list[SessionBuilder] = []

    def make_current(session: Session) -> bool:
        if len(newer) < 3:
            newer.append(add_server(SessionBuilder(tmp_path, f"session_2025010{len(newer) + 4}_000000")))
            readme_files.write(Session(newer[-1].path))
            silence(newer[-1].path)
            assert retention.enforce(tmp_path, 1, readme_files.is_current) == [], "two at a time"
        return readme_files.is_current(session)

    trimmed = retention.enforce(tmp_path, 1, make_current)
    assert len(newer) == 3 and {path.name for path in trimmed} == {one.path.name for one in (*three, *newer)}
    assert all(detail(session) == ["health.csv"] for session in (*three, *newer))


def test_no_cap_and_foreign_folders(three: list[SessionBuilder], tmp_path: Path) -> None:
    assert retention.enforce(tmp_path, 0, readme_files.is_current) == []
    copied = add_server(
        SessionBuilder(tmp_path / "elsewhere", settings={"directory": "/somewhere", "folder_cap_bytes": 1})
    )
    assert main(["export", str(copied.path)]) == 0
    assert "engine_steps.csv" in detail(copied)


def test_an_export_applies_the_cap_of_the_settings(tmp_path: Path) -> None:
    settings = {"directory": str(tmp_path), "folder_cap_bytes": 1}
    session = add_server(SessionBuilder(tmp_path, settings=settings, host=socket.gethostname()))
    silence(session.path)
    assert main(["export", str(session.path)]) == 0
    assert detail(session) == ["health.csv"]


def test_the_cap_of_a_session_of_another_host_is_not_applied_here(three: list[SessionBuilder], tmp_path: Path) -> None:
    """A colleague's session, unpacked into the folder of one's own: on both machines it is /tmp/vllm_profiling."""
    settings = {"directory": str(tmp_path), "folder_cap_bytes": 1}
    theirs = add_server(SessionBuilder(tmp_path, settings=settings, host="elsewhere"))
    silence(theirs.path)
    assert main(["export", str(theirs.path)]) == 0
    assert all("engine_steps.csv" in detail(session) for session in (*three, theirs))


def test_links_are_not_followed(three: list[SessionBuilder], tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "engine_steps.csv").write_text("precious")
    (three[0].path / "processes" / "linked").symlink_to(victim)
    retention.enforce(tmp_path, 1, readme_files.is_current)
    assert (victim / "engine_steps.csv").read_text() == "precious"


EVENT_FILES = {"cuda_graph_timeline.csv", "kv_cache_usage.csv", "kv_cache_evictions.csv"}
EVICTION = {"engine": 0, "block_id": 7, "allocated_ns": 4_000_000_000, "used_ns": 2_000_000_000, "cause": "allocation"}


def restarted(directory: Path, number: int, cap: int) -> SessionBuilder:
    """The session of a server that was started for the n-th time: 500 evictions, 40 engine steps and its number of hits."""
    settings = {"directory": str(directory), "folder_cap_bytes": cap}
    stamp = f"session_20250101_{number // 3600:02}{number // 60 % 60:02}{number % 60:02}"
    session = SessionBuilder(directory, stamp, settings=settings, host=socket.gethostname())
    engine = session.process("EngineCore", host=socket.gethostname())
    engine.rows(kv.EVICTIONS, *({**EVICTION, "time_ns": at(n / 100)} for n in range(500)))
    engine.rows(kv.STEPS, *(step(n, n / 10, 20, hit_tokens=number, evicted=500) for n in range(1, 41)))
    return session


def test_a_server_that_restarts_a_hundred_times(tmp_path: Path) -> None:
    """The folder stays under its cap, every session keeps its totals, and the newest ones keep their detail."""
    cap = 2_000_000
    sessions = []
    for number in range(100):
        sessions.append(restarted(tmp_path, number, cap))
        assert main(["export", str(sessions[-1].path)]) == 0
        assert size(tmp_path) <= cap
    whole = ["kv_evictions" in " ".join(detail(session)) for session in sessions]
    assert whole == sorted(whole) and 5 < sum(whole) < 60
    for number, session in enumerate(sessions):
        summary = session.metadata()["summary"]["kv_cache"]
        assert (summary["hit_tokens"], summary["evicted"], summary["steps"]) == (number, 500, 40)
        assert "evicted: 500" in session.text("kv_cache_summary.txt")
        assert main(["summary", str(session.path)]) == 0
        removed = EVENT_FILES - {path.name for path in session.path.iterdir()}
        assert removed in (set(), EVENT_FILES)
        assert any("were removed to keep the folder" in note for note in session.metadata()["notes"]) == bool(removed)
        assert not (whole[number] and removed)
    assert len(sessions[-1].lines("kv_cache_evictions.csv")) == 500


def test_the_events_of_the_newest_session_stay_under_any_cap(tmp_path: Path) -> None:
    sessions = []
    for number in range(3):
        sessions.append(restarted(tmp_path, number, 1))
        assert main(["export", str(sessions[-1].path)]) == 0
    assert [bool(EVENT_FILES - {path.name for path in session.path.iterdir()}) for session in sessions] == [
        True, True, False,
    ]  # fmt: skip


def test_sessions_that_were_killed_are_summed_up_before_their_detail_goes(tmp_path: Path) -> None:
    """Nobody exported them: a server that is killed and started again would fill the disk."""
    killed = [restarted(tmp_path, number, 1) for number in range(3)]
    last = restarted(tmp_path, 3, 80_000)
    assert main(["export", "--tidy", str(last.path)]) == 0
    assert detail(killed[0]) == [] and size(tmp_path) < 80_000
    assert killed[0].metadata()["summary"]["kv_cache"]["evicted"] == 500
    assert not (last.path / "metadata.json").exists(), "only what was needed was exported"


def test_two_that_tidy_up_at_once_do_it_once(tmp_path: Path) -> None:
    session = restarted(tmp_path, 0, 1)
    readme_files.write(Session(session.path))
    descriptor = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    assert retention.enforce(tmp_path, 1, readme_files.is_current) == []
    os.close(descriptor)
    assert retention.enforce(tmp_path, 1, readme_files.is_current) == [session.path]


@pytest.mark.parametrize(
    ("record", "silent", "goes"),
    [
        ({}, False, True),
        ({"host": "elsewhere"}, False, False),
        ({"host": "elsewhere"}, True, True),
        ({"pid_namespace": "pid:[1]"}, False, False),
        ({"pid_namespace": "pid:[1]"}, True, True),
        ({"pid_namespace": alive.pid_namespace()}, False, True),
    ],
)
def test_a_session_elsewhere_has_ended_when_it_is_silent(
    tmp_path: Path, record: dict[str, str], silent: bool, goes: bool
) -> None:
    """Whether a process runs on another host, or in another container, cannot be looked up here."""
    session = SessionBuilder(tmp_path, "session_20250101_000000", **record)
    session.process("EngineCore", host=record.get("host", socket.gethostname())).rows(kv.STEPS, step(1, 1, 20))
    readme_files.write(Session(session.path))
    if silent:
        silence(session.path)
    assert bool(retention.enforce(tmp_path, 1, readme_files.is_current)) == goes
    assert bool(detail(session)) != goes


def test_detail_goes_from_a_full_disk_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = restarted(tmp_path, 0, 1)
    readme_files.write(Session(session.path))

    def full(path: Path) -> Any:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(retention, "replacing", full)
    assert retention.enforce(tmp_path, 1, readme_files.is_current) == [session.path]
    assert detail(session) == [] and retention.is_trimmed(session.path)


def test_one_session_that_cannot_be_trimmed_does_not_save_the_others(tmp_path: Path) -> None:
    sessions = [restarted(tmp_path, number, 1) for number in range(3)]
    for session in sessions:
        readme_files.write(Session(session.path))
    retention.enforce(tmp_path, size(tmp_path) - 100, readme_files.is_current)
    (sessions[0].path / "metadata.json").write_text("{")
    retention.enforce(tmp_path, 1, readme_files.is_current)
    assert [bool(detail(session)) for session in sessions] == [False] * 3
    assert sessions[0].lines("kv_cache_evictions.csv") and not (sessions[1].path / "kv_cache_evictions.csv").exists()
