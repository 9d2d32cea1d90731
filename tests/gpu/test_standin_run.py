"""The GPU check's engine processes with the CPU stand-in for CUDA graphs: all of it that needs no GPU really runs.

The stand-in's log gives the graph launches of the trace. One engine with ProfileMate is judged against itself, so the
comparisons of two sides show nothing here; what a GPU's trace adds, kernels and device times, is put beside the real rows.
"""

from __future__ import annotations

import csv
import gzip
import json
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import environment
import pytest
import streams
from gpu_check import archive, cli, compare, cuda_trace, stages
from gpu_check.compare import Check
from gpu_check.rows import Rows
from gpu_check.stages import STAGES, Sides, Target
from gpu_check.surroundings import Run, Surroundings, load_run

STANDIN_ENGINE = environment.ROOT / "tests" / "gpu" / "standin_engine.py"
VOCABULARY = 4096
GPU_ONLY = {"device_time_full", "device_time_piecewise"}
ONE_SIDED = {"sides"}
ENGINE_SECONDS = 280.0
CLOCK_SLACK_NS = 1_000_000


@pytest.fixture(scope="module")
def around(tmp_path_factory: pytest.TempPathFactory) -> Surroundings:
    """Engine processes as on a GPU machine, but for the stand-in."""
    work = tmp_path_factory.mktemp("gpu-check")
    more = environment.vllm(
        STANDIN_GRAPHS="1", STANDIN_GRAPHS_LOG=str(work / "truth"), STANDIN_MEMORY_ESTIMATE="1",
    )  # fmt: skip
    more = {name: value for name, value in more.items() if name.startswith(("VLLM_", "STANDIN_", "OMP_"))}
    program = (sys.executable, str(STANDIN_ENGINE))
    return Surroundings(work, work / "cache", time.monotonic() + 2 * ENGINE_SECONDS, program, more)


@pytest.fixture(scope="module")
def target(tiny_model: Path) -> Target:
    """The demo's model on a small pool."""
    return Target(
        wide_model=tiny_model,
        small_model=tiny_model,
        vocabulary=VOCABULARY,
        llm={"gpu_memory_utilization": 0.3, "block_size": 32, "num_gpu_blocks_override": 90},
        compilation={"mode": 3, "backend": "eager"},
        kv_requests=20,
        batch=2,
        output_tokens=8,
        rounds=1,
        turns=2,
    )


@pytest.fixture(scope="module", autouse=True)
def standin_on_the_path() -> Any:
    """Engine processes inherit PYTHONPATH, as they do the offline bundle's on a GPU machine."""
    patch = pytest.MonkeyPatch()
    patch.setenv("PYTHONPATH", str(environment.STANDIN))
    yield
    patch.undo()


@pytest.fixture(scope="module")
def run(around: Surroundings, target: Target) -> Run:
    """One engine of the V1 stage with ProfileMate."""
    stage = STAGES["v1"]
    spec = stages.oracle_specification(stage, target)
    return around.run("v1-with", spec, True, {**stage.env, **stages.TRACED})


def judged(run: Run) -> dict[str, Check]:
    checks = STAGES["v1"].judge(STAGES["v1"], Sides([run], [run]))
    return {check.name: check for check in checks}


def failing(run: Run) -> set[str]:
    return {name for name, check in judged(run).items() if check.holds is False}


@pytest.fixture
def copy(run: Run, tmp_path: Path) -> Run:
    """The run in a folder of its own, to be spoilt."""
    shutil.copytree(run.folder, tmp_path / "run")
    return load_run(tmp_path / "run")


# -- a real engine ------------------------------------------------------------------------------------------------------


def test_every_check_that_needs_no_gpu_holds_on_a_real_engine(run: Run) -> None:
    checks = judged(run)
    says = {name: check.says for name, check in checks.items()}
    assert failing(run) == ONE_SIDED | {"device_time_full"}, says
    assert checks["replays"].numbers["launches"] > 40
    assert checks["captures"].numbers["serving"] == checks["captures"].numbers["vllm"] > 40
    assert checks["captures"].numbers["estimate"] > 0
    assert checks["dispatches"].numbers["vllm"] > 100
    assert checks["kv_cache"].numbers["totals"]["evicted"] > 20
    assert checks["check_mode"].numbers["serving"] > 100
    assert {"FULL", "PIECEWISE", "NONE"} <= checks["coverage"].numbers.keys()


def test_a_machine_without_device_times_is_told_so(run: Run) -> None:
    check = judged(run)["device_time_full"]
    assert check.numbers["timed"] == check.numbers["with_kernels"] == 0
    assert "0 have a device time and 0 their kernels" in check.says


def test_the_launches_of_a_pass_lie_in_its_time(run: Run) -> None:
    """Passes and launches are matched by their order; here the two clocks agree with it, but for what lies between them."""
    window = run.result["window"]
    passes = Rows(run.sessions).passes(window["began_ns"], window["ended_ns"])
    pairs = compare.launches_of(passes, cuda_trace.read(run.trace).launches)
    assert pairs is not None
    waits = [(launches[0].start_ns - one.time_ns, one.host_ns or 0) for one, launches in pairs if launches]
    between_clocks = min(wait for wait, _ in waits)
    assert all(wait - between_clocks <= host_ns + CLOCK_SLACK_NS for wait, host_ns in waits)


# -- the same run, spoilt -----------------------------------------------------------------------------------------------


def edit_trace(run: Run, change: Callable[[list[dict[str, Any]]], Any]) -> None:
    with gzip.open(run.trace, "rt") as file:
        document = json.load(file)
    change(document["traceEvents"])
    with gzip.open(run.trace, "wt") as file:
        json.dump(document, file)


def is_launch(event: dict[str, Any]) -> bool:
    return event["name"] == "cudaGraphLaunch"


def table_of(run: Run, name: str) -> Path:
    (process,) = streams.processes(streams.only_session(run.sessions))
    return process / f"{name}.csv"


def edit_rows(run: Run, table: str, change: Callable[[list[list[str]]], Any]) -> None:
    path = table_of(run, table)
    rows = list(csv.reader(path.read_text().splitlines()))
    change(rows)
    path.write_text("".join(",".join(row) + "\n" for row in rows))


def lose_a_launch(run: Run) -> None:
    edit_trace(run, lambda events: events.remove(next(filter(is_launch, events))))


def lose_a_pass(run: Run) -> None:
    def drop(rows: list[list[str]]) -> None:
        mode = rows[0].index("runtime_mode")
        window = run.result["window"]
        del rows[next(
            number for number, row in enumerate(rows[1:], 1)
            if row[mode] == "FULL" and window["began_ns"] < int(row[0]) < window["ended_ns"]
        )]  # fmt: skip

    edit_rows(run, "forward_passes", drop)


def lose_a_capture(run: Run) -> None:
    edit_rows(run, "graph_captures", lambda rows: rows.pop())


def lose_a_step(run: Run) -> None:
    edit_rows(run, "engine_steps", lambda rows: rows.pop(5))


def miscount_evictions(run: Run) -> None:
    def add_one(rows: list[list[str]]) -> None:
        column = rows[0].index("evicted")
        rows[-1][column] = str(int(rows[-1][column]) + 1)

    edit_rows(run, "engine_steps", add_one)


def leave_a_replay_unexplained(run: Run) -> None:
    def one_less(rows: list[list[str]]) -> None:
        phase, column = rows[0].index("phase"), rows[0].index("explained")
        last = [row for row in rows[1:] if row[phase] == "serving"][-1]
        last[column] = str(int(last[column]) - 1)

    edit_rows(run, "graph_phases", one_less)


def fail_a_hook(run: Run) -> None:
    edit_rows(run, "health", lambda rows: rows[-1].__setitem__(rows[0].index("failures"), "1"))


def log_a_capture_error(run: Run) -> None:
    with (run.folder / "engine.log").open("a") as log:
        log.write("CUDA error: operation not permitted when stream is capturing\n")


SPOILS = {
    lose_a_launch: {"replays"},
    lose_a_pass: {"replays", "dispatches"},
    lose_a_capture: {"captures"},
    lose_a_step: {"kv_cache"},
    miscount_evictions: {"kv_cache"},
    leave_a_replay_unexplained: {"check_mode"},
    fail_a_hook: {"hooks"},
    log_a_capture_error: {"capture_errors"},
}


@pytest.mark.parametrize("spoil", SPOILS, ids=lambda spoil: spoil.__name__)
def test_what_is_wrong_fails_its_check_and_no_other(copy: Run, spoil: Callable[[Run], None]) -> None:
    spoil(copy)
    assert failing(copy) - ONE_SIDED - GPU_ONLY == SPOILS[spoil]


# -- the same run, with what a GPU adds ---------------------------------------------------------------------------------


def add_device_times(run: Run, device_ns: int) -> None:
    """A row of forward_latencies for every pass, as if its event pair had read so."""
    forwards = [row["forward"] for row in streams.rows(table_of(run, "forward_passes").parent, "forward_passes")]
    lines = ["forward,device_ns", *(f"{forward},{device_ns}" for forward in forwards)]
    table_of(run, "forward_latencies").write_text("\n".join(lines) + "\n")


def add_kernels(run: Run, span_ns: int) -> None:
    """Two kernels for every launch, whose span is as given, the second one on another stream and before the first."""

    def add(events: list[dict[str, Any]]) -> None:
        from kineto_events import kernel

        for launch in list(filter(is_launch, events)):
            start, correlation = launch["ts"] + 10, launch["args"]["correlation"]
            events.append(kernel(start + span_ns / 2000, span_ns / 2000, correlation))
            events.append(kernel(start, 1.0, correlation))

    edit_trace(run, add)


@pytest.mark.parametrize(("span_share", "holds"), [(0.98, True), (0.90, False), (1.10, False)])
def test_device_times_are_held_against_the_kernels_of_each_pass(copy: Run, span_share: float, holds: bool) -> None:
    device_ns = 4_000_000
    add_device_times(copy, device_ns)
    add_kernels(copy, round(device_ns * span_share))
    check = judged(copy)["device_time_full"]
    assert check.holds is holds, check.says
    assert check.numbers["passes"] == check.numbers["timed"] == check.numbers["with_kernels"] > 20
    assert check.numbers["median_error"] == pytest.approx(1 / span_share - 1, abs=0.001)
    assert judged(copy)["device_time_piecewise"].numbers["with_kernels"] > 0


def test_an_archive_is_judged_alike_on_another_machine(
    copy: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add_device_times(copy, 4_000_000)
    add_kernels(copy, 3_950_000)
    about = {"card": "A card", "date": "2026-01-01T00:00:00+00:00", "command": "c", "machine": {}, "seconds": 1.0}
    path = archive.keep(tmp_path / "kept", "v1", Sides([copy], [copy]), about)
    before = {name: (check.holds, check.says) for name, check in judged(copy).items()}
    shutil.rmtree(copy.folder)
    code = cli.main(["--again", str(path), "--json", str(tmp_path / "gpu.json")])
    assert code == cli.NOT_HELD  # one engine cannot be both sides
    result = json.loads((tmp_path / "gpu.json").read_text())["cards"]["A card"]["v1"]
    assert {name: (check["holds"], check["says"]) for name, check in result["checks"].items()} == before
    assert "FAILS  sides" in capsys.readouterr().out


# -- throughput ---------------------------------------------------------------------------------------------------------


def test_throughput_takes_the_hooks_out_and_in_within_one_engine(around: Surroundings, target: Target) -> None:
    stage = STAGES["throughput-v1"]
    few = replace(target, compilation={**target.compilation, "cudagraph_capture_sizes": [1, 2]})
    ours = around.run("throughput-with", stages.throughput_specification(stage, few), True, stage.env)
    checks = {check.name: check for check in stage.judge(stage, Sides([ours], [ours]))}
    assert checks["turns"].numbers == {"in": 2, "out": 2, "wrong": 0}
    assert checks["turns"].holds is True
    assert checks["throughput_within_one_process"].numbers["pairs"] == 2
    assert checks["throughput_between_processes"].numbers["ratio"] == 1.0
    assert checks["sides"].holds is False
    swapped = [{"in": turn["out"], "out": turn["in"]} for turn in ours.result["turns"]]
    wrong = ours._replace(result={**ours.result, "turns": swapped})
    checks = {check.name: check for check in stage.judge(stage, Sides([wrong], [ours]))}
    assert checks["turns"].holds is False
