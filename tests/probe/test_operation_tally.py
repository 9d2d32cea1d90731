"""The tally of an operation by itself: which calls get a row, what is folded when, and appends of another thread."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from profilemate.probe import phase
from profilemate.probe.process import THIS
from profilemate.trackers.cpu_operations import hooks, tally
from profilemate.trackers.cpu_operations.histogram import LARGEST_NS, from_text
from profilemate.trackers.cpu_operations.tally import FOLD_AT, ROWS, TOTALS, Tally


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No rows of another test, and no folder to write to."""
    before = THIS.settings
    monkeypatch.setattr(THIS, "flush_step", lambda streams, now: None)
    hooks.after_fork()
    ROWS.pending.clear()
    yield
    THIS.settings = before
    hooks.after_fork()
    ROWS.pending.clear()
    TOTALS.pending.clear()


def made(every: int) -> Tally:
    THIS.settings = THIS.settings._replace(cpu_operation_rows_every=every)
    return Tally("schedule")


def numbers() -> list[int]:
    """Call numbers of the rows that wait."""
    return [row[3] for row in ROWS.pending]


@pytest.mark.parametrize("every", [1, 3, 10, 4095, 4096, 4097, 10_000])
def test_every_nth_call_has_a_row_across_folds(every: int) -> None:
    one, draw = made(every), random.Random(every)
    durations = [draw.randrange(1, 10**7) for _ in range(3 * FOLD_AT + 5)]
    for number, duration in enumerate(durations, 1):
        one.note(number, duration)
        if number in (17, 5000):
            one.fold()
        assert len(one.durations) < FOLD_AT
    assert numbers() == list(range(every, len(durations) + 1, every))
    assert [row[2] for row in ROWS.pending] == durations[every - 1 :: every]
    one.fold()
    assert (one.calls, one.total_ns, one.min_ns, one.max_ns) == (
        len(durations), sum(durations), min(durations), max(durations),
    )  # fmt: skip
    assert one.squares == sum(duration**2 for duration in durations)


def test_no_rows_where_none_are_asked_for() -> None:
    one = made(0)
    for number in range(2 * FOLD_AT):
        one.note(number, 5)
    one.fold()
    assert numbers() == [] and one.calls == 2 * FOLD_AT


def test_a_row_of_totals_has_it_all_and_an_unchanged_one_is_not_repeated() -> None:
    THIS.settings = THIS.settings._replace(cpu_operation_rows_every=0)
    hooks.after_fork()
    for duration in (0, 5, 2 * LARGEST_NS):
        tally.TALLIES["sample"].note(1, duration)
    tally.write_totals()
    tally.write_totals()
    (text,) = TOTALS.pending
    cells = str(text).rstrip("\n").split(",")
    squares = (25 + LARGEST_NS**2) // 10**6  # a call of more than 18 minutes counts as one of 18 there
    assert cells[1:4] == ["sample", "3", str(2 * LARGEST_NS + 5)]
    assert cells[4:7] == [str(squares), "0", str(2 * LARGEST_NS)]
    assert sum(from_text(cells[7]).values()) == 3 and len(cells) == len(TOTALS.table.fields)


def test_runs_of_vllms_own_are_not_counted() -> None:
    ends = tally.ends_of("sample")
    depth = phase.enter("warm_up")
    ends(tally.begins(), None)
    phase.leave(depth)
    ends(tally.begins(), None)
    tally.TALLIES["sample"].fold()
    assert tally.TALLIES["sample"].calls == 1


def test_a_fold_beside_another_threads_calls_loses_none() -> None:
    one, count = made(10), 200_000

    def call() -> None:
        for number in range(count):
            one.note(number, 7)

    thread = threading.Thread(target=call)
    thread.start()
    while thread.is_alive():
        one.fold()
    one.fold()
    assert one.calls == count and one.total_ns == 7 * count
    assert len(numbers()) == pytest.approx(count / 10, rel=0.02)


def batch(tokens: int = 1) -> Any:
    return SimpleNamespace(total_num_scheduled_tokens=tokens)


def test_steps_that_overlap_cover_their_time_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin A 10, begin B 14, end A 20, end B 30, then C alone from 50 to 57."""
    now = iter([12, 16, 21, 20, 31, 30, 51, 58, 57])
    monkeypatch.setattr(tally, "monotonic_ns", lambda: next(now))
    monkeypatch.setattr(hooks, "monotonic_ns", lambda: next(now))
    first, second, third = batch(), batch(), batch()
    hooks.scheduled(10, first)
    hooks.scheduled(14, second)
    hooks.updated(18, {}, first)
    hooks.updated(22, {}, second)
    hooks.scheduled(50, third)
    hooks.updated(55, {}, third)
    assert tally.TALLIES["engine_step"].durations == [10, 10, 7]


def test_batches_that_are_never_updated_are_forgotten() -> None:
    kept = [batch() for _ in range(1000)]
    for one in kept:
        hooks.scheduled(tally.begins(), one)
    assert len(hooks._steps_begun) <= hooks.MOST_STEPS_OPEN


def test_a_drafters_graph_is_no_launch_of_the_model() -> None:
    ends = tally.ends_of("model_launch")
    one = batch()
    token = hooks.execute_begins(one)
    ends(hooks.launch_begins(), None)
    hooks.executed(token, None, one)
    ends(hooks.launch_begins(), None)
    tally.TALLIES["model_launch"].fold()
    assert tally.TALLIES["model_launch"].calls == 1
