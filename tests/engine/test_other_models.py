"""Models of other kinds, each once in one process under all default trackers: steps and passes equal an oracle's counts.

An embedding model (pooling), sliding beside full attention, linear attention beside full attention with experts, and an
adapter. None has an encoder.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import environment
import pytest
import streams
import warm

DRIVE = environment.ROOT / "tests" / "engine" / "drive_models.py"
KINDS = ("bert", "gemma3", "qwen3_next", "lora")


class Run(NamedTuple):
    """The counts by kind, and the session of them all."""

    counted: dict[str, dict[str, int]]
    session: Path
    metadata: dict[str, Any]

    def steps(self, kind: str) -> list[dict[str, str]]:
        """Rows of engine_steps: one engine after the other."""
        engine = str(KINDS.index(kind))
        return [row for row in streams.all_rows(self.session, "engine_steps") if row["engine"] == engine]

    def forwards(self, kind: str) -> list[dict[str, str]]:
        """Rows of forward_passes between the first and the last step of the engine."""
        before = sum(self.counted[earlier]["forwards"] for earlier in KINDS[: KINDS.index(kind)])
        return streams.all_rows(self.session, "forward_passes")[before : before + self.counted[kind]["forwards"]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Run:
    folder = tmp_path_factory.mktemp("models")
    done = warm.run(
        [str(DRIVE), str(tiny_model), str(folder / "counted.json"), *KINDS],
        env=environment.profiled(folder, VLLM_ENABLE_V1_MULTIPROCESSING="0"),
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    session = streams.only_session(folder)
    streams.export(session)
    counted = json.loads((folder / "counted.json").read_text())
    return Run(counted, session, json.loads((session / "metadata.json").read_text()))


@pytest.mark.parametrize("kind", KINDS)
def test_engine_steps_equal_the_oracles_counts(run: Run, kind: str) -> None:
    counted, last = run.counted[kind], run.steps(kind)[-1]
    assert counted["answers"] == 3 and counted["busy_steps"] > 0
    assert len(run.steps(kind)) == int(last["step"]) == counted["steps"]
    assert int(last["busy_steps"]) == counted["busy_steps"]
    assert int(last["scheduled_tokens"]) == counted["tokens"]


@pytest.mark.parametrize("kind", KINDS)
def test_forward_passes_equal_the_oracles_counts(run: Run, kind: str) -> None:
    rows, steps = run.forwards(kind), run.steps(kind)
    assert len(rows) == run.counted[kind]["forwards"] == run.counted[kind]["busy_steps"]
    assert sum(int(row["tokens"]) for row in rows) == run.counted[kind]["tokens"]
    assert all(int(row["host_ns"]) > 0 for row in rows)
    assert int(rows[-1]["time_ns"]) < int(steps[-1]["time_ns"])


def test_there_is_no_other_row(run: Run) -> None:
    passes, steps = streams.all_rows(run.session, "forward_passes"), streams.all_rows(run.session, "engine_steps")
    assert len(passes) == sum(counted["forwards"] for counted in run.counted.values())
    assert len(steps) == sum(counted["steps"] for counted in run.counted.values())


def test_nothing_failed_and_every_hook_fits(run: Run) -> None:
    health = run.metadata["summary"]["health"]
    assert health["failed"] == health["did_not_fit"] == health["lost_rows"] == []
    assert run.metadata["faults"] == [] and health["hooks_in_place"] > 40
    assert streams.missing_files(run.session) == []


def test_without_an_encoder_no_hook_is_called_and_the_file_says_why_it_is_empty(run: Run) -> None:
    hooks = [hook for hook in run.metadata["hooks"] if hook["tracker"] == "encoder_decoder"]
    assert {hook["name"]: hook["calls"] for hook in hooks}["v1_encoder.execute"] == 0
    assert sum(hook["calls"] for hook in hooks) == 0
    assert run.metadata["files"]["encoder_decoder_timing.csv"] == 0
    reason = "no request brought anything to encode (the model has no encoder)"
    assert f"encoder_decoder_timing.csv is empty: {reason}" in run.metadata["notes"]
    assert run.metadata["summary"]["encoder_decoder"]["encoder"]["count"] == 0
