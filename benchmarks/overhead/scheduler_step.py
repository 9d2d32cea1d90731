"""CPU time per engine step of vLLM's own scheduler, without a model, at 100 % recording.

Beside ProfileMate runs what vLLM itself offers for the same questions: its KV-cache residency collector at sample 1.0, and
its MFU metrics for comparison. All variants run in one process by turns; "bare again" is a second bare run of each round,
which tells how much of a difference is noise.
"""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from overhead.samples import Benchmark, Figure, Measurement, Target
from overhead.turns import patched, recording, rounds

STEP_US = 5000
"""The engine step that the overhead promise is about."""


class Size(NamedTuple):
    """How much is run."""

    rounds: int
    requests: int


SIZES = {"full": Size(32, 400), "quick": Size(8, 300), "tiny": Size(2, 20)}

PREFILL = ("--shape", "prefill", "--blocks", "2500", "--max-num-seqs", "64", "--max-num-batched-tokens", "2048")
"""Long prompts and short answers, as in the public traces: a pool that is full, some 16 new blocks and 14 evictions a step."""

DECODE = ("--shape", "decode", "--blocks", "1500", "--max-num-seqs", "64")
"""Some 50 running requests: `allocate_slots` is called for each of them in every step."""

CALM = ("--blocks", "4000", "--max-num-seqs", "64", "--max-num-batched-tokens", "2048")
"""Room for all that is running, as in a server that is not short of memory."""

NOISE_TIMES = 4.0
"""Where CI holds a ratio of two differences that are each a tenth of what they are taken from: few rounds tell no more."""

HELD_AT_TIMES = 8.0
"""The collector answers for the KV cache alone, and here all default trackers stand against it."""

HELD_AT_PERCENT = 32.0
"""Where CI holds it: two files are written in every step of the first trace, each of its evictions is a row, and three
trackers look at every step."""


class Run(NamedTuple):
    """One trace driven to its end."""

    cpu_us_per_step: float
    steps: int
    evictions_per_step: float | None


def drive_trace(*arguments: str) -> Run:
    """Drive the scheduler over a trace."""
    import drive

    summary, _ = drive.run(drive.parse(arguments))
    steps = int(summary["steps"])
    collected = "--kv-cache-metrics" in arguments
    evictions = summary["collector_evictions"] / steps if collected else None
    return Run(1e6 * float(summary["loop_cpu_s"]) / steps, steps, evictions)


def bare_step_us(requests: int) -> float:
    """CPU time of one step of the first trace in microseconds: what tells the speed of a machine."""
    return drive_trace("--requests", str(requests), *PREFILL).cpu_us_per_step


@contextmanager
def mfu_metrics() -> Iterator[None]:
    """VLLM's --enable-mfu-metrics in every configuration made meanwhile."""
    import drive

    make = drive.make_vllm_config

    def make_with_mfu(*arguments: Any) -> Any:
        config = make(*arguments)
        config.observability_config.enable_mfu_metrics = True
        return config

    with patched(drive, "make_vllm_config", make_with_mfu):
        yield


class Variant(NamedTuple):
    """What is on while the trace is driven."""

    inside: Callable[[], Any] = nullcontext
    options: tuple[str, ...] = ()


VARIANTS = {
    "bare": Variant(),
    "ProfileMate": Variant(recording),
    "KV cache alone": Variant(partial(recording, "kv_cache")),
    "bare again": Variant(),
    "collector": Variant(options=("--kv-cache-metrics",)),
    "mfu": Variant(mfu_metrics),
}
OTHER_TRACES = {"decode trace": DECODE, "calm trace": CALM}
OTHER_VARIANTS = ("bare", "ProfileMate", "collector")
RECORDING = ("ProfileMate", "KV cache alone")


def drive_variants(title: str, size: Size, trace: tuple[str, ...], names: tuple[str, ...]) -> dict[str, list[Run]]:
    """Every variant in every round, in an order of chance: what ran before leaves its traces in caches."""
    arguments = ("--requests", str(size.requests), *trace)
    runs: dict[str, list[Run]] = {name: [] for name in names}
    drive_trace(*arguments)  # imports and caches
    for number in rounds(f"scheduler_step, {title}", size.rounds):
        for name in random.Random(number).sample(names, len(names)):
            with VARIANTS[name].inside():
                runs[name].append(drive_trace(*arguments, *VARIANTS[name].options))
    return runs


def microseconds(runs: list[Run]) -> list[float]:
    """CPU time per step of every run."""
    return [run.cpu_us_per_step for run in runs]


def added(runs: list[Run], bare: list[Run]) -> list[float]:
    """The same beyond the bare run of the round."""
    return [run.cpu_us_per_step - base.cpu_us_per_step for run, base in zip(runs, bare, strict=True)]


def share_of_a_step(runs: list[Run], bare: list[Run]) -> list[float]:
    """What is added, in percent of a step of 5 ms."""
    return [100 * value / STEP_US for value in added(runs, bare)]


def measure(size: str) -> Measurement:
    """The first trace, which the targets are about, and the others."""
    chosen = SIZES[size]
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PROFILEMATE_DIR"] = folder
        first = drive_variants("prefill trace", chosen, PREFILL, tuple(VARIANTS))
        others = {
            name: drive_variants(name, chosen._replace(rounds=max(2, chosen.rounds // 3)), trace, OTHER_VARIANTS)
            for name, trace in OTHER_TRACES.items()
        }
        traces = (first, *others.values())
        check_rows(folder, [run for runs in traces for name in RECORDING for run in runs.get(name, ())])
    bare, ours, kv_alone = (first[name] for name in ("bare", *RECORDING))
    cpu, base = microseconds(ours), microseconds(bare)
    collector = added(first["collector"], bare)
    figures = [
        Figure("per engine step", "us of CPU", "percent", cpu, base, Target(5.0, held_at=HELD_AT_PERCENT)),
        Figure(
            "added by the KV cache tracker, against vLLM's collector at 1.0", "us of CPU", "times", added(kv_alone, bare),
            collector, Target(1.0, held_at=NOISE_TIMES), ("KV cache tracker", "collector"),
        ),
        Figure(
            "added by all default trackers, against vLLM's collector at 1.0", "us of CPU", "times", added(ours, bare),
            collector, Target(1.0, held_at=HELD_AT_TIMES), ("ProfileMate", "collector"),
        ),
        Figure("KV cache tracker alone, per engine step", "us of CPU", "percent", microseconds(kv_alone), base),
        Figure("per engine step, absolute", "us of CPU", "difference", cpu, base),
        Figure("share of a 5 ms step", "%", "value", share_of_a_step(ours, bare)),
        Figure("vLLM's collector at 1.0", "us of CPU", "difference", microseconds(first["collector"]), base),
        Figure("vLLM's MFU metrics", "us of CPU", "difference", microseconds(first["mfu"]), base),
        Figure("bare again (noise)", "us of CPU", "difference", microseconds(first["bare again"]), base),
        *(figure for name, runs in others.items() for figure in other_figures(name, runs)),
    ]  # fmt: skip
    return Measurement(figures, facts({"prefill trace": first, **others}))


def other_figures(name: str, runs: dict[str, list[Run]]) -> list[Figure]:
    """Another trace, for information."""
    bare, ours = runs["bare"], runs["ProfileMate"]
    cpu, base = microseconds(ours), microseconds(bare)
    return [
        Figure(f"{name}, per engine step", "us of CPU", "percent", cpu, base),
        Figure(f"{name}, absolute", "us of CPU", "difference", cpu, base),
        Figure(f"{name}, vLLM's collector at 1.0", "us of CPU", "difference", microseconds(runs["collector"]), base),
    ]


def check_rows(folder: str, runs: list[Run]) -> None:
    """What was timed must have been recorded: every step."""
    import streams

    rows = streams.all_rows(streams.only_session(Path(folder)), "engine_steps")
    expected = sum(run.steps for run in runs)
    if len(rows) != expected:
        raise RuntimeError(f"{len(rows)} steps recorded out of {expected}")


def facts(traces: dict[str, dict[str, list[Run]]]) -> dict[str, str]:
    """How the traces load the scheduler."""
    return {
        name: f"{runs['bare'][0].steps} steps, {runs['collector'][0].evictions_per_step:.1f} evictions per step"
        for name, runs in traces.items()
    }


BENCHMARK = Benchmark(
    "scheduler_step", "vLLM's scheduler alone, at 100 % recording", measure, {"VLLM_LOGGING_LEVEL": "ERROR"}
)
