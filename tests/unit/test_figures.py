"""Every figure of odd and plain sessions: drawn or a sentence, never a traceback."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from figure_sessions import CONFIG, SETTINGS, rich_session
from sample_rows import add_server
from session_builder import SessionBuilder, at

import profilemate
from profilemate import figures
from profilemate.figures import BY_NAME, FIGURES, SECTIONS, draw
from profilemate.figures.figure import Figure, NoFigure
from profilemate.frames.session import Session
from profilemate.session.errors import SessionError
from profilemate.trackers import BY_NAME as TRACKERS
from profilemate.trackers.kv_cache import events as kv


@pytest.fixture(scope="module")
def rich(tmp_path_factory: pytest.TempPathFactory) -> Session:
    """One engine, everything on, a request whose id is markup."""
    opened: Session = profilemate.open(rich_session(tmp_path_factory.mktemp("rich")).path)
    return opened


def test_names_sections_and_modules_are_there() -> None:
    names = [entry.name for entry in BY_NAME.values()]
    assert len(names) == len(set(names))
    assert [entry.section for entry in FIGURES] == sorted((e.section for e in FIGURES), key=SECTIONS.index)
    assert {entry.section for entry in FIGURES} == set(SECTIONS)
    for entry in BY_NAME.values():
        assert set(entry.trackers) <= set(TRACKERS)
        assert entry.shows and not entry.shows.endswith(".")


def test_of_several_engines_each_is_told(tmp_path: Path) -> None:
    session = profilemate.open(rich_session(tmp_path, 60, engines=3).path)
    by_engine = draw(session, "kv_usage_by_engine")
    assert isinstance(by_engine, Figure) and "of 3 engines" in by_engine.says
    (data,) = by_engine.chart.to_dict()["datasets"].values()
    assert {row["kind"] for row in data} == {"engine 0", "engine 1", "engine 2"}
    usage = draw(session, "kv_usage")
    assert isinstance(usage, Figure) and "3 engines are added up" in usage.note and "of 600 blocks" in usage.says


def test_many_engines_are_a_heat_map(tmp_path: Path) -> None:
    session = profilemate.open(rich_session(tmp_path, 12, engines=8).path)
    by_engine = draw(session, "kv_usage_by_engine")
    assert isinstance(by_engine, Figure)
    assert by_engine.chart.to_dict()["mark"]["type"] == "rect"


def test_an_empty_session_has_a_reason_for_every_figure(session: SessionBuilder) -> None:
    opened = profilemate.open(session.path)
    for name in BY_NAME:
        found = draw(opened, name)
        assert isinstance(found, NoFigure), name
        assert "fault of" not in found.reason and len(found.reason) > 15, found


def test_processes_without_rows_have_a_reason_for_every_figure(session: SessionBuilder) -> None:
    for role in ("APIServer", "EngineCore", "Worker"):
        session.process(role, settings=SETTINGS, engine_config={})
    opened = profilemate.open(session.path)
    for name in BY_NAME:
        found = draw(opened, name)
        assert isinstance(found, NoFigure) and "fault of" not in found.reason, found


def test_a_killed_process_and_a_torn_row_are_no_obstacle(session: SessionBuilder) -> None:
    add_server(session)
    session.nameless("EngineCore")
    core = next(session.path.glob("processes/EngineCore.*/engine_steps.csv"))
    core.write_text(core.read_text() + "123,0,")
    opened = profilemate.open(session.path)
    found = {name: draw(opened, name) for name in BY_NAME}
    assert not [one for one in found.values() if isinstance(one, NoFigure) and "fault of" in one.reason]
    assert isinstance(found["kv_usage"], Figure) and isinstance(found["graph_ladder"], Figure)


def test_one_row_is_enough(session: SessionBuilder) -> None:
    row = {
        "time_ns": at(5),
        "engine": 0,
        "step": 1,
        **dict.fromkeys(kv.STEPS.columns[3:], 0),
        "total_blocks": 10,
        "in_use": 4,
    }
    session.process("EngineCore", engine_config=CONFIG).rows(
        kv.STEPS, {**row, "empty": 6, "step_peak": 4, "peak": 4, "peak_time_ns": at(5)}
    )
    found = draw(profilemate.open(session.path), "kv_usage")
    assert isinstance(found, Figure)
    assert found.says == "On average 4 of 10 blocks (40.0 %) were in use; the most was 4 of 10 (40.0 %) at 5 s."


def test_a_tracker_that_was_off_is_named_with_the_setting(session: SessionBuilder) -> None:
    on = {"trackers": ["cuda_graphs", "engine_steps"]}
    session.process("EngineCore", settings=on)
    opened = profilemate.open(session.path)
    for name, words in {
        "kv_usage": "PROFILEMATE_TRACKERS=default,",
        "prefix_misses": "PROFILEMATE_TRACKERS=default,prefix_lookups,",
    }.items():
        found = draw(opened, name)
        assert isinstance(found, NoFigure) and "was off" in found.reason and words in found.reason, found
        assert "ProfilingConfig.ENABLE_" in found.reason


def test_removed_rows_are_told(session: SessionBuilder) -> None:
    add_server(session)
    core = next(session.path.glob("processes/EngineCore.*"))
    (core / "gaps.csv").write_text(
        f"time_ns,table,rows,reason\n{at(3)},engine_steps,1200,size_cap\n{at(3)},engine_steps,7,slow\n"
    )
    found = draw(profilemate.open(session.path), "kv_usage")
    assert isinstance(found, Figure)
    assert "oldest 1,200 rows were removed" in found.note and "7 rows were lost in between" in found.note


def test_a_session_whose_detail_was_removed_says_so(session: SessionBuilder) -> None:
    add_server(session)
    for stream in session.path.glob("processes/*/*.csv"):
        stream.unlink()
    (session.path / "detail_removed.json").write_text("{}")
    found = draw(profilemate.open(session.path), "kv_usage")
    assert isinstance(found, NoFigure) and "under its cap" in found.reason


def test_a_figure_that_fails_takes_no_other_with_it(rich: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    from profilemate.figures import kv_usage

    def broken(session: Session) -> None:
        raise ZeroDivisionError("division by zero\nsecond line")

    monkeypatch.setattr(kv_usage, "kv_usage", broken)
    found = draw(rich, "kv_usage")
    assert isinstance(found, NoFigure)
    assert found.reason == "drawing it failed, which is a fault of ProfileMate: ZeroDivisionError: division by zero"


def test_an_unknown_name_and_a_missing_package_are_session_errors(
    rich: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SessionError, match="there is no figure 'nothing'; there are throughput"):
        draw(rich, "nothing")
    monkeypatch.setattr(figures, "PACKAGES", ("a_package_that_nobody_has",))
    with pytest.raises(SessionError, match="pip install 'profilemate\\[report\\]'"):
        draw(rich, "kv_usage")


def test_a_long_session_is_thinned_and_says_how(tmp_path: Path) -> None:
    session = profilemate.open(rich_session(tmp_path, 5_000).path)
    for name in BY_NAME:
        found = draw(session, name)
        if isinstance(found, Figure):
            assert sum(len(rows) for rows in found.chart.to_dict()["datasets"].values()) <= 2_000, name
    usage = draw(session, "kv_usage")
    assert isinstance(usage, Figure) and "Means over bins of" in usage.note


GOLDEN = Path(__file__).parents[1] / "golden" / "sessions"


@pytest.mark.parametrize(
    "world", ["cap_reached", "clock_step", "damaged", "everything", "hooks_off", "trimmed", "two_engines"]
)
def test_odd_worlds_are_drawn_or_told(world: str, tmp_path: Path) -> None:
    if not (GOLDEN / world).is_dir():
        pytest.skip("the folder of golden sessions is not there")
    shutil.copytree(GOLDEN / world, tmp_path / world)
    opened = profilemate.open(tmp_path / world)
    found = {name: draw(opened, name) for name in BY_NAME}
    reasons = {name: one.reason for name, one in found.items() if isinstance(one, NoFigure)}
    assert not [reason for reason in reasons.values() if "fault of" in reason]
    if world == "everything":
        phases = opened.metadata["summary"]["bandwidth"]["phases"]
        for name, key in (("memory_bandwidth", "read_gb_per_sec"), ("compute_rate", "tflop_per_sec")):
            (data,) = found[name].chart.to_dict()["datasets"].values()
            for phase, told in phases.items():
                mine = [row for row in data if row["kind"] == phase]
                assert sum(row["passes"] for row in mine) == told["timed_passes"]
                seconds = sum(row["seconds"] for row in mine)
                assert sum(row["rate"] * row["seconds"] for row in mine) / seconds == pytest.approx(told[key], rel=1e-3)
    if world == "trimmed":
        assert "under its cap" in reasons["graph_ladder"] and "kv_usage_percent" not in reasons
    if world == "hooks_off":
        assert "hooks that were not in place: kv_cache_manager." in reasons["kv_usage"]
    if world == "damaged":
        assert reasons["kv_eviction_ages"] == "119 blocks were evicted, and no row tells of them"
    if world == "two_engines":
        assert isinstance(found["kv_usage_by_engine"], Figure)
