"""What is run, on which runner, and which checks are made of it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from gpu_check import compare, cuda_trace, model, moe
from gpu_check.compare import Check
from gpu_check.rows import Rows
from gpu_check.surroundings import Run, Surroundings

RUNNERS = {
    "v1": "vllm.v1.worker.gpu_model_runner.GPUModelRunner",
    "v2": "vllm.v1.worker.gpu.model_runner.GPUModelRunner",
}
CAPTURE_SIZES = [1, 2, 4, 8, 16, 32, 64, 128, 256]
THROUGHPUT_PAIRS = 3
TRACED = {"PROFILEMATE_DEVICE_TIMING_EVERY": "1", "PROFILEMATE_CHECK_REPLAYS": "1"}
"""Settings of the traced run: every pass is timed, every replay call counted. Throughput is measured with the defaults."""


@dataclass(frozen=True)
class Target:
    """What the engines run on: model folders, their vocabulary, options that the caller adds."""

    wide_model: Path
    small_model: Path
    vocabulary: int
    llm: Mapping[str, Any]
    compilation: Mapping[str, Any]
    kv_requests: int = 96
    batch: int = 32
    output_tokens: int = 512
    rounds: int = 8
    turns: int = 8
    moe_model: Path = Path()


class Sides(NamedTuple):
    """The engine processes of a stage."""

    with_us: list[Run]
    without: list[Run]


class Stage(NamedTuple):
    """One part of the check that `--only` can name: its engines run on the GPU, its checks are made from their files."""

    runner: str
    graph_mode: str
    modes: tuple[str, ...]
    measure: Callable[[Stage, Target, Surroundings], Sides]
    judge: Callable[[Stage, Sides], list[Check]]

    @property
    def env(self) -> dict[str, str]:
        """The switch between vLLM's two model runners."""
        return {"VLLM_USE_V2_MODEL_RUNNER": "1" if self.runner == "v2" else "0"}


def tell(text: str) -> None:
    """Progress, for the person who waits."""
    print(f"[gpu-check] {text}", file=sys.stderr, flush=True)


def specification(stage: Stage, target: Target, model_folder: Path, blocks: int) -> dict[str, Any]:
    """What both sides of a stage have in common."""
    return {
        "model": str(model_folder),
        "vocabulary": target.vocabulary,
        "compilation": {
            "cudagraph_mode": stage.graph_mode,
            "cudagraph_capture_sizes": CAPTURE_SIZES,
            **target.compilation,
        },
        "llm": {
            "load_format": "dummy",
            "skip_tokenizer_init": True,
            "block_size": 16,
            "num_gpu_blocks_override": blocks,
            "max_model_len": 1024,
            "max_num_seqs": 32,
            "max_num_batched_tokens": 1024,
            "gpu_memory_utilization": 0.5,
            "cudagraph_metrics": True,
            "disable_log_stats": False,
            **target.llm,
        },
    }


def oracle_specification(stage: Stage, target: Target) -> dict[str, Any]:
    """The wide model, so that a pass takes milliseconds, and a pool that the load overflows."""
    spec = specification(stage, target, target.wide_model, blocks=400)
    return {"part": "oracles", "kv_requests": target.kv_requests, **spec}


def throughput_specification(stage: Stage, target: Target) -> dict[str, Any]:
    """The small model, and a pool that holds the whole batch."""
    sizes = {name: getattr(target, name) for name in ("batch", "output_tokens", "rounds", "turns")}
    return {"part": "throughput", **sizes, **specification(stage, target, target.small_model, blocks=2100)}


def run_oracles(stage: Stage, target: Target, around: Surroundings) -> Sides:
    """The graph and KV oracles, once with ProfileMate and once without, each with a traced window."""
    spec = oracle_specification(stage, target)
    name = f"{stage.runner}-{stage.graph_mode.lower()}"
    bare = around.run(f"{name}-without", spec, False, stage.env)
    tell(f"{name} without ProfileMate: {bare.seconds:.0f} s")
    ours = around.run(f"{name}-with", spec, True, {**stage.env, **TRACED})
    tell(f"{name} with ProfileMate: {ours.seconds:.0f} s")
    if ours.result["answers"] == bare.result["answers"]:
        return Sides([ours], [bare])
    tell(f"{name}: answers differ, so it is asked whether they do without ProfileMate too")
    return Sides([ours], [bare, around.run(f"{name}-without", spec, False, stage.env)])


def judge_oracles(stage: Stage, sides: Sides) -> list[Check]:
    """All checks on one pair of runs."""
    (ours,), bare = sides.with_us, sides.without[0]
    rows = Rows(ours.sessions)
    window = ours.result["window"]
    passes = rows.passes(window["began_ns"], window["ended_ns"])
    with_us, without = cuda_trace.read(ours.trace), cuda_trace.read(bare.trace)
    return [
        runner(stage, ours),
        compare.sides(ours.result, bare.result),
        compare.coverage(passes, stage.modes),
        compare.replays(passes, with_us),
        *(compare.device_time(passes, with_us, mode) for mode in ("FULL", "PIECEWISE") if mode in stage.modes),
        compare.captures(rows.table("graph_captures"), ours.result),
        compare.dispatches(rows.table("forward_passes"), ours.result["stats"]),
        compare.check_mode(rows.table("graph_phases")),
        compare.kv_cache(rows.table("engine_steps"), ours.result["kv"]),
        compare.synchronisations(with_us, window["calls"], without, bare.result["window"]["calls"]),
        compare.answers(ours.result["answers"], [run.result["answers"] for run in sides.without]),
        compare.capture_errors(ours.log()),
        compare.exit_codes([ours.code], [bare.code]),
        compare.hooks(rows.table("health"), rows.hooks()),
    ]


def runner(stage: Stage, run: Run) -> Check:
    """That vLLM took the model runner that was asked for."""
    classes = run.result["runner"]
    return Check("runner", RUNNERS[stage.runner] in classes, f"{classes[0]} in vLLM {run.result['vllm']}", {})


def run_throughput(stage: Stage, target: Target, around: Surroundings) -> Sides:
    """Token rates of engines with and without ProfileMate in turn, and within one engine with the hooks in and out."""
    spec = throughput_specification(stage, target)
    sides = Sides([], [])
    for number in range(THROUGHPUT_PAIRS):
        for profiled in (False, True) if number % 2 == 0 else (True, False):
            side = "with" if profiled else "without"
            run = around.run(f"throughput-{side}", spec, profiled, stage.env)
            (sides.with_us if profiled else sides.without).append(run)
            tell(f"throughput {side} ProfileMate, pair {number + 1} of {THROUGHPUT_PAIRS}: {run.seconds:.0f} s")
    return sides


def judge_throughput(stage: Stage, sides: Sides) -> list[Check]:
    """All checks on the pairs of runs."""
    with_us, without = sides
    rates = [[max(run.result["rates"]) for run in side] for side in (with_us, without)]
    turns = [turn for run in with_us for turn in run.result["turns"]]
    times = [int(row["time_ns"]) for run in with_us for row in Rows(run.sessions).table("forward_passes")]
    return [
        runner(stage, with_us[0]),
        compare.sides(with_us[0].result, without[0].result),
        compare.throughput("throughput_between_processes", rates[0], rates[1]),
        compare.throughput(
            "throughput_within_one_process",
            [turn["in"]["rate"] for turn in turns],
            [turn["out"]["rate"] for turn in turns],
        ),
        compare.turns(turns, times),
        compare.memory([run.result["memory"] for run in with_us], [run.result["memory"] for run in without]),
        compare.exit_codes([run.code for run in with_us], [run.code for run in without]),
    ]


def moe_specification(stage: Stage, target: Target, eager: bool) -> dict[str, Any]:
    """The MoE model, under graphs or without any."""
    spec = specification(stage, target, target.moe_model, blocks=2100)
    if eager:
        spec = {**spec, "compilation": {}, "llm": {**spec["llm"], "enforce_eager": True}}
    return {"part": "moe", "batch": target.batch, "output_tokens": 24, **spec}


def run_moe(stage: Stage, target: Target, around: Surroundings) -> Sides:
    """The same load under graphs and in an eager engine, which takes the place of the one without; both are profiled."""
    runs = []
    for eager in (False, True):
        name = f"moe-{stage.runner}-{'eager' if eager else 'graphs'}"
        runs.append(around.run(name, moe_specification(stage, target, eager), True, {**stage.env, **moe.ON}))
        tell(f"{name}: {runs[-1].seconds:.0f} s")
    return Sides(runs[:1], runs[1:])


def judge_moe(stage: Stage, sides: Sides) -> list[Check]:
    """All checks on the pair."""
    (graphs,), (eager,) = sides
    rows, eager_rows = Rows(graphs.sessions), Rows(eager.sessions)
    counts, eager_counts = rows.table("moe_counts"), eager_rows.table("moe_counts")
    top_k = int(rows.table("moe_layers")[0]["top_k"])
    return [
        runner(stage, graphs),
        compare.coverage(rows.passes(0, sys.maxsize), stage.modes),
        moe.totals("moe_totals_graphs", graphs.result, counts, top_k),
        moe.totals("moe_totals_eager", eager.result, eager_counts, top_k),
        moe.gates(eager.result, eager_counts),
        moe.engines(counts, eager_counts),
        compare.capture_errors(graphs.log()),
        compare.exit_codes([graphs.code], [eager.code]),
        compare.hooks(rows.table("health"), rows.hooks()),
    ]


BOTH = ("FULL", "PIECEWISE")
STAGES = {
    "v1": Stage("v1", "FULL_AND_PIECEWISE", BOTH, run_oracles, judge_oracles),
    "v2": Stage("v2", "FULL_AND_PIECEWISE", BOTH, run_oracles, judge_oracles),
    "throughput": Stage("v2", "FULL_AND_PIECEWISE", BOTH, run_throughput, judge_throughput),
    "v1-piecewise": Stage("v1", "PIECEWISE", ("PIECEWISE",), run_oracles, judge_oracles),
    "v2-piecewise": Stage("v2", "PIECEWISE", ("PIECEWISE",), run_oracles, judge_oracles),
    "throughput-v1": Stage("v1", "FULL_AND_PIECEWISE", BOTH, run_throughput, judge_throughput),
    "moe": Stage("v1", "FULL_AND_PIECEWISE", BOTH, run_moe, judge_moe),
    "moe-v2": Stage("v2", "FULL_AND_PIECEWISE", BOTH, run_moe, judge_moe),
}
DEFAULT_STAGES = ("v1", "v2", "throughput")


def target_for(memory_bytes: int, work: Path, backend: str) -> Target:
    """The models for a device of this size, written to the working folder."""
    return Target(
        wide_model=model.write(work / "models" / "wide", model.wide(memory_bytes)),
        small_model=model.write(work / "models" / "small", model.small()),
        moe_model=model.write(work / "models" / "moe", moe.SHAPE),
        vocabulary=model.VOCABULARY,
        llm={} if backend == "auto" else {"attention_backend": backend},
        compilation={},
    )
