"""Moments of the wall clock on the monotonic one, where somebody sets the wall clock in between."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from profilemate.trackers.requests import front_end
from profilemate.trackers.requests.front_end import WallClock

SECOND = 1_000_000_000
AHEAD = 1_700_000_000 * SECOND
HOUR = 3600 * SECOND


def clocks(now_ns: int, set_by_ns: int = 0) -> tuple[int, int]:
    """Both clocks at a monotonic moment; the wall clock was set by so much."""
    return now_ns, now_ns + AHEAD + set_by_ns


def wall_seconds(moment_ns: int, set_by_ns: int = 0) -> float:
    """What `time.time()` says at a monotonic moment."""
    return (moment_ns + AHEAD + set_by_ns) / 1e9


def test_a_moment_is_as_long_ago_on_both_clocks() -> None:
    clock = WallClock()
    for second in (5, 6, 9000):
        found = clock.on_monotonic_clock(wall_seconds(second * SECOND - 2_000_000), clocks(second * SECOND))
        assert abs(found - (second * SECOND - 2_000_000)) < 1000


@pytest.mark.parametrize("step", [HOUR, -HOUR, SECOND, -SECOND])
@pytest.mark.parametrize("was_set_before", [False, True])
def test_the_clock_is_set_between_the_last_look_and_this_one(step: int, was_set_before: bool) -> None:
    """Before the moment or after it: the moment was 2 ms before the look in either case."""
    clock = WallClock()
    clock.on_monotonic_clock(wall_seconds(10 * SECOND), clocks(10 * SECOND))
    moment = 20 * SECOND - 2_000_000
    found = clock.on_monotonic_clock(wall_seconds(moment, step if was_set_before else 0), clocks(20 * SECOND, step))
    assert abs(found - moment) < 1000


def test_after_a_step_the_new_clock_counts() -> None:
    clock = WallClock()
    clock.on_monotonic_clock(wall_seconds(10 * SECOND), clocks(10 * SECOND))
    clock.on_monotonic_clock(wall_seconds(20 * SECOND, HOUR), clocks(20 * SECOND, HOUR))
    found = clock.on_monotonic_clock(wall_seconds(29 * SECOND, HOUR), clocks(30 * SECOND, HOUR))
    assert abs(found - 29 * SECOND) < 1000


def test_a_clock_that_is_slewed_or_read_a_little_apart_was_not_set() -> None:
    """The later of two possible moments would creep towards now."""
    clock = WallClock()
    clock.on_monotonic_clock(wall_seconds(10 * SECOND), clocks(10 * SECOND))
    found = clock.on_monotonic_clock(wall_seconds(19 * SECOND), clocks(20 * SECOND, -4_000_000))
    assert abs(found - (19 * SECOND + 4_000_000)) < 1000


def test_what_is_to_come_by_either_clock_stays_as_the_new_one_says() -> None:
    clock = WallClock()
    clock.on_monotonic_clock(wall_seconds(10 * SECOND), clocks(10 * SECOND))
    found = clock.on_monotonic_clock(wall_seconds(25 * SECOND, HOUR), clocks(20 * SECOND, HOUR))
    assert abs(found - 25 * SECOND) < 1000


def test_the_row_of_an_arrival_is_by_it(monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[tuple[Any, ...]] = []
    looks = iter([clocks(10 * SECOND), clocks(20 * SECOND, HOUR)])
    monkeypatch.setattr(front_end, "WALL_CLOCK", WallClock())
    monkeypatch.setattr(front_end, "both_clocks", lambda: next(looks))
    monkeypatch.setattr(front_end, "ARRIVALS", SimpleNamespace(add=rows.append))
    monkeypatch.setattr(front_end, "THIS", SimpleNamespace(flush_step=lambda streams, now: None))
    for moment in (10 * SECOND, 20 * SECOND - 2_000_000):
        request = SimpleNamespace(request_id="a", arrival_time=wall_seconds(moment), priority=0)
        front_end.request_taken_in(True, None, SimpleNamespace(request_states={}), request)
    assert abs(rows[1][3] - (20 * SECOND - 2_000_000)) < 1000
