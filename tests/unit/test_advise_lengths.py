"""Advice on max_model_len and max_num_seqs equals what is worked out by hand."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from advise_steps import add_requests, add_steps, plain_step
from session_builder import SessionBuilder, at

from profilemate.advise import lengths
from profilemate.advise.engine import concurrency
from profilemate.advise.finding import ACT, FINE, LOOK, THIN, Finding
from profilemate.advise.requests.longest import REQUESTS_NEEDED, most_longer, round_up
from profilemate.advise.weighted import quantiles
from profilemate.frames.session import Session
from profilemate.schema.probe_tables import GAPS
from profilemate.trackers.engine_steps import events as step_events
from profilemate.trackers.requests import events as request_events


def limit_finding(session: SessionBuilder) -> Finding:
    return lengths.advise(Session(session.path))[0]


def cap_finding(session: SessionBuilder) -> Finding:
    return lengths.advise(Session(session.path))[1]


# -- max_model_len ------------------------------------------------------------------------------------------------------


def test_a_roomy_limit_is_lowered_to_a_quarter_above_the_longest(session: SessionBuilder) -> None:
    add_requests(session, [(n, 20, "stop") for n in range(1, 301)])
    add_steps(session, [plain_step()])
    found = limit_finding(session)
    assert found.level == LOOK
    assert found.flags == ("--max-model-len 448",), "320 + 25 % = 400; sizes there are 320, 384, 448, 512"
    assert found.numbers["prompt_plus_output_tokens"] == {"p50": 170, "p90": 290, "p95": 305, "p99": 317, "max": 320}
    assert found.numbers["prompt_tokens"]["p50"] == 150
    assert found.numbers["output_tokens"] == dict.fromkeys(("p50", "p90", "p95", "p99", "max"), 20)
    cut, reserved = found.gains
    assert (cut.now, cut.expected, cut.low) == (0, 0, 0)
    assert cut.high == pytest.approx(100 * 4 / 300)
    assert (reserved.now, reserved.expected) == (pytest.approx(25.6), pytest.approx(2.8)), "256 and 28 of 1,000 blocks"
    assert reserved.low == reserved.high == reserved.expected
    assert "Blocks are allocated on demand: a lower limit frees none" in found.says
    assert "57 KiB of block table" in found.says, "64 rows of 256 - 28 entries of 4 bytes"
    assert "912 KiB of token ids" in found.says, "64 rows of 4096 - 448 of 4 bytes"


def test_the_last_token_of_a_request_needs_no_room(session: SessionBuilder) -> None:
    """Its keys and values are never computed: 33 tokens take two blocks of 16, 34 three."""
    add_requests(session, [(30, 3, "stop")] * 299 + [(30, 4, "stop")])
    add_steps(session, [plain_step()])
    blocks = limit_finding(session).numbers["blocks_per_request"]
    assert blocks == {"p50": 2, "p90": 2, "p95": 2, "p99": 2, "max": 3}


@pytest.mark.parametrize("requests", [0, 1, 298])
def test_few_requests_are_too_few(session: SessionBuilder, requests: int) -> None:
    add_requests(session, [(100, 20, "stop")] * requests)
    add_steps(session, [plain_step()])
    found = limit_finding(session)
    assert (found.level, found.flags, found.gains) == (THIN, (), ())
    assert (
        f"{requests} of the 299 requests that ended by themselves that it takes ({299 - requests} more)" in found.says
    )
    assert found.numbers["needed"] == {"requests that ended by themselves": {"have": requests, "need": 299}}


def test_the_number_of_requests_is_the_least_that_shows_one_in_a_hundred() -> None:
    """(99/100)^n <= 1/20, by exact fractions."""
    assert Fraction(99, 100) ** REQUESTS_NEEDED <= Fraction(1, 20) < Fraction(99, 100) ** (REQUESTS_NEEDED - 1)


@pytest.mark.parametrize(("seen", "more"), [(1, 1), (5, 3), (299, 299), (300, 1000), (20, 5)])
def test_how_many_are_longer_is_the_chance_by_counting(seen: int, more: int) -> None:
    """P(at least k of the later ones are above all earlier ones) = C(seen + more - k, seen) / C(seen + more, seen)."""

    def at_least(k: int) -> Fraction:
        return Fraction(math.comb(seen + more - k, seen), math.comb(seen + more, seen))

    most = most_longer(seen, more)
    assert most == more or at_least(most + 1) <= Fraction(1, 20)
    assert most == 0 or at_least(most) > Fraction(1, 20)


def test_broken_off_requests_count_for_the_longest_alone(session: SessionBuilder) -> None:
    add_requests(session, [(100, 20, "stop")] * 299 + [(600, 40, "abort")])
    add_steps(session, [plain_step()])
    found = limit_finding(session)
    assert found.numbers["requests"] == 299
    assert found.numbers["prompt_plus_output_tokens"] == {"p50": 120, "p90": 120, "p95": 120, "p99": 120, "max": 640}
    assert found.flags == ("--max-model-len 896",), "640 + 25 % = 800"


def test_a_limit_that_fits_stays(session: SessionBuilder) -> None:
    add_requests(session, [(2500, 20, "stop")] * 300)
    add_steps(session, [plain_step()])
    found = limit_finding(session)
    assert (found.level, found.flags) == (FINE, ()), "2,520 + 25 % is 3,150, and 3,584 is over three quarters of 4,096"


def test_requests_at_the_limit_ask_for_a_higher_one(session: SessionBuilder) -> None:
    add_requests(session, [(4000, 96, "length")] * 6 + [(4000, 96, "stop")] + [(90, 10, "length")] * 93)
    add_steps(session, [plain_step()])
    found = limit_finding(session)
    assert (found.level, found.flags, found.gains) == (ACT, ("--max-model-len 8192",), ())
    assert found.numbers["cut"] == 6, "one stopped by itself at that very token"
    assert "cuts 6 of 100 requests" in found.title


def test_no_longer_limit_than_the_cache_holds(session: SessionBuilder) -> None:
    add_requests(session, [(4000, 96, "length")] * 10)
    add_steps(session, [plain_step()], num_gpu_blocks=321)
    assert limit_finding(session).flags == ("--max-model-len 5120",), "320 blocks of 16"


def test_no_longer_limit_where_the_cache_holds_none(session: SessionBuilder) -> None:
    add_requests(session, [(4000, 96, "length")] * 10)
    add_steps(session, [plain_step()], num_gpu_blocks=261)
    found = limit_finding(session)
    assert (found.level, found.flags) == (ACT, ())
    assert "holds 4,160 tokens" in found.says


def test_four_cut_requests_are_too_few_to_act_and_still_told(session: SessionBuilder) -> None:
    add_requests(session, [(4000, 96, "length")] * 4)
    add_steps(session, [plain_step()])
    found = limit_finding(session)
    assert found.level == THIN
    assert "4 of them were cut by the limit" in found.says


def test_the_scheduler_tells_where_no_front_end_was_recorded(session: SessionBuilder) -> None:
    core = add_steps(session, [plain_step()])
    cells = {"engine": 0, "event": "finished", "prompt_tokens": 70, "output_tokens": 10}
    core.rows(
        request_events.IN_ENGINE,
        *({**cells, "time_ns": at(20 + n), "request": f"r{n}", "status": "LENGTH_CAPPED"} for n in range(299)),
        {**cells, "time_ns": at(400), "request": "a", "status": "ABORTED"},
        {**cells, "time_ns": at(401), "request": "b", "event": "prefilled", "output_tokens": None},
    )
    found = limit_finding(session)
    assert (found.numbers["requests"], found.numbers["broken_off"]) == (299, 1)
    assert found.evidence[0].table == "engine_requests"


def test_rows_that_were_removed_are_named(session: SessionBuilder) -> None:
    front = add_requests(session, [(100, 20, "stop")] * 300)
    front.rows(GAPS, {"time_ns": at(30), "table": "request_ends", "rows": 1234, "reason": "size_cap"})
    add_steps(session, [plain_step()])
    assert "1,234 rows of request_ends were removed" in limit_finding(session).says


def test_without_a_configuration_nothing_is_compared(session: SessionBuilder) -> None:
    add_requests(session, [(100, 20, "stop")] * 300)
    found = limit_finding(session)
    assert found.level == THIN
    assert "does not record max_model_len" in found.says


def test_a_configuration_without_blocks_gives_lengths_alone(session: SessionBuilder) -> None:
    add_requests(session, [(100, 20, "stop")] * 300)
    add_steps(session, [plain_step()], num_gpu_blocks=None, block_size=None, max_num_seqs=None)
    found = limit_finding(session)
    assert found.flags == ("--max-model-len 160",)
    assert [gain.quantity for gain in found.gains] == [lengths.CUT]


@pytest.mark.parametrize(
    ("tokens", "rounded"),
    [(0, 64), (64, 64), (65, 80), (81, 96), (400, 448), (1000, 1024), (1024, 1024), (1025, 1280), (100_000, 114_688)],
)
def test_round_numbers(tokens: int, rounded: int) -> None:
    assert round_up(tokens) == rounded


def test_verify_takes_the_number_of_requests_of_the_other_session(session: SessionBuilder) -> None:
    add_requests(session, [(n, 20, "stop") for n in range(1, 301)])
    add_steps(session, [plain_step()])
    found = limit_finding(session)
    after = SessionBuilder(session.path.parent, "session_20251124_170000")
    add_requests(after, [(n, 20, "stop") for n in range(1, 96)] + [(400, 48, "length")] * 5)
    add_steps(after, [plain_step()], max_model_len=448)
    cut, reserved = lengths.verify(found, Session(after.path))
    assert (cut.observed, cut.high, cut.holds) == (5, 2, False), (
        "of 100 more at most 2: (1/4)^2 is over and (1/4)^3 under 5 %"
    )
    assert (reserved.observed, reserved.holds) == (pytest.approx(2.8), True)


# -- max_num_seqs -------------------------------------------------------------------------------------------------------


def crowd(running: int, waiting: int = 0, ms: float = 50, **cells: object) -> dict[str, object]:
    return plain_step(ms, running=running, waiting=waiting, step_requests=running, step_tokens=running, **cells)


def capped(running: int, waiting: int, ms: float = 50, **cells: object) -> dict[str, object]:
    return crowd(running, waiting, ms, limit="sequence_cap", max_requests=8, **cells)


FINISHED = {"step_finished": 1}


def test_a_binding_cap_is_raised_to_what_was_wanted(session: SessionBuilder) -> None:
    """8 run and 20 wait in 60 % of the time: 28 were wanted, and 1000 blocks hold 90 of 10 blocks each."""
    add_steps(
        session,
        [capped(8, 20, in_use=80, **FINISHED) if n % 10 < 6 else crowd(8, max_requests=8) for n in range(600)],
    )
    found = cap_finding(session)
    assert (found.level, found.flags) == (ACT, ("--max-num-seqs 32",))
    (gain,) = found.gains
    assert (gain.now, gain.expected, gain.low, gain.high) == (pytest.approx(60), 0, 0, pytest.approx(5))
    assert found.numbers["requests_that_fit"] == 90
    assert found.numbers["running_and_waiting"]["p95"] == 28
    assert "largest captured size is 8" in found.says


def test_time_and_not_steps_decides(session: SessionBuilder) -> None:
    """One step in ten is bound, but takes 9 of 18 ms each time: half the time."""
    add_steps(
        session,
        [capped(8, 20, 900, **FINISHED) if n % 10 == 0 else crowd(2, 0, 100, max_requests=8) for n in range(1000)],
    )
    found = cap_finding(session)
    assert found.numbers["time_bound_by_sequence_cap"] == pytest.approx(0.5)
    assert found.numbers["running"]["mean"] == pytest.approx(5)
    assert found.level == ACT


def test_skipped_requests_would_not_run_anyway(session: SessionBuilder) -> None:
    add_steps(session, [capped(8, 20, skipped=12, **FINISHED) for _ in range(600)])
    assert cap_finding(session).flags == ("--max-num-seqs 16",)


def test_the_cache_bounds_what_is_advised(session: SessionBuilder) -> None:
    """50 blocks each: 18 take 90 % of 1,000, so 16 of the 32 that were wanted."""
    add_steps(session, [capped(8, 20, in_use=400, **FINISHED) for _ in range(600)])
    found = cap_finding(session)
    assert found.flags == ("--max-num-seqs 16",)
    assert found.gains[0].expected == 100, "28 are wanted all the time"
    assert "the KV cache allows 16" in found.says


def test_no_higher_cap_where_the_cache_is_full(session: SessionBuilder) -> None:
    add_steps(session, [capped(8, 20, in_use=960, **FINISHED) for _ in range(600)])
    found = cap_finding(session)
    assert (found.level, found.flags) == (LOOK, ())
    assert "meet the KV cache next" in found.says


def test_without_the_kv_tracker_the_room_is_not_known(session: SessionBuilder) -> None:
    add_steps(session, [capped(8, 20, **FINISHED) for _ in range(600)], table=step_events.STEPS)
    found = cap_finding(session)
    assert found.flags == ("--max-num-seqs 32",)
    assert "tracker kv_cache was off" in found.says


def test_the_range_is_the_worst_tenth_of_the_session(session: SessionBuilder) -> None:
    """28 are wanted, but 40 in the first 30 steps of 600: half of the first tenth."""
    add_steps(session, [capped(8, 32 if n < 30 else 20, **FINISHED) for n in range(600)])
    (gain,) = cap_finding(session).gains
    assert cap_finding(session).flags == ("--max-num-seqs 32",)
    assert (gain.expected, gain.high) == (pytest.approx(5), pytest.approx(50))


def test_a_cap_that_nobody_comes_near_is_lowered(session: SessionBuilder) -> None:
    add_steps(session, [crowd(9 if n == 300 else 4, **FINISHED) for n in range(600)])
    found = cap_finding(session)
    assert (found.level, found.flags, found.gains) == (LOOK, ("--max-num-seqs 16",), ())
    assert "frees no KV block by itself" in found.says


def test_a_cap_in_use_is_fine(session: SessionBuilder) -> None:
    add_steps(session, [crowd(40, **FINISHED) for _ in range(600)])
    assert (cap_finding(session).level, cap_finding(session).flags) == (FINE, ())


def test_where_space_binds_that_is_said(session: SessionBuilder) -> None:
    add_steps(session, [crowd(40, 5, limit="kv_space", **FINISHED) for _ in range(600)])
    found = cap_finding(session)
    assert found.level == FINE
    assert "KV space bounds the batch" in found.title


@pytest.mark.parametrize(("steps", "finished", "ms"), [(499, 1, 50), (600, 0, 50), (600, 1, 30)])
def test_short_runs_say_what_is_missing(session: SessionBuilder, steps: int, finished: int, ms: float) -> None:
    add_steps(session, [capped(8, 20, ms, step_finished=finished) for _ in range(steps)])
    found = cap_finding(session)
    assert (found.level, found.flags) == (THIN, ())
    assert "more)" in found.says


def test_two_engines_are_counted_each_for_itself(session: SessionBuilder) -> None:
    for _ in range(2):
        add_steps(session, [capped(8, 20, **FINISHED) for _ in range(300)])
    found = cap_finding(session)
    assert found.numbers["steps"] == 600
    assert found.numbers["running"]["max"] == 8
    assert found.flags == ("--max-num-seqs 32",)


def test_verify_looks_at_the_same_share(session: SessionBuilder) -> None:
    add_steps(session, [capped(8, 20, **FINISHED) for _ in range(600)])
    found = cap_finding(session)
    after = SessionBuilder(session.path.parent, "session_20251124_170000")
    add_steps(after, [crowd(28, max_requests=32) if n else capped(32, 1, 50 * 99) for n in range(100)])
    (verdict,) = concurrency.verify(found, Session(after.path))
    assert (verdict.observed, verdict.predicted, verdict.holds) == (pytest.approx(50), 0, False)


def test_no_engine_gives_no_advice(session: SessionBuilder) -> None:
    assert [one.level for one in lengths.advise(Session(session.path))] == [THIN, THIN]


def test_quantiles_by_weight() -> None:
    import numpy

    assert quantiles([], [0.5]) == []
    assert quantiles([3, 1, 2], [0, 0.34, 0.5, 1]) == [1, 2, 2, 3]
    assert quantiles([1, 2, 3], [0.5, 0.95], numpy.array([1.0, 1.0, 18.0])) == [3, 3]
    assert quantiles([1, 2], [0.5, 0.51], numpy.array([0.0, 0.0])) == [1, 2], "no weight at all: alike"
