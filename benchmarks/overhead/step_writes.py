"""All writes of one engine step: formatting its rows and write(2), in the scheduler and in the worker, on this machine's disk.

vLLM's scheduler is driven over a trace; the model's place is taken by a forward pass of graph replays, so that one process has
both sides of the step, as with vLLM's in-process executor. The time is taken around `flush`, from outside.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, NamedTuple

from overhead import forwards, scheduler_step
from overhead.reference import SCHEDULER_STEP_US, Yardstick
from overhead.samples import Benchmark, Figure, Measurement, Target
from overhead.turns import patched, recording, rounds

HELD_AT_US = 20.0
"""Where CI holds it, at the speed of the targets' machine: a file system is slower than a processor on another day."""

TARGET = Target(10.0, held_at=HELD_AT_US)


class Size(NamedTuple):
    """How much is run; `bare_requests` of the trace whose bare steps tell the machine's speed."""

    rounds: int
    requests: int
    bare_requests: int


SIZES = {"full": Size(16, 600, 400), "quick": Size(5, 300, 300), "tiny": Size(2, 20, 20)}


class Clock:
    """Time spent in some functions since the last look; one that calls another counts once."""

    def __init__(self) -> None:
        """Nothing spent yet."""
        self.spent_ns = 0
        self._inside = False

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function with the clock around it."""

        def timed(*arguments: Any) -> Any:
            if self._inside:
                return function(*arguments)
            self._inside = True
            began = time.perf_counter_ns()
            try:
                return function(*arguments)
            finally:
                self.spent_ns += time.perf_counter_ns() - began
                self._inside = False

        return timed

    def take_us(self) -> float:
        """Microseconds since the last look."""
        spent, self.spent_ns = self.spent_ns, 0
        return spent / 1e3


class Steps(NamedTuple):
    """Microseconds of every engine step of a run."""

    worker_us: list[float]
    scheduler_us: list[float]

    @property
    def both_us(self) -> list[float]:
        """Of the whole step."""
        return [first + second for first, second in zip(self.worker_us, self.scheduler_us, strict=True)]


def drive_steps(runner: Any, requests: int, clock: Clock) -> Steps:
    """Drive a trace and read the clock after the worker's part and after the scheduler's part of each step."""
    import drive

    steps = Steps([], [])
    make_output, update = drive.Driver._model_output, drive.Driver._update

    def execute(driver: Any, scheduled: Any) -> Any:
        output = make_output(driver, scheduled)
        clock.take_us()
        runner.execute_model(scheduled)
        runner.sample_tokens(None)
        steps.worker_us.append(clock.take_us())
        return output

    def finish(driver: Any) -> None:
        waiting = bool(driver.in_flight)
        update(driver)
        if waiting:
            steps.scheduler_us.append(clock.take_us())

    with patched(drive.Driver, "_model_output", execute), patched(drive.Driver, "_update", finish):
        drive.run(drive.parse(["--requests", str(requests)]))
    return steps


def time_flushes(runner: Any, requests: int) -> Steps:
    """All that a step spends in the methods that bring its rows to the kernel."""
    from profilemate.probe.process import THIS

    clock = Clock()
    with ExitStack() as stack:
        for name in dir(THIS):
            if name.startswith("flush"):
                stack.enter_context(patched(THIS, name, clock.around(getattr(THIS, name))))
        steps = drive_steps(runner, requests, clock)
    if not (statistics.median(steps.worker_us) and statistics.median(steps.scheduler_us)):
        raise RuntimeError("a step ended without a flush: its hooks call another function now")
    return steps


def time_system_calls(runner: Any, requests: int) -> Steps:
    """Of which write(2). A run of its own, since this clock would be part of the other's time."""
    clock = Clock()
    with patched(os, "write", clock.around(os.write)):
        return drive_steps(runner, requests, clock)


def percentile_99(values: list[float]) -> float:
    """The value that one in a hundred exceeds."""
    return statistics.quantiles(values, n=100)[98]


def figures(flushes: list[Steps], writes: list[Steps], bare_steps_us: list[float]) -> list[Figure]:
    """One sample is the median, or the 99th percentile, of the steps of a run."""
    median = statistics.median
    return [
        Figure(
            "one engine step",
            "us",
            "value",
            [median(run.both_us) for run in flushes],
            target=TARGET,
            yardstick=Yardstick("a bare scheduler step", bare_steps_us, SCHEDULER_STEP_US),
        ),
        Figure("its worker's part", "us", "value", [median(run.worker_us) for run in flushes]),
        Figure("its scheduler's part", "us", "value", [median(run.scheduler_us) for run in flushes]),
        Figure("of which write(2)", "us", "value", [median(run.both_us) for run in writes]),
        Figure(
            "one step in a hundred takes longer than", "us", "value", [percentile_99(run.both_us) for run in flushes]
        ),
    ]


def measure(size: str) -> Measurement:
    """Runs of both kinds in turn."""
    from profilemate.probe import folders

    chosen = SIZES[size]
    flushes, writes, bare_steps_us = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PROFILEMATE_DIR"] = folder
        runner = forwards.make_runner()
        for _ in rounds("step_writes", chosen.rounds):
            bare_steps_us.append(scheduler_step.bare_step_us(chosen.bare_requests))
            with recording():
                flushes.append(time_flushes(runner, chosen.requests))
                writes.append(time_system_calls(runner, chosen.requests))
        about = {
            "file system": folders.mount_type(folder),
            "steps": f"{sum(len(run.worker_us) for run in flushes)} in {chosen.rounds} runs",
        }
    return Measurement(figures(flushes, writes, bare_steps_us), about)


BENCHMARK = Benchmark("step_writes", "All writes of one engine step", measure, forwards.ENVIRONMENT)
