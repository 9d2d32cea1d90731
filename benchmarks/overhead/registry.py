"""The benchmarks, in the order in which they run and are shown."""

from __future__ import annotations

from overhead import (
    all_trackers,
    end_to_end,
    engine,
    graph_replay,
    instructions,
    python_start,
    scheduler_step,
    step_writes,
)
from overhead.samples import Benchmark

BENCHMARKS: tuple[Benchmark, ...] = (
    python_start.BENCHMARK,
    scheduler_step.BENCHMARK,
    instructions.BENCHMARK,
    graph_replay.BENCHMARK,
    step_writes.BENCHMARK,
    end_to_end.BENCHMARK,
    all_trackers.SCHEDULER,
    all_trackers.SERVER,
    engine.COMPUTING,
    engine.REPLAYING,
)


def find(name: str) -> Benchmark:
    """A benchmark by its name."""
    return next(benchmark for benchmark in BENCHMARKS if benchmark.name == name)
