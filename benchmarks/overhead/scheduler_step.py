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


SIZES = {"full": Size(32, 600), "quick": Size(8, 400), "tiny": Size(2, 20)}

INTENSE: tuple[str, ...] = ()
"""The driver's own defaults: a tiny pool, so that every step evicts and allocates much."""

CALM = ("--blocks", "4000", "--max-num-seqs", "64", "--max-num-batched-tokens", "2048")
"""Room for all that is running, as in a server that is not short of memory."""


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
    "bare again": Variant(),
    "collector": Variant(options=("--kv-cache-metrics",)),
    "mfu": Variant(mfu_metrics),
}
CALM_VARIANTS = ("bare", "ProfileMate", "collector")


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
    """The intense trace, which the targets are about, and the calm one."""
    chosen = SIZES[size]
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PROFILEMATE_DIR"] = folder
        intense = drive_variants("intense trace", chosen, INTENSE, tuple(VARIANTS))
        calm = drive_variants("calm trace", chosen, CALM, CALM_VARIANTS)
        check_rows(folder, [*intense["ProfileMate"], *calm["ProfileMate"]])
    bare, ours = intense["bare"], intense["ProfileMate"]
    cpu, base = microseconds(ours), microseconds(bare)
    collector = added(intense["collector"], bare)
    figures = [
        Figure("per engine step", "us of CPU", "percent", cpu, base, Target(5.0)),
        Figure(
            "added, against vLLM's collector at 1.0", "us of CPU", "times", added(ours, bare), collector, Target(1.0),
            ("ProfileMate", "collector"),
        ),
        Figure("per engine step, absolute", "us of CPU", "difference", cpu, base),
        Figure("share of a 5 ms step", "%", "value", share_of_a_step(ours, bare)),
        Figure("vLLM's collector at 1.0", "us of CPU", "difference", microseconds(intense["collector"]), base),
        Figure("vLLM's MFU metrics", "us of CPU", "difference", microseconds(intense["mfu"]), base),
        Figure("bare again (noise)", "us of CPU", "difference", microseconds(intense["bare again"]), base),
        *calm_figures(calm),
    ]  # fmt: skip
    return Measurement(figures, facts(intense, calm))


def calm_figures(calm: dict[str, list[Run]]) -> list[Figure]:
    """The calm trace, for information."""
    bare, ours = calm["bare"], calm["ProfileMate"]
    cpu, base = microseconds(ours), microseconds(bare)
    return [
        Figure("calm trace, per engine step", "us of CPU", "percent", cpu, base),
        Figure("calm trace, absolute", "us of CPU", "difference", cpu, base),
        Figure("calm trace, share of a 5 ms step", "%", "value", share_of_a_step(ours, bare)),
        Figure("calm trace, vLLM's collector at 1.0", "us of CPU", "difference", microseconds(calm["collector"]), base),
    ]


def check_rows(folder: str, runs: list[Run]) -> None:
    """What was timed must have been recorded: every step."""
    import streams

    rows = streams.all_rows(streams.only_session(Path(folder)), "kv_steps")
    expected = sum(run.steps for run in runs)
    if len(rows) != expected:
        raise RuntimeError(f"{len(rows)} steps recorded out of {expected}")


def facts(intense: dict[str, list[Run]], calm: dict[str, list[Run]]) -> dict[str, str]:
    """How the traces load the scheduler."""
    return {
        name: f"{runs['bare'][0].steps} steps, {runs['collector'][0].evictions_per_step:.1f} evictions per step"
        for name, runs in (("intense trace", intense), ("calm trace", calm))
    }


BENCHMARK = Benchmark(
    "scheduler_step", "vLLM's scheduler alone, at 100 % recording", measure, {"VLLM_LOGGING_LEVEL": "ERROR"}
)
