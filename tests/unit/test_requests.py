"""Requests put together from the rows of front end and scheduler, on sessions written by hand."""

from __future__ import annotations

import csv
import json
from typing import Any

import pytest
from session_builder import CREATED_MONOTONIC_NS, CREATED_WALL_NS, SECOND, ProcessBuilder, SessionBuilder, at

from profilemate.export import readme_files
from profilemate.schema.probe_tables import GAPS
from profilemate.session.session import Session
from profilemate.trackers.requests import events
from profilemate.trackers.requests.analyze import analyze


@pytest.fixture
def front(session: SessionBuilder) -> ProcessBuilder:
    return session.process("APIServer", engine_index=None)


@pytest.fixture
def core(session: SessionBuilder) -> ProcessBuilder:
    return session.process("EngineCore")


def arrival(request: str, seconds: float, **more: Any) -> dict[str, Any]:
    return {
        "time_ns": at(seconds + 0.001), "request": request, "external": "ext", "arrival_ns": at(seconds),
        "prompt_tokens": 40, "priority": 0, **more,
    }  # fmt: skip


def end(request: str, seconds: float, **more: Any) -> dict[str, Any]:
    return {
        "time_ns": at(seconds + 0.001), "request": request, "reason": "length", "is_counted": True, "end_ns": at(seconds),
        "prompt_tokens": 40, "cached_tokens": 16, "output_tokens": 11, "preemptions": 0, **more,
    }  # fmt: skip


def statistics(queued: float, scheduled: float, first: float, last: float) -> dict[str, Any]:
    """The moments that vLLM gives, on the engine core's clock."""
    return {
        "queued_ns": at(queued), "scheduled_ns": at(scheduled), "first_token_ns": at(first), "last_token_ns": at(last),
    }  # fmt: skip


def prefilled(request: str, seconds: float, **more: Any) -> dict[str, Any]:
    return {
        "time_ns": at(seconds), "engine": 0, "step": 3, "request": request, "event": "prefilled",
        "queued_ns": at(seconds - 0.3), "scheduled_ns": at(seconds - 0.1), "first_token_ns": at(seconds),
        "prompt_tokens": 40, "cached_tokens": 16, "prefill_steps": 2, **more,
    }  # fmt: skip


def finished(request: str, seconds: float, status: str = "LENGTH_CAPPED", **more: Any) -> dict[str, Any]:
    return {
        "time_ns": at(seconds), "engine": 0, "step": 9, "request": request, "event": "finished", "prompt_tokens": 40,
        "output_tokens": 11, "preemptions": 0, "priority": 0, "status": status, **more,
    }  # fmt: skip


def preemption(request: str, seconds: float, event: str, number: int = 1, **more: Any) -> dict[str, Any]:
    return {
        "time_ns": at(seconds), "engine": 0, "step": 5, "request": request, "event": event, "number": number, **more,
    }  # fmt: skip


def exported(session: SessionBuilder, name: str = "request_lifecycle.csv") -> list[dict[str, str]]:
    readme_files.write(Session(session.path))
    return list(csv.DictReader((session.path / name).read_text().splitlines()))


def test_both_halves_make_one_row_whose_moments_are_vllm_s(
    session: SessionBuilder, front: ProcessBuilder, core: ProcessBuilder
) -> None:
    front.rows(events.ARRIVALS, arrival("a", 1.0))
    front.rows(
        events.ENDS,
        end("a", 3.0, e2e_ns=2 * SECOND + 5, ttft_ns=SECOND // 2 + 7, **statistics(1.2, 1.3, 1.4, 2.9)),
    )
    core.rows(events.IN_ENGINE, prefilled("a", 1.5), finished("a", 2.95))
    (row,) = exported(session)
    assert (
        row["queued_sec"] == "1.200000" and row["first_token_sec"] == "1.400000" and row["finished_sec"] == "3.000000"
    )
    assert (row["ttft_sec"], row["e2e_latency_sec"]) == ("0.500000", "2.000000")
    assert (row["queue_time_frontend_sec"], row["queue_time_scheduler_sec"]) == ("0.300000", "0.100000")
    assert (row["tpot_sec"], row["decode_time_sec"], row["inference_time_sec"]) == ("0.150000", "1.500000", "1.600000")
    assert (row["submit_time_sec"], row["rest_time_sec"]) == ("0.200000", "0.100000")
    assert (row["prefill_chunks"], row["cached_tokens"], row["measured_by"]) == ("2", "16", "vllm")


def test_the_scheduler_s_moments_stand_in_where_vllm_keeps_none(
    session: SessionBuilder, front: ProcessBuilder, core: ProcessBuilder
) -> None:
    front.rows(events.ARRIVALS, arrival("a", 1.0)).rows(events.ENDS, end("a", 3.0, is_counted=False))
    core.rows(events.IN_ENGINE, prefilled("a", 1.5), finished("a", 2.5))
    (row,) = exported(session)
    assert (row["measured_by"], row["counted_by_vllm"]) == ("profilemate", "False")
    assert (row["first_token_sec"], row["last_token_sec"], row["ttft_sec"]) == ("1.500000", "2.500000", "0.500000")
    assert any("1 of 1 without vLLM's own statistics" in note for note in session.metadata()["notes"])


def test_a_request_aborted_before_it_ran_has_its_wait_as_its_rest(
    session: SessionBuilder, front: ProcessBuilder, core: ProcessBuilder
) -> None:
    front.rows(events.ARRIVALS, arrival("a", 1.0))
    front.rows(events.ENDS, end("a", 3.0, reason="abort", is_counted=False, output_tokens=0, cached_tokens=None))
    core.rows(events.IN_ENGINE, finished("a", 3.1, "ABORTED", queued_ns=at(1.25), output_tokens=0))
    (row,) = exported(session)
    assert (row["finish_reason"], row["started_sec"], row["total_time_sec"]) == ("abort", "", "")
    assert (row["submit_time_sec"], row["rest_time_sec"], row["e2e_latency_sec"]) == (
        "0.250000",
        "1.750000",
        "2.000000",
    )
    assert not row["last_token_sec"] and not row["tpot_sec"]


def test_an_engine_that_went_on_after_the_abort_has_a_rest_below_0(
    session: SessionBuilder, front: ProcessBuilder, core: ProcessBuilder
) -> None:
    """Seen on a busy machine: the client had hung up, and the request ran before its engine heard of that."""
    front.rows(events.ARRIVALS, arrival("a", 1.0))
    front.rows(events.ENDS, end("a", 3.0, reason="abort", is_counted=False, output_tokens=0, cached_tokens=None))
    core.rows(
        events.IN_ENGINE,
        finished("a", 3.5, "ABORTED", queued_ns=at(1.25), scheduled_ns=at(3.25), prefill_steps=1, output_tokens=0),
    )
    (row,) = exported(session)
    phases = [row[f"{name}_time_sec"] for name in ("submit", "prefill", "decode", "rest")]
    assert (row["first_scheduled_sec"], row["finished_sec"], row["e2e_latency_sec"]) == (
        "3.250000",
        "3.000000",
        "2.000000",
    )
    assert phases == ["0.250000", "", "", "-0.250000"] and row["queue_time_scheduler_sec"] == "2.000000"


def test_a_row_of_the_front_end_alone_and_one_of_the_scheduler_alone_are_both_there(
    session: SessionBuilder, front: ProcessBuilder, core: ProcessBuilder
) -> None:
    front.rows(events.ARRIVALS, arrival("a", 1.0), arrival("c", 4.0)).rows(events.ENDS, end("a", 3.0))
    core.rows(events.IN_ENGINE, prefilled("b", 1.5), finished("b", 2.5, "STOPPED"))
    rows = {row["request_id"]: row for row in exported(session)}
    assert {name: row["finish_reason"] for name, row in rows.items()} == {"a": "length", "b": "stop", "c": "unfinished"}
    assert rows["a"]["engine"] == "" and rows["b"]["arrival_sec"] == "" and rows["c"]["finished_sec"] == ""
    notes = " ".join(session.metadata()["notes"])
    assert "1 of 3 known to the scheduler alone" in notes and "2 of 3 known to the front end alone" in notes
    assert "1 of 3 not over" in notes


def test_a_front_end_on_another_host_is_put_on_the_session_s_clock(
    session: SessionBuilder, core: ProcessBuilder
) -> None:
    skew = 3_000 * SECOND
    far = session.process(
        "APIServer", engine_index=None, boot_id="another-boot",
        clock={"wall_ns": CREATED_WALL_NS + SECOND, "monotonic_ns": CREATED_MONOTONIC_NS + SECOND + skew},
    )  # fmt: skip
    far.rows(events.ARRIVALS, arrival("a", 1.0, time_ns=at(1.0) + skew, arrival_ns=at(1.0) + skew))
    far.rows(
        events.ENDS, end("a", 3.0, time_ns=at(3.0) + skew, end_ns=at(3.0) + skew, **statistics(1.2, 1.3, 1.4, 2.9))
    )
    core.rows(events.IN_ENGINE, prefilled("a", 1.4), finished("a", 2.9))
    (row,) = exported(session)
    assert [row[name] for name in ("arrival_sec", "queued_sec", "last_token_sec", "finished_sec")] == [
        "1.000000", "1.200000", "2.900000", "3.000000",
    ]  # fmt: skip


def test_an_id_that_comes_again_is_another_request(
    session: SessionBuilder, front: ProcessBuilder, core: ProcessBuilder
) -> None:
    """Before vLLM 0.14 the ids are the client's own."""
    front.rows(events.ARRIVALS, arrival("a", 1.0), arrival("a", 5.0)).rows(events.ENDS, end("a", 3.0), end("a", 8.0))
    core.rows(
        events.IN_ENGINE, prefilled("a", 1.5), finished("a", 2.9), prefilled("a", 5.5), finished("a", 7.9, output_tokens=5)
    )  # fmt: skip
    assert [row["arrival_sec"] for row in exported(session)] == ["1.000000", "5.000000"]


def test_an_id_that_comes_again_does_not_wait_for_the_first_one_s_other_half(
    session: SessionBuilder, front: ProcessBuilder, core: ProcessBuilder
) -> None:
    front.rows(events.ARRIVALS, arrival("a", 1.0), arrival("a", 5.0)).rows(events.ENDS, end("a", 3.0), end("a", 8.0))
    core.rows(events.IN_ENGINE, prefilled("a", 5.5), finished("a", 7.9))
    assert [(row["arrival_sec"], row["engine"]) for row in exported(session)] == [("1.000000", ""), ("5.000000", "0")]


def test_an_end_that_is_told_twice_is_one_request(
    session: SessionBuilder, front: ProcessBuilder, core: ProcessBuilder
) -> None:
    """The engine's death ends it, and then the client's task aborts it, whether or not the scheduler was done with it."""
    front.rows(events.ARRIVALS, arrival("a", 1.0), arrival("b", 1.0))
    for name in ("a", "b"):
        front.rows(events.ENDS, end(name, 3.0, reason="engine_died", is_counted=False))
        front.rows(events.ENDS, end(name, 3.2, reason="abort", is_counted=False))
    core.rows(events.IN_ENGINE, prefilled("a", 1.5), prefilled("b", 1.5), finished("b", 2.9))
    rows = exported(session)
    assert sorted((row["request_id"], row["finish_reason"]) for row in rows) == [
        ("a", "engine_died"),
        ("b", "engine_died"),
    ]


LOSS = {"reason": "no_blocks", "for_request": "z", "asked_tokens": 1, "lost_tokens": 90, "free_blocks": 0}


def test_a_preemption_s_costs_are_put_together(
    session: SessionBuilder, front: ProcessBuilder, core: ProcessBuilder
) -> None:
    core.rows(events.IN_ENGINE, prefilled("a", 1.5), finished("a", 9.0, preemptions=3))
    core.rows(
        events.PREEMPTIONS,
        preemption("a", 2.0, "preempted", **LOSS),
        preemption("a", 2.5, "resumed", kept_tokens=64),
        preemption("a", 2.7, "recovered", recomputed_tokens=26),
        preemption("a", 4.0, "preempted", 2, **LOSS),
        preemption("a", 4.25, "resumed", 2, kept_tokens=64),
        preemption("a", 4.5, "cut_short", 2, recomputed_tokens=10),
        preemption("a", 4.5, "preempted", 3, **LOSS),
    )
    rows = exported(session, "preemption_events.csv")
    assert [row["extra_info"] for row in rows] == ["recovered", "cut_short", "ended while preempted"]
    assert [row["running_time_sec"] for row in rows] == ["0.600000", "1.500000", "0.250000"]
    assert [row["resume_delay_sec"] for row in rows] == ["0.500000", "0.250000", ""]
    assert [row["recompute_time_sec"] for row in rows] == ["0.200000", "", ""]
    assert {row["event"] for row in rows} == {"preempted"}
    summary = json.loads(session.text("preemption_summary.json"))
    assert summary["total_preemptions"] == 3 and summary["preemption_reasons"] == {"no_blocks": 3}
    assert (summary["lost_tokens"], summary["recomputed_tokens"]) == (270, 36)
    assert (summary["mean_resume_delay"], summary["max_resume_delay"]) == (0.375, 0.5)
    (life,) = exported(session)
    assert (life["preempted_sec"], life["resumed_sec"]) == ("2.000000", "4.250000")
    assert life["preemption_delay_sec"] == "5.250000"  # 0.5, 0.25, and from 4.5 until it was over at 9


def test_a_preemption_in_prefill_learns_later_when_the_run_began(session: SessionBuilder, core: ProcessBuilder) -> None:
    core.rows(
        events.PREEMPTIONS, preemption("a", 1.45, "preempted", **LOSS), preemption("a", 1.48, "resumed", kept_tokens=0)
    )
    core.rows(events.IN_ENGINE, prefilled("a", 1.5), finished("a", 9.0, preemptions=1))
    (row,) = exported(session, "preemption_events.csv")
    assert row["running_time_sec"] == "0.050000"


def test_preemptions_that_no_hook_saw_are_said_to_be_missing(session: SessionBuilder, core: ProcessBuilder) -> None:
    core.rows(events.IN_ENGINE, prefilled("a", 1.5), finished("a", 9.0, preemptions=2))
    assert exported(session, "preemption_events.csv") == []
    notes = " ".join(session.metadata()["notes"])
    assert "preemption_events.csv lacks preemptions that the requests tell of (2)" in notes
    assert json.loads(session.text("preemption_summary.json"))["total_preemptions"] == 2


def test_requests_that_the_size_cap_took_are_counted_all_the_same(
    session: SessionBuilder, front: ProcessBuilder, core: ProcessBuilder
) -> None:
    front.rows(events.ARRIVALS, arrival("a", 1.0)).rows(events.ENDS, end("a", 3.0))
    front.rows(events.TOTALS, {"time_ns": at(2.0), "arrived": 7, "ended": 6, "freed": 0, "preempted": 0})
    core.rows(events.IN_ENGINE, finished("a", 2.9))
    core.rows(events.TOTALS, {"time_ns": at(2.0), "arrived": 0, "ended": 0, "freed": 5, "preempted": 4})
    exported(session)
    summary = json.loads(session.text("preemption_summary.json"))
    assert (summary["total_requests"], summary["total_preemptions"]) == (7, 4)
    assert any(
        "the size cap took the rows of 6 requests and 4 preemptions" in note for note in session.metadata()["notes"]
    )


def test_requests_whose_ends_the_size_cap_took_are_not_called_unfinished(
    session: SessionBuilder, front: ProcessBuilder
) -> None:
    """Three ends are lost: one of a request without any row, two of those that are there; the third of these runs on."""
    front.rows(events.ARRIVALS, *(arrival(name, 1.0) for name in "abcd")).rows(events.ENDS, end("d", 3.0))
    front.rows(events.TOTALS, {"time_ns": at(2.0), "arrived": 5, "ended": 3, "freed": 0, "preempted": 0})
    front.rows(GAPS, {"time_ns": at(2.0), "table": events.ENDS.name, "rows": 3, "reason": "size_cap"})
    exported(session)
    record = session.metadata()["summary"]["requests"]
    assert (record["unfinished"], record["end_not_kept"], record["removed_requests"]) == (1, 2, 1)
    assert record["by_reason"] == {"end not kept": 2, "length": 1, "unfinished": 1}


def test_two_engines_are_numbered(session: SessionBuilder, front: ProcessBuilder) -> None:
    for index in (0, 1):
        engine = session.process(f"EngineCore_DP{index}", engine_index=index)
        engine.rows(events.IN_ENGINE, prefilled(f"r{index}", 1.5), finished(f"r{index}", 2.5))
        front.rows(events.ARRIVALS, arrival(f"r{index}", 1.0)).rows(events.ENDS, end(f"r{index}", 3.0))
    assert sorted((row["request_id"], row["engine"]) for row in exported(session)) == [("r0", "0"), ("r1", "1")]


def test_open_requests_alone_are_kept_in_memory(
    session: SessionBuilder, front: ProcessBuilder, core: ProcessBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    from profilemate.trackers.requests import join

    open_at_once = []
    real = join._ended
    known: dict[str, Any] = {}

    def noted(life: Any, source: Any) -> None:
        known[life.request] = life
        open_at_once.append(sum(not (one.reason and one.status) for one in known.values()))
        real(life, source)

    monkeypatch.setitem(join.READERS, events.ENDS.name, noted)
    for number in range(50):
        front.rows(events.ARRIVALS, arrival(f"r{number}", number)).rows(events.ENDS, end(f"r{number}", number + 0.9))
        core.rows(events.IN_ENGINE, prefilled(f"r{number}", number + 0.5), finished(f"r{number}", number + 0.8))
    found = [life.request for life in join.lives(Session(session.path))]
    assert found == [f"r{number}" for number in range(50)]
    assert max(open_at_once) == 1


def test_latencies_are_over_the_requests_that_have_them(
    session: SessionBuilder, front: ProcessBuilder, core: ProcessBuilder
) -> None:
    for number in range(1, 5):
        name, first = f"r{number}", 1.0 + number / 10
        front.rows(events.ARRIVALS, arrival(name, 1.0))
        front.rows(events.ENDS, end(name, 4.0, output_tokens=number, **statistics(1.0, 1.05, first, 3.0)))
        core.rows(events.IN_ENGINE, finished(name, 3.0))
    summary = analyze(Session(session.path))
    assert summary.latencies["ttft"].count == 4 and summary.latencies["tpot"].count == 3
    assert summary.latencies["ttft"].mean_ns == pytest.approx(0.25e9)
    assert summary.latencies["ttft"].percentile_ns(50) == pytest.approx(0.2e9, rel=0.01)
