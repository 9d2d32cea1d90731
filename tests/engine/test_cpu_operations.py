"""Every timed operation of real engines on both model runners against a second clock, and the files made of them."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any, NamedTuple

import environment
import operation_oracle
import pytest
import streams
import warm

DRIVE = environment.ROOT / "tests" / "engine" / "drive_cpu_operations.py"
V2 = {"VLLM_USE_V2_MODEL_RUNNER": "1", "TRITON_INTERPRET": "1"}
EVERY = 3
LONGEST_AROUND_SECONDS = 200e-6
"""Mean between the two clocks of a call, in which lie our handlers, cold beside a model, and their writes at a step's end."""

OPENING_SECONDS = 0.1
"""Once besides: the first flush opens the files and writes process.json."""

STOPPED_SHARE = 0.25
"""A busy machine may stop the process between the two clocks; the medians are held much closer."""

PIECES = "model_launch_pieces"


class Run(NamedTuple):
    """What the second clock saw, what is in the session, and cpu_timing_summary.json."""

    spans: dict[str, list[list[float]]]
    session: Path
    summary: dict[str, dict[str, Any]]

    def durations(self, operation: str) -> list[float]:
        """Seconds of each call by the second clock; of a launch by either way."""
        spans = self.spans[operation] + (self.spans.get(PIECES, []) if operation == "model_launch" else [])
        return [ended - began for began, ended in spans]


@pytest.fixture(scope="module", params=["v1", "v2"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Run:
    folder = tmp_path_factory.mktemp(f"operations-{request.param}")
    env = environment.profiled(
        folder / "p",
        environment.STANDIN,
        STANDIN_GRAPHS="1",
        STANDIN_GRAPHS_LOG=str(folder / "truth"),
        VLLM_ENABLE_V1_MULTIPROCESSING="0",
        PROFILEMATE_TRACKERS="cpu_operations",
        PROFILEMATE_CPU_OPERATION_ROWS_EVERY=str(EVERY),
        **(V2 if request.param == "v2" else {}),
    )
    command = [str(DRIVE), str(folder / "spans.json"), str(tiny_model), request.param]
    done = warm.run(command, env=env)
    assert done.returncode == 0, done.stderr[-3000:]
    session = streams.only_session(folder / "p")
    streams.export(session)
    summary = json.loads((session / "cpu_timing_summary.json").read_text())
    summary["serialise"] = summary.pop("serialise_outputs")
    return Run(json.loads((folder / "spans.json").read_text()), session, summary)


def test_every_call_is_counted_and_no_run_of_vllms_own(run: Run) -> None:
    counts = {name: one["count"] for name, one in run.summary.items() if name != "engine_step"}
    assert counts == {name: len(run.durations(name)) for name in run.spans if name != PIECES}
    assert min(counts.values()) >= 20
    assert run.summary["engine_step"]["count"] == counts["update_from_output"]


def test_times_are_those_of_the_second_clock(run: Run) -> None:
    for name in set(run.spans) - {PIECES}:
        durations, told = run.durations(name), run.summary[name]
        around = sum(durations) - told["total_ms"] / 1e3
        stopped = STOPPED_SHARE * sum(durations)
        assert 0 <= around <= len(durations) * LONGEST_AROUND_SECONDS + OPENING_SECONDS + stopped, name
        median = statistics.median(durations) * 1e3
        assert median * 0.99 - 2 * LONGEST_AROUND_SECONDS * 1e3 <= told["p50_ms"] <= median * 1.01, name
        assert told["min_ms"] <= min(durations) * 1e3 and told["max_ms"] <= max(durations) * 1e3


def test_steps_are_from_schedule_to_update(run: Run) -> None:
    """The engine schedules ahead: steps overlap, and the batch that was scheduled last may never be updated."""
    ends = [ended for _, ended in run.spans["update_from_output"]]
    begins = [began for began, _ in run.spans["schedule"]][: len(ends)]
    seconds, told = operation_oracle.union(begins, ends), run.summary["engine_step"]["total_ms"] / 1e3
    stopped = STOPPED_SHARE * seconds
    assert abs(seconds - told) <= 2 * len(ends) * LONGEST_AROUND_SECONDS + OPENING_SECONDS + stopped
    assert told < sum(end - begin for begin, end in zip(begins, ends, strict=True))


def test_what_is_nested_lies_within(run: Run) -> None:
    for name in ("execute_model", "sample_tokens", "process_outputs", "engine_step"):
        inner = [one for one in run.summary.values() if one["within"] == name]
        assert inner and run.summary[name]["own_total_ms"] == pytest.approx(
            run.summary[name]["total_ms"] - sum(one["total_ms"] for one in inner), abs=1e-3
        )
        assert run.summary[name]["own_total_ms"] > 0


def test_every_nth_call_has_a_row(run: Run) -> None:
    rows = streams.all_rows(run.session, "cpu_operation_rows")
    for name in run.summary:
        numbers = [int(row["call"]) for row in rows if row["operation"] == name]
        assert numbers == list(range(EVERY, run.summary[name]["count"] + 1, EVERY)), name


def test_no_hook_failed_and_the_share_of_python_is_said(run: Run) -> None:
    metadata = json.loads((run.session / "metadata.json").read_text())
    assert metadata["summary"]["health"]["failed"] == []
    cpu = metadata["summary"]["cpu_operations"]
    seconds = sum(
        run.summary[name]["total_ms"]
        for name in run.summary
        if name
        in {
            "schedule", "update_from_output", "update_states", "finish_requests", "add_requests", "update_requests",
            "prepare_inputs", "attention_metadata", "preprocess", "sample", "process_outputs",
        }
    ) / 1e3  # fmt: skip
    assert cpu["python_share"] == pytest.approx(seconds / (run.summary["engine_step"]["total_ms"] / 1e3), rel=1e-6)
    assert cpu["python_share"] > 0
