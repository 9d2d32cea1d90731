"""Real engines: one row for every serving forward pass, with the phase, tokens and requests that were scheduled for it."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import environment
import pytest
import streams
import warm

RUN = environment.ROOT / "tests" / "engine" / "run_forwards.py"
GRAPHS = {
    "mode": 3,
    "backend": "eager",
    "cudagraph_mode": "FULL_AND_PIECEWISE",
    "cudagraph_capture_sizes": [1, 2, 4, 8, 16, 32],
}
V2 = {"VLLM_USE_V2_MODEL_RUNNER": "1", "TRITON_INTERPRET": "1"}
GRAPH_CELLS = {"num_tokens", "unpadded_tokens", "graphs", "fault"}
OWN_CELLS = {"phase", "requests", "tokens", "execute_ns", "sample_ns"}
HOST_NS = 500_000
"""Ours and the oracle's clock stand on the two sides of a wrapper, whose writes take part of a millisecond at most."""


class Configuration(NamedTuple):
    """Which runner, and which trackers look at its passes."""

    env: dict[str, str]
    trackers: tuple[str, ...]


CONFIGURATIONS = {
    "v1-both": Configuration({}, ("forward_passes", "cuda_graphs")),
    "v2-forward-passes-alone": Configuration(V2, ("forward_passes",)),
    "v1-cuda-graphs-alone": Configuration({}, ("cuda_graphs",)),
}


class Run(NamedTuple):
    """One engine run: what the oracle saw, the stand-in's log, and the exported session."""

    trackers: tuple[str, ...]
    oracle: dict[str, Any]
    truth: list[str]
    session: Path

    @property
    def passes(self) -> list[dict[str, str]]:
        """Rows of passes."""
        return streams.all_rows(self.session, "forward_passes")

    @property
    def busy_steps(self) -> list[dict[str, Any]]:
        """Steps that had tokens."""
        return [step for step in self.oracle["steps"] if step["tokens"]]

    def csv(self, name: str) -> list[dict[str, str]]:
        """Rows of an exported file."""
        with (self.session / name).open(newline="") as file:
            return list(csv.DictReader(file))

    def metadata(self) -> dict[str, Any]:
        """metadata.json."""
        return dict(json.loads((self.session / "metadata.json").read_text()))


@pytest.fixture(scope="module", params=list(CONFIGURATIONS))
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Run:
    configuration = CONFIGURATIONS[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    env = environment.profiled(
        folder,
        environment.STANDIN,
        STANDIN_GRAPHS="1",
        STANDIN_GRAPHS_LOG=str(folder / "truth"),
        VLLM_ENABLE_V1_MULTIPROCESSING="0",
        PROFILEMATE_TRACKERS=",".join(configuration.trackers),
        **configuration.env,
    )
    command = [str(RUN), str(folder / "oracle.json"), "--model", str(tiny_model)]
    command += ["--compilation", json.dumps(GRAPHS)]
    done = warm.run(command, env=env)
    assert done.returncode == 0, done.stderr[-3000:]
    session = streams.only_session(folder)
    streams.export(session)
    truth = [line.split()[1] for line in (folder / "truth").read_text().splitlines()]
    return Run(configuration.trackers, json.loads((folder / "oracle.json").read_text()), truth, session)


@pytest.fixture
def timed(run: Run) -> Run:
    """A run with the tracker on."""
    if "forward_passes" not in run.trackers:
        pytest.skip("forward_passes is off in this run")
    return run


def phase(step: dict[str, Any]) -> str:
    """By the definition of the issue: no context request, none but context requests, or some."""
    if not step["context_requests"]:
        return "decode"
    return "prefill" if step["context_requests"] == step["requests"] else "mixed"


def test_the_load_has_every_phase(run: Run) -> None:
    assert {phase(step) for step in run.busy_steps} == {"prefill", "decode", "mixed"}
    assert all(step["vllm"] == [step["context_requests"], step["context_tokens"]] for step in run.oracle["steps"])


def test_one_row_for_every_step_that_ran_and_none_for_warm_up(run: Run) -> None:
    steps = [number for number, step in enumerate(run.oracle["steps"], 1) if step["tokens"]]
    assert [int(row["step"]) for row in run.passes] == steps
    assert [int(row["forward"]) for row in run.passes] == list(range(1, len(steps) + 1))
    assert len(steps) > 20


def test_phase_requests_and_tokens_are_what_was_scheduled(timed: Run) -> None:
    ours = [
        (row["phase"], *(int(row[name]) for name in ("requests", "tokens", "context_requests", "context_tokens")))
        for row in timed.passes
    ]
    assert ours == [
        (phase(step), step["requests"], step["tokens"], step["context_requests"], step["context_tokens"])
        for step in timed.busy_steps
    ]


def test_times_lie_within_those_around_the_runners_calls(run: Run) -> None:
    calls = [call for call, step in zip(run.oracle["executed"], run.oracle["steps"], strict=True) if step["tokens"]]
    for row, (began_ns, ended_ns) in zip(run.passes, calls, strict=True):
        assert row["clock"] == "monotonic"
        assert began_ns < int(row["time_ns"]) < int(row["time_ns"]) + int(row["host_ns"]) < ended_ns


def test_calls_of_the_runner_take_as_long_as_around_them(timed: Run) -> None:
    steps, rows = timed.oracle["steps"], timed.passes
    executed = [call for call, step in zip(timed.oracle["executed"], steps, strict=True) if step["tokens"]]
    around_ns = []
    for row, (began_ns, ended_ns) in zip(rows, executed, strict=True):
        assert int(row["host_ns"]) < int(row["execute_ns"]) < ended_ns - began_ns
        around_ns.append(ended_ns - began_ns - int(row["execute_ns"]))
    assert median(around_ns) < HOST_NS  # not each: a neighbour may take the processor at any moment
    assert rows[0]["sample_ns"] == ""
    for row, (began_ns, ended_ns) in zip(rows[1:], timed.oracle["sampled"], strict=False):
        assert 0 < int(row["sample_ns"]) < ended_ns - began_ns


def test_cells_of_a_tracker_that_is_off_are_absent(run: Run) -> None:
    columns = set(run.passes[0])
    assert (columns >= GRAPH_CELLS) == ("cuda_graphs" in run.trackers)
    assert (columns >= OWN_CELLS) == ("forward_passes" in run.trackers)
    assert {"runtime_mode", "host_ns", "clock"} <= columns


def test_graph_cells_are_those_of_the_stand_in(run: Run) -> None:
    if "cuda_graphs" not in run.trackers:
        pytest.skip("cuda_graphs is off in this run")
    rows = run.passes
    assert [int(row["unpadded_tokens"]) for row in rows] == [step["tokens"] for step in run.busy_steps]
    warm_up = [row for row in streams.all_rows(run.session, "graph_phases") if row["phase"] != "serving"]
    replays = {row["phase"]: int(row["explained"]) for row in warm_up}
    serving = sum(int(row["graphs"]) for row in rows)
    assert serving + sum(replays.values()) == run.truth.count("replay") > 0
    assert {row["runtime_mode"] for row in rows} == {"FULL", "PIECEWISE", "NONE"}


def test_modes_are_told_without_the_graph_tracker(run: Run) -> None:
    modes = {(phase(step), row["runtime_mode"]) for step, row in zip(run.busy_steps, run.passes, strict=True)}
    assert ("decode", "FULL") in modes and ("prefill", "FULL") not in modes
    assert ("prefill", "NONE") in modes


def test_the_timing_file_has_a_line_for_every_pass(timed: Run) -> None:
    lines = timed.csv("forward_pass_timing.csv")
    assert list(lines[0])[:6] == [
        "timestamp_sec", "phase", "batch_size", "num_tokens", "forward_time_ms", "throughput_tokens_per_sec",
    ]  # fmt: skip
    for line, row, step in zip(lines, timed.passes, timed.busy_steps, strict=True):
        assert (line["phase"], int(line["batch_size"]), int(line["num_tokens"])) == (
            phase(step), step["requests"], step["tokens"],
        )  # fmt: skip
        assert float(line["forward_time_ms"]) == pytest.approx(int(row["host_ns"]) / 1e6, abs=1e-6)
        assert line["clock"] == "monotonic"
        assert float(line["throughput_tokens_per_sec"]) == pytest.approx(
            1e9 * step["tokens"] / int(row["host_ns"]), 1e-3
        )
    after = [line["sample_tokens_ms"] for line in lines]
    assert [cell for cell in after[:-1] if not cell] == [] and after[-1] == ""


def test_the_summary_counts_every_pass_and_token(timed: Run) -> None:
    summary = json.loads((timed.session / "forward_pass_summary.json").read_text())
    for name in ("prefill", "decode", "mixed"):
        steps = [step for step in timed.busy_steps if phase(step) == name]
        ours = summary[name]
        assert (ours["count"], ours["timed"]) == (len(steps), len(steps))
        assert (ours["tokens"], ours["requests"]) == (
            sum(step["tokens"] for step in steps), sum(step["requests"] for step in steps),
        )  # fmt: skip
        assert ours["min_ms"] <= ours["p50_ms"] <= ours["p95_ms"] <= ours["p99_ms"] <= ours["max_ms"]
        assert ours["min_ms"] <= ours["mean_ms"] <= ours["max_ms"]


def test_a_tracker_that_is_off_says_so_and_not_zero(run: Run) -> None:
    metadata = run.metadata()
    for tracker, file in (("forward_passes", "forward_pass_timing.csv"), ("cuda_graphs", "cuda_graph_usage.csv")):
        on = tracker in run.trackers
        assert (metadata["summary"][tracker] == {"off": True}) != on
        assert any(note.startswith(f"{file} is empty") and "off by setting" in note for note in metadata["notes"]) != on
        assert bool(run.csv(file)) == on


def test_no_hook_failed_and_each_is_in_once(run: Run) -> None:
    (process,) = streams.processes(run.session)
    hooks = [hook for hook in streams.record(process)["hooks"] if hook["state"] == "put_in"]
    assert len({hook["target"] for hook in hooks}) == len(hooks)
    assert not any(hook["failures"] for hook in hooks)
    assert {hook["tracker"] for hook in hooks} == {"probe", *run.trackers}
    assert streams.record(process)["warnings"] == []
