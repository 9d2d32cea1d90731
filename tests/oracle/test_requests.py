"""Requests and preemptions of vLLM's own scheduler, without a model: every row against an oracle that shares no code with the
tracker and reads SchedulerOutput instead of the requests."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import environment
import pytest
import streams

DRIVE = environment.ROOT / "tests" / "oracle" / "drive_requests.py"
POOL = ["--blocks", "40", "--requests", "60", "--max-num-seqs", "16", "--max-num-batched-tokens", "128"]
TOLERANCE_SECONDS = 0.005

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

    def seconds(self, monotonic_ns: int | None) -> float | None:
        """Since the session began."""
        return None if monotonic_ns is None else (monotonic_ns - self.created_ns()) / 1e9


@pytest.fixture(scope="module", params=list(CONFIGURATIONS))
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    name = str(request.param)
    folder = tmp_path_factory.mktemp(name)
    done = subprocess.run(
        [sys.executable, str(DRIVE), str(folder / "oracle.json"), *POOL, *CONFIGURATIONS[name]],
        env=environment.profiled(folder / "sessions", PROFILEMATE_SHOW_REQUEST_IDS="1", VLLM_LOGGING_LEVEL="ERROR"),
        capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    session = streams.only_session(folder / "sessions")
    streams.export(session)
    return Run(name, json.loads((folder / "oracle.json").read_text()), session)


def close(found: str, expected: float | None) -> bool:
    """Whether a cell is that moment, as far as two clocks read one after the other can agree."""
    if expected is None or not found:
        return expected is None and not found
    return abs(float(found) - expected) < TOLERANCE_SECONDS


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
        close(row["timestamp_sec"], run.seconds(one["time_ns"]))
        and close(row["resumed_sec"], run.seconds(one.get("resumed_ns")))
        for row, one in zip(found, expected, strict=True)
    )


def test_recompute_time_is_from_the_resume_to_the_end_of_the_step_with_the_last_lost_token(run: Run) -> None:
    expected = sorted(run.oracle["preemptions"], key=lambda one: one["time_ns"])
    for row, one in zip(run.file("preemption_events.csv"), expected, strict=True):
        if one["outcome"] == "recovered":
            assert close(row["recompute_time_sec"], (one["recovered_ns"] - one["resumed_ns"]) / 1e9), row
        else:
            assert row["recompute_time_sec"] == ""


def test_running_time_is_since_the_run_that_it_ended_began(run: Run) -> None:
    began = {name: one.get("scheduled_ns") for name, one in run.oracle["began"].items()}
    for row, one in zip(
        run.file("preemption_events.csv"),
        sorted(run.oracle["preemptions"], key=lambda one: one["time_ns"]),
        strict=True,
    ):
        assert close(row["running_time_sec"], (one["time_ns"] - began[one["request"]]) / 1e9), row
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
        assert close(row["queued_sec"], run.seconds(began["queued_ns"]))
        assert close(row["first_scheduled_sec"], run.seconds(began.get("scheduled_ns")))
        assert close(row["finished_sec"], run.seconds(one["time_ns"]))
        assert close(row["first_token_sec"], run.seconds(began.get("first_token_ns"))), row


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
