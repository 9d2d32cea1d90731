"""Time in our own code, from what was timed of each hook's calls."""

from __future__ import annotations

import pytest
from session_builder import SessionBuilder, at

from profilemate.cli import main as cli
from profilemate.export import readme_files
from profilemate.schema.probe_tables import HEALTH
from profilemate.session.health import read_health
from profilemate.session.own_cost import read_own_cost
from profilemate.session.session import Session

STEP = "scheduler.step_end"
TOUCH = "block_pool.touch"
COST = {"began_ns": at(1.0), "entry_ns": 100.0, "clock_ns": 50.0}


def told(seconds: float, hook: str, calls: int, *timed: int) -> dict[str, object]:
    """A row of health."""
    names = ("first_calls", "first_ns", "sampled_calls", "sampled_ns")
    return {
        "time_ns": at(seconds), "hook": hook, "state": "put_in", "calls": calls, "failures": 0,
        **dict(zip(names, timed, strict=False)),
    }  # fmt: skip


def test_first_calls_count_as_measured_and_later_ones_as_the_sample(session: SessionBuilder) -> None:
    session.process("EngineCore", cost=COST).rows(
        HEALTH,
        told(2.0, STEP, 100, 10, 90_000),
        told(11.0, STEP, 1010, 10, 90_000, 20, 100_000),
        told(11.0, TOUCH, 40, 40, 20_000),
    )
    (cost,) = read_own_cost(Session(session.path), read_health(Session(session.path)))
    step, touch = cost.hooks
    assert (step.hook, step.calls, step.timed_calls, step.later_calls) == (STEP, 1010, 30, 1000)
    assert step.spent_ns == pytest.approx(90_000 + 1000 * 5_000 + 1010 * 100)
    assert touch.spent_ns == pytest.approx(20_000 + 40 * 100)
    assert cost.run_ns == 10_000_000_000 and cost.steps == 1000
    assert cost.step_ns == pytest.approx(5_000 + 100)
    assert cost.share == pytest.approx((5_191_000 + 24_000) / 10e9)


@pytest.mark.parametrize(
    ("timed", "expected"),
    [((10, 30_000, 0, 0), 30_000 + 90 * 3_000 + 100 * 100), ((0, 0, 0, 0), None), ((), None)],
    ids=["mean of the first", "nothing timed", "a session of an older version"],
)
def test_a_hook_whose_later_calls_are_not_in_the_sample(
    session: SessionBuilder, timed: tuple[int, ...], expected: float | None
) -> None:
    session.process("EngineCore", cost=COST).rows(HEALTH, told(3.0, STEP, 100, *timed))
    (cost,) = read_own_cost(Session(session.path), read_health(Session(session.path)))
    assert cost.hooks[0].spent_ns == (None if expected is None else pytest.approx(expected))


def test_rubbish_in_process_json_is_no_cost(session: SessionBuilder) -> None:
    for cost in ({"began_ns": "x"}, [], {"began_ns": at(1.0), "entry_ns": float("inf")}):
        session.process("EngineCore", cost=cost).rows(HEALTH, told(3.0, STEP, 10, 10, 1000))
    costs = read_own_cost(Session(session.path), read_health(Session(session.path)))
    assert [cost.spent_ns for cost in costs] == [1000]


def test_metadata_and_summary_state_it(session: SessionBuilder, capsys: pytest.CaptureFixture[str]) -> None:
    session.process("EngineCore", cost=COST).rows(HEALTH, told(11.0, STEP, 1010, 10, 90_000, 20, 100_000))
    readme_files.write(Session(session.path))
    (record,) = session.metadata()["summary"]["own_cost"]
    assert record["seconds"] == 0.005191 and record["run_seconds"] == 10.0 and record["steps"] == 1000
    assert record["microseconds_per_step"] == 5.1 and record["share"] == pytest.approx(0.0005191)
    assert record["hooks"] == [{"name": STEP, "calls": 1010, "timed_calls": 30, "seconds": 0.005191}]
    assert cli.main(["summary", str(session.path)]) == 0
    shown = capsys.readouterr().out
    assert "EngineCore: 0.005 s in 10.000 s (0.0519 %), 5.1 us per engine step" in shown
    assert f"{STEP}: 1,010 calls, 30 timed" in shown
