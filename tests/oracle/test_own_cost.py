"""The cost that a session states of itself, against a clock around every call of every handler."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any, NamedTuple

import environment
import pytest
import streams

DRIVE = environment.ROOT / "tests" / "oracle" / "drive_own_cost.py"
STEP = "scheduler.step_end"


class Run(NamedTuple):
    """What the test's clock says, by hook, and what the session states."""

    clock_seconds: dict[str, float]
    stated: dict[str, Any]
    steps: int

    @property
    def hooks(self) -> dict[str, dict[str, Any]]:
        """The stated cost of each hook."""
        return {hook["name"]: hook for hook in self.stated["hooks"]}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("own_cost")
    out = folder / "out.json"
    done = subprocess.run(
        [sys.executable, str(DRIVE), str(out), "--requests", "300"],
        env=environment.vllm(PROFILEMATE_DIR=str(folder / "sessions")),
        capture_output=True, text=True, timeout=environment.HANGS_SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    session = streams.only_session(folder / "sessions")
    streams.export(session)
    (stated,) = json.loads((session / "metadata.json").read_text())["summary"]["own_cost"]
    steps = len(streams.all_rows(session, "engine_steps"))
    return Run({name: ns / 1e9 for name, ns in json.loads(out.read_text()).items()}, stated, steps)


def test_every_hook_that_was_called_states_its_cost(run: Run) -> None:
    assert set(run.clock_seconds) <= set(run.hooks)
    assert run.hooks[STEP]["calls"] == run.steps > 500
    assert 100 < run.hooks[STEP]["timed_calls"] < run.steps / 2


def test_the_estimate_of_the_costliest_hook_is_near_the_truth(run: Run) -> None:
    """It is a sample, and the machine has moods; taking the sampler's own work for ours once made it seven times too much."""
    costliest = max(run.clock_seconds, key=lambda name: run.clock_seconds[name])
    for name in (costliest, STEP):
        assert 0.5 < run.hooks[name]["seconds"] / run.clock_seconds[name] < 2


def test_the_whole_is_the_sum_and_its_share_of_the_run(run: Run) -> None:
    total = sum(hook["seconds"] for hook in run.stated["hooks"])
    assert run.stated["seconds"] == pytest.approx(total, abs=1e-5 * len(run.hooks))
    assert 0.5 < total / sum(run.clock_seconds.values()) < 3
    assert run.stated["share"] == pytest.approx(run.stated["seconds"] / run.stated["run_seconds"], rel=1e-3)
    assert 1 < run.stated["microseconds_per_step"] < 1000
