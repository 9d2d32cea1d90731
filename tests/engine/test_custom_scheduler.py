"""Schedulers of the user's own: what is recorded where they call vLLM's methods, and what is said where they do not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import environment
import pytest
import streams
from kv_columns import COUNTS

DRIVE = environment.ROOT / "tests" / "engine" / "drive_custom_scheduler.py"
KINDS = ("calls_super", "own_schedule", "own_update", "no_subclass")

COUNTED = [name for name in COUNTS if name != "resets"]
"""What happens in these runs."""

LOAD = ["--requests", "90", "--blocks", "150", "--step-ms", "2"]
"""Long enough that the calls of hooks, which are reported once a second, are known."""

MOST_WAITING = 100
"""Entries that may lie in memory where no step's end is seen; some 3,000 blocks are evicted."""


class Run(NamedTuple):
    """One run: the driver's tallies, the oracle's counts, rows that still waited, the session and its summary."""

    summary: dict[str, Any]
    oracle: dict[str, Any]
    waiting: dict[str, int]
    session: Path
    metadata: dict[str, Any]

    def steps(self) -> list[dict[str, str]]:
        """Rows of engine_steps."""
        return streams.all_rows(self.session, "engine_steps")

    def never_called(self) -> set[str]:
        """Hooks that metadata.json says are in place and had no call."""
        return {hook["name"] for hook in self.metadata["hooks"] if hook["state"] == "put_in" and not hook["calls"]}


def read(kind: str, folder: Path) -> Run:
    """What one child left, after an export."""
    session = streams.only_session(folder / kind)
    streams.export(session)
    own = json.loads((folder / f"{kind}.json").read_text())
    oracle = json.loads((folder / f"{kind}.oracle.json").read_text())
    metadata = json.loads((session / "metadata.json").read_text())
    return Run(own["summary"], oracle, own["waiting"], session, metadata)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    folder = tmp_path_factory.mktemp("custom")
    command = [sys.executable, str(DRIVE), str(folder), *LOAD]
    done = subprocess.run(
        command, env=environment.vllm(), capture_output=True, text=True, timeout=environment.HANGS_SECONDS, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return {kind: read(kind, folder) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_every_request_is_served(runs: dict[str, Run], kind: str) -> None:
    run = runs[kind]
    assert run.summary["finished"] == run.summary["requests"] == 90
    assert run.summary["steps"] == run.oracle["steps"] > 300 and not run.oracle["mismatch_count"]


@pytest.mark.parametrize("kind", ["calls_super", "own_schedule"])
@pytest.mark.parametrize("ours", COUNTED)
def test_counts_equal_the_oracle(runs: dict[str, Run], kind: str, ours: str) -> None:
    assert int(runs[kind].steps()[-1][ours]) == runs[kind].oracle[COUNTS[ours]] > 0


def test_each_step_is_recorded_once_where_a_subclass_calls_super(runs: dict[str, Run]) -> None:
    run = runs["calls_super"]
    assert [int(row["step"]) for row in run.steps()] == list(range(1, run.oracle["steps"] + 1))
    assert "scheduler.schedule" not in run.never_called()
    assert int(run.steps()[-1]["prompt_tokens"]) > 0


def test_a_schedule_of_its_own_costs_the_prompt_tokens_and_is_named(runs: dict[str, Run]) -> None:
    run = runs["own_schedule"]
    assert int(run.steps()[-1]["prompt_tokens"]) == 0
    assert "scheduler.schedule" in run.never_called()


def test_an_update_of_its_own_costs_the_steps_and_is_named(runs: dict[str, Run]) -> None:
    run = runs["own_update"]
    assert run.steps() == []
    assert run.never_called() & {"scheduler.begin", "scheduler.schedule", "scheduler.update_from_output"} == {
        "scheduler.update_from_output"
    }


def test_a_scheduler_that_is_no_subclass_leaves_a_session_that_says_so(runs: dict[str, Run]) -> None:
    """In a server the process of its engine core is there, and the hooks on the scheduler are those without a call."""
    run = runs["no_subclass"]
    assert run.steps() == [] and run.metadata["processes"] == []
    assert any("no vLLM process was recorded" in note for note in run.metadata["notes"])


@pytest.mark.parametrize("kind", KINDS)
def test_rows_do_not_pile_up_in_memory(runs: dict[str, Run], kind: str) -> None:
    assert sum(runs[kind].waiting.values()) < MOST_WAITING


def test_evictions_are_on_disk_where_the_steps_end_is_not_seen(runs: dict[str, Run]) -> None:
    run = runs["own_update"]
    on_disk = [int(row["block_id"]) for row in streams.all_rows(run.session, "kv_evictions")]
    theirs = [eviction["block"] for eviction in run.oracle["evictions"]]
    assert len(on_disk) > 0.5 * len(theirs) > 500
    assert on_disk == theirs[: len(on_disk)]
