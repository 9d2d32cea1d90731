"""CPU operations of vLLM's own scheduler against a second clock around the same methods; no model."""

from __future__ import annotations

import json
import signal
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import environment
import pytest
import streams
import warm

DRIVE = environment.ROOT / "tests" / "driver" / "drive_operations.py"
LONGEST_AROUND_SECONDS = 200e-6
"""Between the two clocks of a call lie our handlers, and the write at the end of a step; the median over the calls with rows,
since a busy machine may stop us there."""

LONGEST_PAUSE_SECONDS = 2.5
"""Totals come once a second, or after 1/50 of the process's age: on a busy machine it is a minute old before the first step."""


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
    done = warm.run([str(DRIVE), str(folder / "spans.json"), *arguments], env=env)
    assert done.returncode == code, done.stderr[-3000:]
    return Run(json.loads((folder / "spans.json").read_text()), streams.only_session(folder / "p"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A whole trace on the asynchronous scheduler, whose steps overlap; every 7th call has a row."""
    folder = tmp_path_factory.mktemp("async")
    return drive(folder, "--async", "--requests", "60", PROFILEMATE_CPU_OPERATION_ROWS_EVERY="7")


@pytest.mark.parametrize("operation", ["schedule", "update_from_output"])
def test_calls_are_exact_and_within_the_second_clocks(run: Run, operation: str) -> None:
    spans, told = run.spans[operation], run.totals()[operation]
    durations = [ended - began for began, ended in spans]
    assert int(told["calls"]) == len(spans) > 100
    assert int(told["total_ns"]) / 1e9 <= sum(durations)
    assert int(told["min_ns"]) / 1e9 <= min(durations) and int(told["max_ns"]) / 1e9 <= max(durations)
    counts = [int(count) for part in told["histogram"].split(";") for count in part.split(":")[1].split(" ")]
    assert sum(counts) == len(spans)


@pytest.mark.parametrize("operation", ["schedule", "update_from_output"])
def test_every_seventh_call_has_a_row_with_the_time_of_that_call(run: Run, operation: str) -> None:
    rows, spans = run.rows(operation), run.spans[operation]
    assert [int(row["call"]) for row in rows] == list(range(7, len(spans) + 1, 7))
    around = []
    for row, (began, ended) in zip(rows, spans[6::7], strict=True):
        ours = int(row["time_ns"]) / 1e9, (int(row["time_ns"]) + int(row["duration_ns"])) / 1e9
        assert began <= ours[0] <= ours[1] <= ended
        around.append(ended - began - (ours[1] - ours[0]))
    assert statistics.median(around) <= LONGEST_AROUND_SECONDS


def test_steps_are_the_time_that_they_cover_together(run: Run) -> None:
    """A step begins while the one before it is open; what it shares with that one is not its own."""
    begins, ends = (
        [began for began, _ in run.spans["schedule"]],
        [ended for _, ended in run.spans["update_from_output"]],
    )
    assert int(run.totals()["engine_step"]["calls"]) == len(ends)
    own = [end - max(begin, before) for begin, end, before in zip(begins, ends, [0.0, *ends[:-1]], strict=True)]
    rows = run.rows("engine_step")
    assert [int(row["call"]) for row in rows] == list(range(7, len(ends) + 1, 7))
    apart = [abs(int(row["duration_ns"]) / 1e9 - one) for row, one in zip(rows, own[6::7], strict=True)]
    assert statistics.median(apart) <= 2 * LONGEST_AROUND_SECONDS
    assert sum(own) == pytest.approx(run.spans["step_seconds"])
    assert sum(end - begin for begin, end in zip(begins, ends, strict=True)) > 1.3 * sum(own)


def test_a_kill_loses_the_last_pause_at_most(tmp_path: Path) -> None:
    """Every call has a row, so the rows tell which calls had ended when the totals were last written."""
    arguments = ["--kill-after", "350", "--requests", "200", "--step-ms", "8"]
    run = drive(tmp_path, *arguments, code=-signal.SIGKILL, PROFILEMATE_CPU_OPERATION_ROWS_EVERY="1")
    for operation in ("schedule", "update_from_output"):
        told, rows = run.totals()[operation], run.rows(operation)
        as_of = int(told["time_ns"])
        ended = [int(row["time_ns"]) + int(row["duration_ns"]) for row in rows]
        before = [duration for duration, end in zip(_durations(rows), ended, strict=True) if end <= as_of]
        assert len(before) == int(told["calls"]) > 30
        assert sum(before) == int(told["total_ns"])
        assert (run.spans[operation][-1][1] - as_of / 1e9) < LONGEST_PAUSE_SECONDS
    assert len(run.rows("schedule")) >= 349


def _durations(rows: list[dict[str, str]]) -> list[int]:
    return [int(row["duration_ns"]) for row in rows]
