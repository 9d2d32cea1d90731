"""Advice on scheduling equals what is worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest
from advise_steps import BOTH, MS, add_steps, placed, plain_step
from session_builder import ProcessBuilder, SessionBuilder, at

from profilemate.advise import scheduling
from profilemate.advise.engine import (
    host_time,
    interference,
    limits,
    matched_steps,
    preemption_cost,
    queue_growth,
    smaller_chunks,
)  # fmt: skip
from profilemate.advise.finding import ACT, FINE, LOOK, THIN, Finding
from profilemate.frames.session import Session
from profilemate.trackers.cpu_operations import events as cpu_events
from profilemate.trackers.engine_steps import events as step_events
from profilemate.trackers.requests import events as request_events


def finding(session: SessionBuilder, name: str) -> Finding:
    return {one.name: one for one in scheduling.advise(Session(session.path))}[name]


def mixed(ms: float, decodes: int = 4, chunk: int = 100, **cells: Any) -> dict[str, Any]:
    """A step with one request in prefill."""
    return plain_step(
        ms, step_requests=decodes + 1, step_tokens=decodes + chunk, context_requests=1, context_tokens=chunk, **cells
    )


def decode(ms: float, decodes: int = 4, **cells: Any) -> dict[str, Any]:
    return plain_step(ms, step_requests=decodes, step_tokens=decodes, **cells)


# -- limits -------------------------------------------------------------------------------------------------------------


def test_shares_by_steps_and_by_time(session: SessionBuilder) -> None:
    """Nine steps of 10 ms for one of 90 ms: a tenth of the steps and half of the time."""
    add_steps(session, [plain_step(90, limit="kv_space") if n % 10 == 0 else plain_step(10) for n in range(600)])
    found = finding(session, limits.NAME)
    assert found.numbers["limits"]["kv_space"] == {
        "share_of_steps": pytest.approx(0.1),
        "share_of_time": pytest.approx(0.5),
    }
    assert found.level == LOOK
    assert found.title == "KV space bounds the steps for 50 % of the time"
    assert "kv_cache_size" in found.says


def test_a_limit_that_seldom_binds_is_no_matter(session: SessionBuilder) -> None:
    add_steps(session, [plain_step(limit="kv_space" if n % 10 == 0 else "no_work") for n in range(600)])
    assert finding(session, limits.NAME).level == FINE


@pytest.mark.parametrize("limit", ["token_budget", "sequence_cap", "kv_space", "throttled", "other", "unheard_of"])
def test_every_limit_has_words(session: SessionBuilder, limit: str) -> None:
    add_steps(session, [plain_step(limit=limit) for _ in range(500)])
    found = finding(session, limits.NAME)
    assert found.level == LOOK
    assert "100 % of the time" in found.title


def test_a_larger_budget_only_where_chunks_hardly_delay(session: SessionBuilder) -> None:
    chunks = [mixed(11, limit="token_budget") if n % 2 else decode(10) for n in range(600)]
    add_steps(session, chunks)
    found = finding(session, limits.NAME)
    assert (found.flags, found.gains) == (("--max-num-batched-tokens 4096",), ())
    assert "1.10 times as long" in found.says


def test_no_larger_budget_where_chunks_delay(session: SessionBuilder) -> None:
    add_steps(session, [mixed(40, limit="token_budget") if n % 2 else decode(10) for n in range(600)])
    found = finding(session, limits.NAME)
    assert found.flags == ()
    assert "4.0 times as long" in found.says


def test_few_steps_are_too_few(session: SessionBuilder) -> None:
    add_steps(session, [plain_step(limit="kv_space") for _ in range(499)])
    found = finding(session, limits.NAME)
    assert (found.level, found.flags) == (THIN, ())
    assert "499 of the 500 engine steps that it takes (1 more)" in found.says


# -- interference -------------------------------------------------------------------------------------------------------


def test_matched_steps_give_the_delay(session: SessionBuilder) -> None:
    """Of size 4: 30 against 10 ms, of size 8: 50 against 20 ms, half of each; two of size 16 have no partner."""
    steps = [mixed(30, 4) if n % 2 else decode(10, 4) for n in range(200)]
    steps += [mixed(50, 8) if n % 2 else decode(20, 8) for n in range(200)]
    add_steps(session, [decode(10, 4), *steps, mixed(500, 16), mixed(500, 16)])
    found = finding(session, interference.NAME)
    numbers = found.numbers
    assert (numbers["mixed_steps"], numbers["plain_steps"], numbers["matched_steps"]) == (202, 200, 200)
    assert numbers["added_ms"] == pytest.approx((100 * 20 + 100 * 30) / 200)
    assert numbers["mixed_mean_ms"] == pytest.approx(40)
    assert numbers["plain_mean_ms"] == pytest.approx(15)
    assert numbers["ratio"] == pytest.approx(40 / 15)
    decoded = 100 * (4 + 8)
    assert numbers["share_of_decoded_tokens"] == pytest.approx((decoded + 32) / (2 * decoded + 32))
    waited = 100 * 4 * 20 + 100 * 8 * 30
    spent = 100 * 4 * (30 + 10) + 100 * 8 * (50 + 20) + 2 * 16 * 500
    assert numbers["share_of_decode_time"] == pytest.approx(waited / spent)
    assert numbers["added_low_ms"] <= numbers["added_ms"] <= numbers["added_high_ms"]
    assert found.level == LOOK


def test_the_interval_holds_the_truth_where_neighbours_are_alike() -> None:
    """Stretches of 100 steps share a disturbance; 95 % intervals should miss in about one of twenty sessions."""
    import numpy
    import polars

    random = numpy.random.default_rng(5)
    missed = 0
    for _ in range(60):
        slow = numpy.repeat(random.normal(0, 3, 40), 50)
        is_mixed = random.random(2000) < 0.3
        period = 10 + slow * is_mixed + 20 * is_mixed + random.normal(0, 1, 2000)
        frame = polars.DataFrame(
            {
                "period_ns": (period * 1e6).astype(int), "no_requests_ns": [0] * 2000, "step_tokens": [4] * 2000,
                "recomputed_tokens": [0] * 2000, "step_requests": 4 + is_mixed.astype(int),
                "context_requests": is_mixed.astype(int), "context_tokens": [0] * 2000,
            }
        )  # fmt: skip
        costs = matched_steps.measure(frame)
        assert costs is not None
        missed += not costs.low <= 20e6 <= costs.high
    assert missed <= 8, "binomial(60, 0.05) is above 8 once in 600"


def test_steps_after_a_pause_and_recomputed_ones_are_left_out(session: SessionBuilder) -> None:
    steps = [mixed(30) if n % 2 else decode(10) for n in range(200)]
    odd = [decode(10, no_requests_ns=10**12), decode(900, recomputed_tokens=7), decode(0)]
    add_steps(session, [decode(10), *steps, *odd])
    numbers = finding(session, interference.NAME).numbers
    assert (numbers["plain_steps"], numbers["plain_mean_ms"]) == (100, pytest.approx(10))


def test_a_lost_row_gives_no_time(session: SessionBuilder) -> None:
    """Between steps 100 and 102 lie two steps: their time is nobody's."""
    steps = placed([mixed(30) if n % 2 else decode(10) for n in range(201)])
    del steps[100]
    session.process("EngineCore").rows(BOTH, *steps)
    assert finding(session, interference.NAME).numbers["mixed_mean_ms"] == pytest.approx(30)


def test_prompts_that_hardly_delay_are_fine(session: SessionBuilder) -> None:
    add_steps(session, [mixed(15) if n % 2 else decode(10) for n in range(400)])
    found = finding(session, interference.NAME)
    assert (found.level, found.title) == (FINE, "Prompts hardly delay those who decode")


def test_no_delay_at_all(session: SessionBuilder) -> None:
    add_steps(session, [mixed(10) if n % 2 else decode(10) for n in range(400)])
    assert finding(session, interference.NAME).title == "No delay of decodes by prompts was measured"


@pytest.mark.parametrize("mixed_steps", [0, 49])
def test_few_matched_steps_are_too_few(session: SessionBuilder, mixed_steps: int) -> None:
    add_steps(session, [mixed(30) if n < mixed_steps else decode(10) for n in range(600)])
    assert finding(session, interference.NAME).level == THIN


def test_steps_without_partners_are_no_evidence(session: SessionBuilder) -> None:
    add_steps(session, [mixed(30, 5) if n % 2 else decode(10, 4) for n in range(400)])
    found = finding(session, interference.NAME)
    assert found.level == THIN
    assert "matched steps" in found.says


def test_where_prefill_is_not_told_nothing_is_said(session: SessionBuilder) -> None:
    add_steps(session, [plain_step(context_requests=None, context_tokens=None) for _ in range(400)])
    names = [one.name for one in scheduling.advise(Session(session.path))]
    assert interference.NAME not in names
    assert limits.NAME in names


def linear(chunk: int, decodes: int = 4) -> dict[str, Any]:
    """5 ms, 20 us for a token of the chunk, 250 us for a decode."""
    return mixed(5 + 0.02 * chunk + 0.25 * decodes, decodes, chunk)


def chunky() -> list[dict[str, Any]]:
    """Chunks of 2,044 and of 500 tokens in turn, each beside 4 and beside 8 decodes."""
    cycle = [decode(6), linear(2044), decode(7, 8), linear(500, 8), linear(2040, 8), linear(500)]
    return [decode(6), *(cycle * 60)]


MIXED_TOKENS = 2044 + 500 + 2040 + 500


def test_a_smaller_budget_is_predicted_from_the_chunk(session: SessionBuilder) -> None:
    """Under 1,024: 1,020, 1,020 and 4 beside 4 decodes; 1,016, 1,016 and 8 beside 8; 500 stay one."""
    add_steps(session, chunky())
    found = finding(session, interference.NAME)
    assert found.flags == ("--max-num-batched-tokens 1024",)
    p95, rate = found.gains
    assert p95.now == pytest.approx(5 + 40.8 + 2), "2,040 beside 8 is the longest step, a quarter of them"
    assert p95.expected == pytest.approx(5 + 20.32 + 2, rel=1e-6)
    now = 46.88 + 17 + 47.8 + 16
    then = (26.4 + 26.4 + 6.08) + 17 + (27.32 + 27.32 + 7.16) + 16
    assert rate.now == pytest.approx(1000 * MIXED_TOKENS / now, rel=1e-6)
    assert rate.expected == pytest.approx(1000 * MIXED_TOKENS / then, rel=1e-6)
    assert found.numbers["ns_per_prompt_token"] == pytest.approx(20_000)
    assert found.numbers["variance_explained"] == pytest.approx(1)
    assert p95.low <= p95.expected <= p95.high
    assert found.alternatives == ("--long-prefill-token-threshold 1018",)


def test_the_prediction_holds_for_a_session_that_is_so(session: SessionBuilder) -> None:
    """What 1,024 does to the same prompts, and a server that did not become any quicker."""
    add_steps(session, chunky())
    found = finding(session, interference.NAME)
    as_told = SessionBuilder(session.path.parent, "session_20251124_170000")
    cycle = [decode(6), linear(1020), linear(1020), linear(4), decode(7, 8), linear(500, 8)]
    cycle += [linear(1016, 8), linear(1016, 8), linear(8, 8), linear(500)]
    add_steps(as_told, [decode(6), *(cycle * 60)])
    verdicts = scheduling.verify(found, Session(as_told.path))
    assert [verdict.quantity for verdict in verdicts] == [smaller_chunks.FULL_STEP, smaller_chunks.RATE]
    assert [verdict.observed for verdict in verdicts] == pytest.approx([27.32, 1000 * MIXED_TOKENS / 153.68])
    assert [verdict.predicted for verdict in verdicts] == pytest.approx([verdict.observed for verdict in verdicts])
    not_so = scheduling.verify(found, Session(session.path))
    assert [verdict.holds for verdict in not_so] == [False, False]
    assert "took 6.5 ms there and 6.5 ms before" in verdicts[0].says


def test_a_slower_machine_is_seen_by_the_steps_without_prompts(session: SessionBuilder) -> None:
    add_steps(session, chunky())
    found = finding(session, interference.NAME)
    slower = SessionBuilder(session.path.parent, "session_20251124_170000")
    add_steps(slower, [decode(12), *([decode(12), linear(1020), decode(14, 8), linear(500, 8)] * 60)])
    says = scheduling.verify(found, Session(slower.path))[0].says
    assert "took 13 ms there and 6.5 ms before: the machine was not as quick" in says


def test_chunks_that_go_with_the_decodes_cannot_be_told_apart(session: SessionBuilder) -> None:
    cycle = [decode(6), linear(2044), decode(7, 8), linear(500, 8)]
    add_steps(session, [decode(6), *(cycle * 100)])
    found = finding(session, interference.NAME)
    assert (found.level, found.flags) == (LOOK, ())
    assert "go together" in found.says


def test_chunks_of_a_size_that_was_not_seen_are_not_predicted(session: SessionBuilder) -> None:
    add_steps(session, [linear(2000 + n % 40) if n % 2 else decode(6) for n in range(401)])
    found = finding(session, interference.NAME)
    assert (found.level, found.flags, found.gains) == (LOOK, (), ())
    assert "were seen, so what smaller ones would take is not predicted" in found.says


def test_time_that_does_not_go_with_the_chunk_is_not_predicted(session: SessionBuilder) -> None:
    add_steps(
        session, [mixed(30 + n * 7919 % 50, chunk=100 + n * 104729 % 1900) if n % 2 else decode(6) for n in range(401)]
    )
    found = finding(session, interference.NAME)
    assert (found.level, found.flags) == (LOOK, ())
    assert "of the variance of these steps' time" in found.says


def test_small_chunks_need_no_smaller_budget(session: SessionBuilder) -> None:
    add_steps(session, [linear(600 + n % 40) if n % 2 else decode(6) for n in range(401)])
    assert "small already" in finding(session, interference.NAME).says


def test_the_budget_stays_above_the_sequences(session: SessionBuilder) -> None:
    cap = {"max_requests": 2000}
    add_steps(session, [linear(2000) | cap if n % 2 else decode(6) | cap for n in range(401)])
    assert "no smaller than max_num_seqs (2,000)" in finding(session, interference.NAME).says


# -- Python -------------------------------------------------------------------------------------------------------------


def test_shares_of_the_thread(session: SessionBuilder) -> None:
    times = {"schedule_ns": 1 * MS, "update_ns": 2 * MS, "between_ns": 3 * MS, "blocked_ns": 14 * MS}
    add_steps(session, [plain_step() | times for _ in range(500)])
    found = finding(session, host_time.NAME)
    assert found.numbers["python_share"] == pytest.approx(0.3)
    assert found.numbers["seconds_waiting_for_model"] == pytest.approx(7)
    assert (found.level, found.flags) == (LOOK, ()), "async scheduling is on already"
    assert "14" not in found.flags
    assert "20 ms per step with tokens, of which 6 ms are Python" in found.says


def test_async_scheduling_hides_the_shorter_of_the_two(session: SessionBuilder) -> None:
    """Half of the steps 6 of 20 ms, half 12 of 20 ms Python: 14 and 12 ms are left if all is hidden."""
    one = {"schedule_ns": 1 * MS, "update_ns": 2 * MS, "between_ns": 3 * MS, "blocked_ns": 14 * MS}
    other = {"schedule_ns": 6 * MS, "update_ns": 3 * MS, "between_ns": 3 * MS, "blocked_ns": 8 * MS}
    add_steps(session, [plain_step() | (one if n % 2 else other) for n in range(500)], async_scheduling=False)
    found = finding(session, host_time.NAME)
    (gain,) = found.gains
    assert (found.level, found.flags) == (ACT, ("--async-scheduling",))
    assert (gain.now, gain.expected, gain.low, gain.high) == pytest.approx((20, 13, 13, 20))


def test_verify_async_scheduling(session: SessionBuilder) -> None:
    add_steps(session, [plain_step(schedule_ns=5 * MS) for _ in range(500)], async_scheduling=False)
    found = finding(session, host_time.NAME)
    after = SessionBuilder(session.path.parent, "session_20251124_170000")
    add_steps(after, [plain_step(9.5) for _ in range(500)])
    (verdict,) = scheduling.verify(found, Session(after.path))
    assert (verdict.observed, verdict.holds) == (pytest.approx(9.5), True)
    slower = SessionBuilder(session.path.parent, "session_20251124_180000")
    add_steps(slower, [plain_step(30) for _ in range(500)])
    assert not scheduling.verify(found, Session(slower.path))[0].holds


def test_little_python_is_fine(session: SessionBuilder) -> None:
    times = {"schedule_ns": MS, "update_ns": 0, "between_ns": 0, "blocked_ns": 99 * MS}
    add_steps(session, [plain_step() | times for _ in range(500)], async_scheduling=False)
    assert (finding(session, host_time.NAME).level, finding(session, host_time.NAME).flags) == (FINE, ())


def test_operations_are_told_where_they_were_timed(session: SessionBuilder) -> None:
    core = add_steps(session, [plain_step() for _ in range(500)])
    cells = {"time_ns": at(40), "squares_us2": 1, "min_ns": 1, "max_ns": 9, "histogram": "700:500"}
    core.rows(
        cpu_events.TOTALS,
        {**cells, "operation": "engine_step", "calls": 500, "total_ns": 5000 * MS},
        {**cells, "operation": "schedule", "calls": 500, "total_ns": 250 * MS},
    )
    found = finding(session, host_time.NAME)
    assert "scheduling 5.0 %" in found.says
    assert [one.table for one in found.evidence] == ["engine_steps", "cpu_operations"]


# -- queue --------------------------------------------------------------------------------------------------------------


def queued(*waiting: int, steps: int = 50, ms: float = 100, **cells: Any) -> list[dict[str, Any]]:
    return [plain_step(ms, waiting=one, step_finished=1, **cells) for one in waiting for _ in range(steps)]


def test_a_growing_queue_is_seen_with_its_slope(session: SessionBuilder) -> None:
    """One more request every 50 steps of 0.1 s: 12 a minute."""
    add_steps(session, queued(*range(12)))
    found = finding(session, queue_growth.NAME)
    assert found.level == LOOK
    assert found.numbers["per_minute"] == pytest.approx(12, rel=0.01)
    assert found.numbers["per_minute_low"] > 0
    assert found.numbers["p_value"] < 0.001
    assert found.numbers["ended_per_minute"] == pytest.approx(600, rel=0.01)
    assert found.numbers["left"] == 11 + 4
    assert found.flags == ()


def test_slices_are_means_over_time(session: SessionBuilder) -> None:
    """0 waits for 60 s and 6 for 60 s in two engines at once: slices of 10 s have 0, then 12."""
    for _ in range(2):
        add_steps(session, queued(*[0] * 6, *[6] * 6, ms=200))
    means = finding(session, queue_growth.NAME).numbers["waiting_by_slice"]
    assert means[:6] == pytest.approx([0] * 6, abs=0.2)
    assert means[6:] == pytest.approx([12] * 6, abs=0.3)


def test_a_value_holds_until_the_next_row() -> None:
    import numpy

    means = queue_growth._slice_means(
        numpy.array([2.0, 4.0, 9.0]), numpy.array([1.0, 3.0, 5.0]), numpy.linspace(0, 12, 5)
    )
    assert means.tolist() == pytest.approx([1 / 3, (1 + 6) / 3, 3, 5])


@pytest.mark.parametrize(
    ("waiting", "title"),
    [
        (range(12, 0, -1), "The queue shrank: what had come at once was worked off"),
        ([5, 4, 6] * 4, "The queue does not grow steadily"),
        ([0] * 11 + [9], "The queue does not grow steadily"),
        ([0] * 12, "No request ever waited after a step"),
    ],
)
def test_queues_that_do_not_grow(session: SessionBuilder, waiting: Any, title: str) -> None:
    add_steps(session, queued(*waiting))
    assert (finding(session, queue_growth.NAME).level, finding(session, queue_growth.NAME).title) == (FINE, title)


@pytest.mark.parametrize(("steps", "ms"), [(10, 1000), (50, 1)])
def test_short_queues_are_thin(session: SessionBuilder, steps: int, ms: float) -> None:
    add_steps(session, queued(*range(12), steps=steps, ms=ms))
    assert finding(session, queue_growth.NAME).level == THIN


# -- preemptions --------------------------------------------------------------------------------------------------------


def preempt(core: ProcessBuilder, request: str, seconds: float, delay: float | None, number: int = 1) -> None:
    row = {"engine": 0, "step": 1, "request": request, "number": number, "reason": "no_blocks"}
    core.rows(request_events.PREEMPTIONS, {**row, "time_ns": at(seconds), "event": "preempted"})
    if delay is not None:
        core.rows(request_events.PREEMPTIONS, {**row, "time_ns": at(seconds + delay), "event": "resumed"})


def test_what_preemptions_cost(session: SessionBuilder) -> None:
    """Steps of 4 tokens, every tenth computes 2 again; 4 run for 10 s; 3 preemptions, of which two resumed."""
    steps = [
        plain_step(10, recomputed_tokens=2 if n % 10 == 0 else 0, step_finished=1, preemptions=min(3, n))
        for n in range(1000)
    ]
    core = add_steps(session, steps)
    preempt(core, "a", 11, 0.5)
    preempt(core, "a", 12, 1.5, number=2)
    preempt(core, "b", 13, None)
    found = finding(session, preemption_cost.NAME)
    assert found.level == LOOK
    assert found.numbers["preemptions"] == 3
    assert (found.numbers["recomputed_tokens"], found.numbers["scheduled_tokens"]) == (200, 4000)
    assert found.numbers["share_recomputed"] == pytest.approx(0.05)
    assert (found.numbers["resumed"], found.numbers["seconds_waited"]) == (2, pytest.approx(2))
    assert found.numbers["share_of_time_waited"] == pytest.approx(2 / 42)


def test_two_engines_preempt_each_for_itself(session: SessionBuilder) -> None:
    for _ in range(2):
        add_steps(session, [plain_step(preemptions=5, recomputed_tokens=1) for _ in range(300)])
    assert finding(session, preemption_cost.NAME).numbers["preemptions"] == 10


def test_no_preemption_in_enough_requests_is_fine_and_in_few_is_thin(session: SessionBuilder) -> None:
    add_steps(session, [plain_step(step_finished=1) for _ in range(99)])
    assert finding(session, preemption_cost.NAME).level == THIN
    other = SessionBuilder(session.path.parent, "session_20251124_170000")
    add_steps(other, [plain_step(step_finished=1) for _ in range(100)])
    assert finding(other, preemption_cost.NAME).level == FINE


# -- odd sessions -------------------------------------------------------------------------------------------------------


def test_no_steps_is_one_finding(session: SessionBuilder) -> None:
    assert [(one.name, one.level) for one in scheduling.advise(Session(session.path))] == [("scheduling.steps", THIN)]


@pytest.mark.parametrize("table", [step_events.STEPS, BOTH], ids=["alone", "with_kv"])
@pytest.mark.parametrize("cells", [{}, {"working": 0}, {"empty": True}], ids=["plain", "no_time", "empty_cells"])
@pytest.mark.parametrize("steps", [1, 2, 600])
def test_odd_rows_are_no_error(session: SessionBuilder, table: Any, cells: dict[str, Any], steps: int) -> None:
    """Steps without any time; rows of which only the times are filled."""
    row = plain_step(0 if "working" in cells else 10)
    if "empty" in cells:
        times = ("schedule_ns", "update_ns", "between_ns", "no_requests_ns", "blocked_ns")
        row = {name: cell if name in times else None for name, cell in row.items()}
    add_steps(session, [row] * steps, table=table)
    assert all(one.says for one in scheduling.advise(Session(session.path)))
