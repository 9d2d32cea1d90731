"""CPU operations of vLLM's own scheduler against a second clock around the same methods; no model."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import environment
import pytest
import streams

DRIVE = environment.ROOT / "tests" / "driver" / "drive_operations.py"
LONGEST_AROUND_SECONDS = 50e-6
"""Between the two clocks of a call lie our handlers and the other trackers'; as the mean over all calls."""

LONGEST_PAUSE_SECONDS = 1.3
"""Of a process younger than 50 s: totals once a second, at the end of a step; the steps here take milliseconds."""


@dataclass
class Run:
    """What the second clock saw, and what is in the session."""

    spans: dict[str, Any]
    session: Path

    def totals(self) -> dict[str, dict[str, str]]:
        """The last row of each operation."""
        return {row["operation"]: row for row in streams.all_rows(self.session, "cpu_operations")}

    def rows(self, operation: str) -> list[dict[str, str]]:
        """Rows of single calls."""
        return [row for row in streams.all_rows(self.session, "cpu_operation_rows") if row["operation"] == operation]


def drive(folder: Path, *arguments: str, code: int = 0, **more: str) -> Run:
    env = environment.profiled(folder / "p", PROFILEMATE_TRACKERS="cpu_operations", **more)
    done = subprocess.run(
        [sys.executable, str(DRIVE), str(folder / "spans.json"), *arguments],
        env=env, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stderr[-3000:]
    return Run(json.loads((folder / "spans.json").read_text()), streams.only_session(folder / "p"))


@pytest.fixture(scope="module", params=["sync", "async"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A whole trace; every 7th call has a row."""
    folder = tmp_path_factory.mktemp(request.param)
    options = ["--async"] if request.param == "async" else []
    return drive(folder, *options, "--requests", "60", PROFILEMATE_CPU_OPERATION_ROWS_EVERY="7")


@pytest.mark.parametrize("operation", ["schedule", "update_from_output"])
def test_calls_are_exact_and_their_time_is_within_the_handlers(run: Run, operation: str) -> None:
    spans, told = run.spans[operation], run.totals()[operation]
    assert int(told["calls"]) == len(spans) > 100
    outer = sum(ended - began for began, ended in spans)
    assert 0 <= outer - int(told["total_ns"]) / 1e9 <= len(spans) * LONGEST_AROUND_SECONDS
    assert int(told["min_ns"]) / 1e9 <= min(ended - began for began, ended in spans)
    assert int(told["max_ns"]) / 1e9 <= max(ended - began for began, ended in spans)
    assert sum(int(count) for part in told["histogram"].split(";") for count in part.split(":")[1].split(" ")) == len(
        spans
    )


def test_steps_are_the_time_that_they_cover_together(run: Run) -> None:
    """With async scheduling a step begins while the one before it is open."""
    told, count = run.totals()["engine_step"], len(run.spans["schedule"])
    assert int(told["calls"]) == count
    assert run.spans["step_seconds"] == pytest.approx(
        int(told["total_ns"]) / 1e9, abs=2 * count * LONGEST_AROUND_SECONDS
    )


@pytest.mark.parametrize("operation", ["schedule", "update_from_output", "engine_step"])
def test_every_seventh_call_has_a_row(run: Run, operation: str) -> None:
    rows, calls = run.rows(operation), len(run.spans["schedule"])
    assert [int(row["call"]) for row in rows] == list(range(7, calls + 1, 7))
    if operation == "schedule":
        spans = run.spans["schedule"][6::7]
        for row, (began, ended) in zip(rows, spans, strict=True):
            assert (
                began <= int(row["time_ns"]) / 1e9 <= int(row["time_ns"]) / 1e9 + int(row["duration_ns"]) / 1e9 <= ended
            )


def test_a_kill_loses_the_last_pause_at_most(tmp_path: Path) -> None:
    """Every call has a row, so the rows tell which calls had ended when the totals were last written."""
    arguments = ["--kill-after", "350", "--requests", "200", "--step-delay-ms", "8"]
    run = drive(tmp_path, *arguments, code=-signal.SIGKILL, PROFILEMATE_CPU_OPERATION_ROWS_EVERY="1")
    for operation in ("schedule", "update_from_output"):
        told, rows = run.totals()[operation], run.rows(operation)
        as_of = int(told["time_ns"])
        ended = [int(row["time_ns"]) + int(row["duration_ns"]) for row in rows]
        before = [duration for duration, end in zip(_durations(rows), ended, strict=True) if end <= as_of]
        assert len(before) == int(told["calls"]) > 150
        assert sum(before) == int(told["total_ns"])
        assert (run.spans[operation][-1][1] - as_of / 1e9) < LONGEST_PAUSE_SECONDS
    assert len(run.rows("schedule")) >= 349


def _durations(rows: list[dict[str, str]]) -> list[int]:
    return [int(row["duration_ns"]) for row in rows]
