"""The files about engine steps, from rows written by hand."""

from __future__ import annotations

import json
from typing import Any

import pytest
from session_builder import SessionBuilder, at

from profilemate.export import readme_files
from profilemate.session.session import Session
from profilemate.trackers.engine_steps import events
from profilemate.trackers.engine_steps.analyze import Step
from profilemate.trackers.engine_steps.view import HEADER

MS = 1_000_000


def row(number: int, seconds: float, requests: int, tokens: int, context: int = 0, **cells: Any) -> dict[str, Any]:
    """A step scheduled at that second: 1 ms of scheduling, 5 ms of model, 2 ms of update, 2 ms between."""
    return {
        "time_ns": at(seconds) + 8 * MS, "engine": 0, "step": number, "scheduled_ns": at(seconds), "schedule_ns": MS,
        "running": requests, "waiting": 3, "skipped": 1, "step_requests": requests, "step_tokens": tokens,
        "context_requests": context, "context_tokens": 50 * context, "recomputed_tokens": 0, "step_preempted": 0,
        "limit": "no_work", "free_blocks": 150, "max_requests": 4, "max_step_tokens": 200, "usable_blocks": 200,
        "model_ns": 5 * MS, "blocked_ns": 5 * MS, "update_ns": 2 * MS, "between_ns": 2 * MS, "no_requests_ns": 0,
        "step_finished": 1, "drafted_tokens": 4, "accepted_tokens": 3, "in_flight": 0, **cells,
    }  # fmt: skip


def exported(session: SessionBuilder) -> dict[str, Any]:
    readme_files.write(Session(session.path))
    return dict(json.loads(session.text("batch_utilization_summary.json")))


@pytest.fixture
def four(session: SessionBuilder) -> SessionBuilder:
    """Prefill, mixed, decode and idle."""
    session.process("EngineCore").rows(
        events.STEPS,
        row(1, 1.0, 2, 100, 2, limit="token_budget"),
        row(2, 1.01, 3, 53, 1, recomputed_tokens=20, step_preempted=1, limit="kv_space"),
        row(3, 1.02, 2, 2),
        row(4, 1.03, 0, 0, no_requests_ns=90 * MS, between_ns=0),
    )
    return session


def test_batch_utilization(four: SessionBuilder) -> None:
    exported(four)
    assert four.text("batch_utilization.csv").splitlines()[0] == ",".join(HEADER)
    assert four.lines("batch_utilization.csv") == [
        "1.000000,2,4,50.0000,100,200,50.0000,prefill,2,3,1,token_budget,2,100,0,0,0,0,1,25.0000,4,3,"
        "0.001000,0.005000,0.005000,0.002000,0.002000,0.000000,0,1,0",
        "1.010000,3,4,75.0000,53,200,26.5000,mixed,3,3,1,kv_space,1,50,2,3,20,1,1,25.0000,4,3,"
        "0.001000,0.005000,0.005000,0.002000,0.002000,0.000000,0,2,0",
        "1.020000,2,4,50.0000,2,200,1.0000,decode,2,3,1,no_work,0,0,2,2,0,0,1,25.0000,4,3,"
        "0.001000,0.005000,0.005000,0.002000,0.002000,0.000000,0,3,0",
        "1.030000,0,4,0.0000,0,200,0.0000,idle,0,3,1,no_work,0,0,0,0,0,0,1,25.0000,4,3,"
        "0.001000,0.005000,0.005000,0.002000,0.000000,0.090000,0,4,0",
    ]


def test_summary(four: SessionBuilder) -> None:
    told = exported(four)
    assert told["total_samples"] == 4 and told["busy_steps"] == 3 and told["finished"] == 4
    assert told["mean_seq_utilization_pct"] == round(100 * 7 / 12, 4)
    assert told["mean_token_utilization_pct"] == round(100 * 155 / 600, 4)
    assert told["prefill_avg_utilization"] == round((50 + 26.5) / 2, 4) and told["decode_avg_utilization"] == 50
    assert told["underutilization_events"] == 0 and (told["max_num_seqs"], told["max_tokens"]) == (4, 200)
    assert (told["prefill_requests"], told["prefill_tokens"]) == (3, 150)
    assert (told["decode_requests"], told["decode_tokens"]) == (4, 5)
    assert told["share_by_limit"]["kv_space"] == 0.25 and told["steps_by_limit"]["no_work"] == 2
    assert told["scheduling_ms"]["p50"] == 1 and told["update_ms"]["p99"] == 2
    assert told["share_of_time_with_requests"] == {
        "scheduling": round(4 / 38, 9), "update": round(8 / 38, 9), "waiting_for_model": round(20 / 38, 9),
        "between_steps": round(6 / 38, 9),
    }  # fmt: skip
    assert told["seconds"]["without_requests"] == 0.09
    assert told == four.metadata()["summary"]["engine_steps"]


def test_a_step_less_than_half_full_in_both_ways_is_under_used(session: SessionBuilder) -> None:
    rows = [row(1, 1, 1, 99), row(2, 2, 2, 99), row(3, 3, 1, 100), row(4, 4, 0, 0)]
    session.process("EngineCore").rows(events.STEPS, *rows)
    assert exported(session)["underutilization_events"] == 1


def test_where_the_cap_removed_rows_sums_come_from_the_totals(session: SessionBuilder) -> None:
    older = dict.fromkeys(events.COUNTS, 0) | {"busy_steps": 9, "step_tokens": 900, "step_requests": 20, "no_work": 10}
    session.process("EngineCore").rows(
        events.STEPS, row(10, 1, 2, 7), row(11, 1.1, 2, 2), row(12, 1.2, 2, 3, limit="other")
    ).rows(events.TOTALS, {"time_ns": at(1.1), "engine": 0, "through_step": 11, **older})
    told = exported(session)
    assert (told["scheduled_tokens"], told["busy_steps"], told["total_samples"], told["rows"]) == (903, 10, 11, 3)
    assert told["steps_by_limit"]["no_work"] == 10 and told["steps_by_limit"]["other"] == 1
    assert told["mean_token_utilization_pct"] == round(100 * 903 / (10 * 200), 4)
    assert any("over the 3 newest steps" in note for note in session.metadata()["notes"])


def test_several_engines_are_added_and_their_rows_are_in_order_of_time(session: SessionBuilder) -> None:
    for index, seconds in ((0, 1.0), (1, 1.1)):
        session.process("EngineCore", engine_index=index).rows(
            events.STEPS, row(1, seconds, 2, 10), row(2, seconds + 0.2, 2, 10)
        )
    told = exported(session)
    assert (told["scheduled_tokens"], told["total_samples"]) == (40, 4)
    assert told["mean_token_utilization_pct"] == 5
    cells = [line.split(",") for line in session.lines("batch_utilization.csv")]
    assert [(line[0], line[-1]) for line in cells] == [
        ("1.000000", "0"), ("1.100000", "1"), ("1.200000", "0"), ("1.300000", "1"),
    ]  # fmt: skip


def test_a_step_of_which_only_the_update_was_seen_is_counted_apart(session: SessionBuilder) -> None:
    unseen = dict.fromkeys(events.STEPS.columns[3:], None) | {"update_ns": MS, "blocked_ns": 0, "between_ns": 0}
    session.process("EngineCore").rows(
        events.STEPS,
        {"time_ns": at(1), "engine": 0, "step": 1, **unseen},
        row(2, 2, 2, 4),
        {"time_ns": at(3), "engine": 0, "step": 3, **unseen},
    )
    told = exported(session)
    assert (told["total_samples"], told["rows"], told["max_num_seqs"]) == (1, 3, 4)
    assert told["mean_seq_utilization_pct"] == 50
    assert session.lines("batch_utilization.csv")[0].startswith("1.000000,,,,,,,,,,,,")
    assert any("of 2 steps only the update was seen" in note for note in session.metadata()["notes"])


def test_what_never_came_back_is_in_the_notes(session: SessionBuilder) -> None:
    session.process("EngineCore").rows(events.STEPS, row(1, 1, 2, 4, in_flight=1)).rows(
        events.UNFINISHED,
        {
            "time_ns": at(2),
            "engine": 0,
            "scheduled_ns": at(1.5),
            "number": 2,
            "limit": "other",
            "reason": "engine_dead",
        },
    )
    assert exported(session)["unfinished_steps"] == {"engine_dead": 1}
    notes = " ".join(session.metadata()["notes"])
    assert "1 were scheduled and their output never came (engine_dead 1)" in notes
    assert "1 were in flight at the last row" in notes


def test_a_row_of_another_tracker_alone_is_no_step(session: SessionBuilder) -> None:
    session.process("EngineCore").rows(events.STEPS, row(1, 1, 2, 4), {"time_ns": at(2), "engine": 0, "step": 1})
    assert exported(session)["rows"] == 1


def test_a_session_without_steps_says_so(session: SessionBuilder) -> None:
    told = exported(session)
    assert told["total_samples"] == 0 and told["mean_seq_utilization_pct"] is None
    assert session.lines("batch_utilization.csv") == []


def test_the_typed_row_is_that_of_the_table() -> None:
    assert Step._fields == events.STEPS.columns
