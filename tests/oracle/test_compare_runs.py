"""Comparing real recordings: vLLM's own scheduler, driven twice alike and once with a step that is longer by a tenth."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import environment
import pytest

import profilemate
from profilemate.compare.change import BEYOND
from profilemate.compare.comparison import Comparison, compare

DRIVE = environment.ROOT / "tests" / "driver" / "drive.py"
STEP_MS, LONGER_MS = 80.0, 90.0
"""From a schedule to its update, what the scheduler takes included: a busy machine makes few steps longer than that."""

REQUESTS = 300
ATTEMPTS = 3
"""A machine that is busy enough makes steps of very unequal length; then two sessions of a minute tell nothing of a tenth."""

SAME_WORK = (
    "padding_share", "hit_rate", "batch_requests_mean", "batch_tokens_mean", "kv_usage_p95", "evictions", "preemptions",
    "prompt_length", "output_length", "bound_by_token_budget", "bound_by_kv_space",
)  # fmt: skip


def begin(folder: Path, step_ms: float) -> subprocess.Popen[bytes]:
    """One process with one session in a folder of its own."""
    folder.mkdir(parents=True)
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, str(DRIVE), "--requests", str(REQUESTS), "--seed", "7", "--step-ms", str(step_ms)],
            env=environment.vllm(PYTHONPATH=str(environment.ROOT), PROFILEMATE_DIR=str(folder / "sessions")),
            stdout=log, stderr=log,
        )  # fmt: skip


def record(folder: Path, **delays: float) -> dict[str, Path]:
    """All at once: they sleep most of the time, and what disturbs one disturbs the others."""
    running = {name: begin(folder / name, step_ms) for name, step_ms in delays.items()}
    for name, process in running.items():
        assert process.wait(environment.HANGS_SECONDS) == 0, (folder / name / "log").read_text()[-3000:]
    return {name: folder / name / "sessions" for name in delays}


@pytest.fixture(scope="module")
def sessions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return record(tmp_path_factory.mktemp("runs"), first=STEP_MS, second=STEP_MS, longer=LONGER_MS)


def compared(*paths: Path) -> Comparison:
    return compare([profilemate.open(path) for path in paths])


def found(comparison: Comparison) -> set[str]:
    return {change.number.name for change in comparison.changes[0] if change.verdict in BEYOND}


def test_two_runs_of_the_same_do_not_differ(sessions: dict[str, Path], tmp_path: Path) -> None:
    """One comparison in twenty may be wrong, and a busy machine is no fair one: it is run once more before it counts."""
    names = found(compared(sessions["first"], sessions["second"]))
    if names:
        again = record(tmp_path, first=STEP_MS, second=STEP_MS)
        names &= found(compared(again["first"], again["second"]))
    assert names == set()


def test_a_step_longer_by_a_tenth_is_found(sessions: dict[str, Path], tmp_path: Path) -> None:
    pair = sessions
    for attempt in range(1, ATTEMPTS):
        if "step_time_mean" in found(compared(pair["first"], pair["longer"])):
            break
        pair = record(tmp_path / str(attempt), first=STEP_MS, longer=LONGER_MS)
    comparison = compared(pair["first"], pair["longer"])
    change = next(one for one in comparison.changes[0] if one.number.name == "step_time_mean")
    assert change.verdict == "worse"
    assert change.low is not None and change.high is not None
    assert change.low < LONGER_MS / STEP_MS - 1 and change.high > 0.08
    assert found(comparison) & set(SAME_WORK) == set()


def test_the_scheduler_did_the_same_work_in_all_of_them(sessions: dict[str, Path]) -> None:
    """Counts are exact, so they are equal, and equal to what each session's metadata.json says."""
    sides = compared(*sessions.values()).sides
    for side in sides:
        summary = json.loads((Path(side.path) / "metadata.json").read_text())["summary"]
        totals = {total.name: total.value for total in side.totals}
        assert totals["requests"] == summary["requests"]["requests"] == REQUESTS
        assert totals["scheduled_tokens"] == summary["engine_steps"]["scheduled_tokens"]
        assert totals["evicted_blocks"] == summary["kv_cache"]["evicted"]
        assert [total.value for total in side.totals] == [total.value for total in sides[0].totals]
        assert side.whole["hit_rate"] == pytest.approx(summary["kv_cache"]["hit_rate"], abs=1e-8)
    different = {one.name for one in compared(*sessions.values()).settings}
    assert different == {"model"}, "the driver makes a folder of its own for each"
