"""The folder cap: what goes, what never goes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from sample_rows import add_engine, add_server
from session_builder import SessionBuilder

from profilemate.cli.main import main
from profilemate.export import readme_files, retention
from profilemate.session import alive
from profilemate.session.errors import SessionError
from profilemate.session.session import Session


@pytest.fixture
def three(tmp_path: Path) -> list[SessionBuilder]:
    """Three ended sessions with current files, oldest first."""
    found = []
    for day in (1, 2, 3):
        session = add_server(SessionBuilder(tmp_path, f"session_2025010{day}_000000"))
        readme_files.write(Session(session.path))
        found.append(session)
    return found


def detail(session: SessionBuilder) -> list[str]:
    return sorted(path.name for path in session.path.glob("processes/*/*.csv"))


def test_the_oldest_goes_first_and_only_as_many_as_needed(three: list[SessionBuilder], tmp_path: Path) -> None:
    used = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    trimmed = retention.enforce(tmp_path, used - 100, readme_files.is_current)
    assert [path.name for path in trimmed] == [three[0].path.name]
    assert detail(three[0]) == ["health.csv"]
    assert "kv_steps.csv" in detail(three[1])
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
    stale = SessionBuilder(tmp_path, "session_20250102_000000")
    add_engine(stale)
    assert retention.enforce(tmp_path, 1, readme_files.is_current) == []
    assert detail(living) and detail(stale)


def test_no_cap_and_foreign_folders(three: list[SessionBuilder], tmp_path: Path) -> None:
    assert retention.enforce(tmp_path, 0, readme_files.is_current) == []
    copied = add_server(
        SessionBuilder(tmp_path / "elsewhere", settings={"directory": "/somewhere", "folder_cap_bytes": 1})
    )
    assert main(["export", str(copied.path)]) == 0
    assert "kv_steps.csv" in detail(copied)


def test_an_export_applies_the_cap_of_the_settings(tmp_path: Path) -> None:
    settings = {"directory": str(tmp_path), "folder_cap_bytes": 1}
    session = add_server(SessionBuilder(tmp_path, settings=settings))
    assert main(["export", str(session.path)]) == 0
    assert detail(session) == ["health.csv"]


def test_links_are_not_followed(three: list[SessionBuilder], tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "kv_steps.csv").write_text("precious")
    (three[0].path / "processes" / "linked").symlink_to(victim)
    retention.enforce(tmp_path, 1, readme_files.is_current)
    assert (victim / "kv_steps.csv").read_text() == "precious"
