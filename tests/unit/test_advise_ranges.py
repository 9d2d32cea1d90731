"""The ranges that users know, from hand-made use of the KV cache."""

from __future__ import annotations

from typing import Any

import pytest
from advise_steps import BOTH, MS, add_requests, add_steps, placed, plain_step
from session_builder import SECOND, ProcessBuilder, SessionBuilder, at

from profilemate.advise import block_ages, healthy_ranges
from profilemate.advise.finding import FINE, LOOK, THIN, Finding
from profilemate.advise.steps import kv_steps, steps
from profilemate.frames.session import Session
from profilemate.trackers.engine_steps import events as step_events
from profilemate.trackers.kv_cache import events as kv_events


def finding(session: SessionBuilder, name: str = healthy_ranges.NAME) -> Finding:
    return {one.name: one for one in healthy_ranges.advise(Session(session.path))}[name]


def held(peak: int, end: int | None = None, ms: float = 100, **cells: Any) -> dict[str, Any]:
    return plain_step(ms, step_peak=peak, in_use=peak if end is None else end, **cells)


def test_use_by_time(session: SessionBuilder) -> None:
    """Of 1,000: 200 for 90 ms of each 100, 700 for 10; so 250 on average, and 700 for 10 % of the time."""
    add_steps(session, [held(700, ms=10) if n % 2 else held(200, ms=90) for n in range(1001)])
    numbers = finding(session).numbers
    assert numbers["mean"] == pytest.approx(0.25)
    assert (numbers["median"], numbers["sustained"], numbers["peak"]) == (0.2, 0.7, 0.7)
    assert numbers["seconds"] == pytest.approx(50)
    assert numbers["range"] == "good"


def test_while_idle_what_was_left_counts(session: SessionBuilder) -> None:
    """Requests hold 800 for 10 ms; then 100 s pass with the 50 that somebody still holds at the end of each step."""
    add_steps(session, [held(800, 50, ms=10, no_requests_ns=100 * SECOND) for _ in range(501)])
    numbers = finding(session).numbers
    assert numbers["mean"] == pytest.approx((800 * 0.01 + 50 * 100) / 100.01 / 1000)
    assert numbers["peak"] == 0.8
    assert numbers["range"] == "over-provisioned"


def test_without_the_step_tracker_the_end_of_a_step_counts(session: SessionBuilder) -> None:
    add_steps(session, [held(800, 300) for _ in range(501)], table=kv_events.STEPS)
    numbers = finding(session).numbers
    assert numbers["mean"] == pytest.approx(0.3)
    assert (numbers["peak"], numbers["waiting"]) == (0.8, None)


@pytest.mark.parametrize(
    ("peak", "cells", "level", "range_name", "words"),
    [
        (950, {}, FINE, "under-provisioned", "a full pool does no harm"),
        (950, {"preemptions": 7}, LOOK, "under-provisioned", "7 preemptions"),
        (950, {"failed_allocations": 3}, LOOK, "under-provisioned", "3 allocations that found no room agree"),
        (850, {}, FINE, "between the ranges", "nothing contradicts"),
        (700, {}, FINE, "good", "nothing contradicts"),
        (700, {"preemptions": 7}, LOOK, "good", "missing at times"),
        (300, {}, LOOK, "over-provisioned", "blocks could be given up"),
        (300, {"evicted": 9}, FINE, "over-provisioned", "9 cached blocks were evicted all the same"),
    ],
)
def test_the_range_alone_decides_nothing(
    session: SessionBuilder, peak: int, cells: dict[str, int], level: str, range_name: str, words: str
) -> None:
    add_steps(session, [held(peak, **cells) for _ in range(501)])
    found = finding(session)
    assert (found.level, found.numbers["range"], found.flags) == (level, range_name, ())
    assert words in found.says
    assert "60 to 80 % good, under 40 % over-provisioned, over 90 % under-provisioned" in found.says


def test_a_peak_among_low_use_is_told(session: SessionBuilder) -> None:
    add_steps(session, [held(990 if n == 400 else 100) for n in range(501)])
    assert (finding(session).level, finding(session).numbers["peak"]) == (FINE, 0.99)


@pytest.mark.parametrize(("count", "ms"), [(499, 100), (600, 10)])
def test_short_runs_are_thin(session: SessionBuilder, count: int, ms: float) -> None:
    add_steps(session, [held(950, ms=ms) for _ in range(count)])
    assert finding(session).level == THIN


def test_engines_have_pools_of_their_own(session: SessionBuilder) -> None:
    add_steps(session, [held(200, preemptions=2) for _ in range(501)])
    add_steps(session, [held(800, preemptions=3) for _ in range(501)])
    numbers = finding(session).numbers
    assert (numbers["mean"], numbers["blocks"], numbers["preemptions"]) == (pytest.approx(0.5), 2000, 5)


def test_no_pool_and_no_tracker(session: SessionBuilder) -> None:
    assert finding(session).level == THIN
    other = SessionBuilder(session.path.parent, "session_20251124_170000")
    add_steps(other, [plain_step() for _ in range(600)], table=step_events.STEPS)
    assert "tracker kv_cache" in finding(other).says
    empty = SessionBuilder(session.path.parent, "session_20251124_180000")
    add_steps(empty, [held(0, total_blocks=0) for _ in range(600)])
    assert finding(empty).level == THIN, "no block, no use: nothing is divided by"


# -- ages ---------------------------------------------------------------------------------------------------------------


def evict(core: ProcessBuilder, count: int, lived: float, idle: float, cause: str = "allocation") -> None:
    core.rows(
        kv_events.EVICTIONS,
        *(
            {"time_ns": at(100 + n), "engine": 0, "block_id": n, "allocated_ns": at(100 + n - lived),
             "used_ns": at(100 + n - idle), "cause": cause}
            for n in range(count)
        ),
    )  # fmt: skip


def ages(session: SessionBuilder) -> Finding:
    return finding(session, block_ages.NAME)


@pytest.mark.parametrize(
    ("lived", "idle", "level", "words"),
    [
        (30, 2, FINE, "kept long and hit until shortly before"),
        (30, 29, FINE, "cold for long"),
        (3, 2.9, FINE, "lived longer than a request takes"),
        (1, 1, LOOK, "go before they can be used again"),
    ],
)
def test_ages_beside_the_ranges(session: SessionBuilder, lived: float, idle: float, level: str, words: str) -> None:
    """Requests take 2 s."""
    core = add_steps(session, [held(700)])
    add_requests(session, [(10, 10, "stop")] * 3)
    evict(core, 150, lived, idle)
    found = ages(session)
    assert (found.level, found.numbers["median_request_seconds"]) == (level, 2)
    assert (found.numbers["median_lifetime_seconds"], found.numbers["median_idle_seconds"]) == pytest.approx(
        (lived, idle)
    )
    assert found.numbers["share_reused"] == (1 if idle < 0.8 * lived else 0)
    assert words in found.says
    assert "lifetime over 10 s, idle under 5 s" in found.says


def test_few_evictions_are_thin_and_invalidated_blocks_have_no_age(session: SessionBuilder) -> None:
    core = add_steps(session, [held(700)])
    evict(core, 99, 30, 2)
    evict(core, 500, 30, 2, cause="invalidation")
    found = ages(session)
    assert found.level == THIN
    assert "99 of the 100 evictions of blocks whose allocation was seen that it takes (1 more)" in found.says


def test_no_eviction_says_so(session: SessionBuilder) -> None:
    add_steps(session, [held(700)])
    assert (ages(session).level, ages(session).title) == (FINE, "No block was evicted")


# -- the frames beneath -------------------------------------------------------------------------------------------------


def test_rows_of_a_process_are_put_on_the_sessions_clock(session: SessionBuilder) -> None:
    add_steps(session, [plain_step(10, no_requests_ns=2 * SECOND)] * 3)
    frame = steps(Session(session.path), "waiting")
    assert frame["time_ns"].to_list() == [10 * SECOND + n * (2 * SECOND + 10 * MS) for n in (1, 2, 3)]
    assert frame["period_ns"].to_list() == [None, 10 * MS, 10 * MS]
    assert frame["working_ns"].to_list() == [10 * MS] * 3


def test_a_step_whose_scheduling_was_not_seen_ends_a_period(session: SessionBuilder) -> None:
    rows = placed([plain_step(10)] * 3)
    rows[1] |= {"schedule_ns": None, "running": None}
    session.process("EngineCore").rows(BOTH, *rows)
    frame = steps(Session(session.path))
    assert frame["step"].to_list() == [1, 3]
    assert frame["period_ns"].to_list() == [None, 10 * MS]


def test_time_between_kv_rows_is_split_into_busy_and_idle(session: SessionBuilder) -> None:
    add_steps(session, [held(5, 3, 10), held(8, 6, 20, no_requests_ns=7 * MS)])
    frame = kv_steps(Session(session.path))
    assert frame["busy_ns"].to_list() == [0, 20 * MS]
    assert frame["idle_ns"].to_list() == [0, 7 * MS]
    assert frame["before"].to_list() == [0, 3]
