"""Requests and preemptions of vLLM's own scheduler, without a model: every row against an oracle that shares no code with the
tracker and reads SchedulerOutput instead of the requests."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any, NamedTuple

import environment
import pytest
import streams
import warm

DRIVE = environment.ROOT / "tests" / "oracle" / "drive_requests.py"
POOL = ["--blocks", "40", "--requests", "60", "--max-num-seqs", "16", "--max-num-batched-tokens", "128"]
ROUNDING_SECONDS = 2e-6

CONFIGURATIONS = {
    "sync": [],
    "async": ["--async"],
    "v2-async": ["--more", "v2", "--async"],
    "reset-async": ["--more", "reset", "--async"],
    "abort-async": ["--more", "abort", "--async"],
    "abort-reset-priority": ["--more", "abort", "reset", "priority"],
}


class Run(NamedTuple):
    """One run: what the oracle saw, the exported files, and the tracker's own streams."""

    name: str
    oracle: dict[str, Any]
    session: Path

    def file(self, name: str) -> list[dict[str, str]]:
        """Rows of a CSV file at the top of the session."""
        with (self.session / name).open(newline="") as file:
            return list(csv.DictReader(file))

    def created_ns(self) -> int:
        """The monotonic clock when the session began."""
        return int(json.loads((self.session / "session.json").read_text())["created_monotonic_ns"])

    def is_within(self, cell: str, between_ns: list[int] | None) -> bool:
        """Whether a moment lies within a call that the oracle saw; empty where there was none."""
        if between_ns is None or not cell:
            return between_ns is None and not cell
        earliest, latest = ((moment - self.created_ns()) / 1e9 for moment in between_ns)
        return earliest - ROUNDING_SECONDS <= float(cell) <= latest + ROUNDING_SECONDS

    def preemptions(self) -> list[tuple[dict[str, str], dict[str, Any]]]:
        """Each row with what the oracle saw, in order of time."""
        expected = sorted(self.oracle["preemptions"], key=lambda one: one["time_ns"])
        return list(zip(self.file("preemption_events.csv"), expected, strict=True))


def takes(cell: str, begin_ns: list[int] | None, end_ns: list[int] | None) -> bool:
    """Whether a duration fits two calls of which it is known when each began and ended."""
    if begin_ns is None or end_ns is None:
        return not cell
    shortest, longest = (end_ns[0] - begin_ns[1]) / 1e9, (end_ns[1] - begin_ns[0]) / 1e9
    return shortest - ROUNDING_SECONDS <= float(cell) <= longest + ROUNDING_SECONDS


@pytest.fixture(scope="module", params=list(CONFIGURATIONS))
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    name = str(request.param)
    folder = tmp_path_factory.mktemp(name)
    done = warm.run(
        [str(DRIVE), str(folder / "oracle.json"), *POOL, *CONFIGURATIONS[name]],
        env=environment.profiled(folder / "sessions", PROFILEMATE_SHOW_REQUEST_IDS="1", VLLM_LOGGING_LEVEL="ERROR"),
    )
    assert done.returncode == 0, done.stderr[-3000:]
    session = streams.only_session(folder / "sessions")
    streams.export(session)
    return Run(name, json.loads((folder / "oracle.json").read_text()), session)


def test_every_preemption_has_its_reason_its_loss_and_its_resume(run: Run) -> None:
    expected = sorted(run.oracle["preemptions"], key=lambda one: one["time_ns"])
    assert len(expected) > 15
    found = run.file("preemption_events.csv")

    def whole(cell: Any) -> str:
        return "" if cell is None else str(cell)

    assert [
        (
            row["request_id"], row["step"], row["number"], row["reason"], row["for_request_id"], row["asked_tokens"],
            row["free_blocks"], row["lost_tokens"], row["kept_tokens"], row["recomputed_tokens"], row["extra_info"],
        )
        for row in found
    ] == [
        (
            one["request"], str(one["step"]), str(one["number"]), one["reason"], one["for_request"], whole(one["asked"]),
            str(one["free"]), str(one["lost"]), whole(one["kept"]), whole(one["recomputed"]), one["outcome"],
        )
        for one in expected
    ]  # fmt: skip
    assert all(
        run.is_within(row["timestamp_sec"], one["between_ns"])
        and run.is_within(row["resumed_sec"], one.get("resumed_ns"))
        for row, one in run.preemptions()
    )


def test_recompute_time_is_from_the_resume_to_the_end_of_the_step_with_the_last_lost_token(run: Run) -> None:
    for row, one in run.preemptions():
        recovered_ns = one["recovered_ns"] if one["outcome"] == "recovered" else None
        assert takes(row["recompute_time_sec"], one.get("resumed_ns"), recovered_ns), row


def test_running_time_is_since_the_run_that_it_ended_began(run: Run) -> None:
    began = {name: one.get("scheduled_ns") for name, one in run.oracle["began"].items()}
    for row, one in run.preemptions():
        assert takes(row["running_time_sec"], began[one["request"]], one["between_ns"]), row
        began[one["request"]] = one.get("resumed_ns")


def test_every_request_is_there_once_with_the_scheduler_s_numbers(run: Run) -> None:
    found = {row["request_id"]: row for row in run.file("request_lifecycle.csv")}
    assert len(run.file("request_lifecycle.csv")) == len(found) == len(run.oracle["began"]) == 60
    words = {"FINISHED_LENGTH_CAPPED": "length", "FINISHED_ABORTED": "abort", "FINISHED_STOPPED": "stop"}
    for one in run.oracle["finished"]:
        row, began = found[one["request"]], run.oracle["began"][one["request"]]
        assert row["finish_reason"] == words[one["status"]]
        told = (row["prompt_tokens"], row["output_tokens"], row["preemptions"], row["priority"])
        assert told == (str(one["prompt"]), str(one["output"]), str(one["preemptions"]), str(one["priority"]))
        assert row["cached_tokens"] == str(began.get("cached", ""))
        if "v2" not in run.name:  # there vLLM counts a resumed request that has output among the new ones
            assert row["prefill_chunks"] == (str(one["chunks"]) if one["chunks"] else "")
        assert run.is_within(row["queued_sec"], began["queued_ns"])
        assert run.is_within(row["first_scheduled_sec"], began.get("scheduled_ns"))
        assert run.is_within(row["finished_sec"], one["between_ns"])
        assert run.is_within(row["first_token_sec"], began.get("first_token_ns")), row


def test_the_aborted_ones_were_in_every_stage(run: Run) -> None:
    """A check of the trace: else the tests above would show less than they say."""
    if "abort" not in run.name:
        pytest.skip("nothing is aborted here")
    aborted = [row for row in run.file("request_lifecycle.csv") if row["finish_reason"] == "abort"]
    stages = {(bool(row["first_scheduled_sec"]), bool(row["first_token_sec"])) for row in aborted}
    assert {(False, False), (True, True)} <= stages
    assert any(row["extra_info"] == "ended while preempted" for row in run.file("preemption_events.csv"))


def test_nothing_is_kept_of_requests_that_are_over(run: Run) -> None:
    summary = json.loads((run.session / "preemption_summary.json").read_text())
    assert summary["total_preemptions"] == len(run.oracle["preemptions"])
    assert summary["total_requests"] == 60
    assert run.oracle["left"] == {"waiting": 0, "prefilling": 0, "preempted": 0, "recovering": 0, "awaited": 0}


def test_reasons_are_vllm_s_own() -> None:
    request = pytest.importorskip("vllm.v1.request")
    from profilemate.trackers.requests.life import REASONS

    for status, reason in REASONS.items():
        assert reason == str(request.RequestStatus.get_finished_reason(request.RequestStatus[f"FINISHED_{status}"]))
