"""The end of an engine step: its row is made of what the trackers contributed, and goes to the kernel.

The hook is put in after those of the trackers, so that it runs when they all have seen the step.
"""

from __future__ import annotations

from time import monotonic_ns
from typing import Any

from profilemate.probe.hook import FOLLOWING, SELF, Hook
from profilemate.probe.per_object import PerObject
from profilemate.probe.process import THIS
from profilemate.probe.shared_row import SharedRow
from profilemate.schema.step_table import BASE

STEP = SharedRow(THIS.writer.stream(BASE))


class Engine:
    """One scheduler of this process. `number` counts from 0, `step` is the number of its last finished step."""

    __slots__ = ("number", "step")

    def __init__(self, number: int) -> None:
        """No step yet."""
        self.number = number
        self.step = 0


_engines: PerObject[Engine] = PerObject()
_engines_met = 0


def engine_of(scheduler: Any) -> Engine:
    """The engine of a scheduler, numbered when it is first seen."""
    return _engines.get(id(scheduler)) or _meet(scheduler)


def _meet(scheduler: Any) -> Engine:
    global _engines_met
    engine = _engines.keep(scheduler, Engine(_engines_met))
    _engines_met += 1
    return engine


def add_row(engine: Engine, now_ns: int) -> None:
    """Make a row of what was contributed: at the end of a step, and where no step may follow."""
    STEP.add(f"{now_ns},{engine.number},{engine.step}")


def step_ends(outputs: Any, scheduler: Any) -> None:
    """The output of an engine step was processed: its row, and everything before it, goes to the kernel now."""
    now = monotonic_ns()
    engine = _engines.get(id(scheduler)) or _meet(scheduler)
    engine.step += 1
    add_row(engine, now)
    THIS.flush_step(STEP.streams, now)


def after_fork() -> None:
    """A forked child has no schedulers of its own yet."""
    global _engines_met
    _engines.clear()
    _engines_met = 0
    STEP.forget()


STEP_END = Hook(
    "scheduler.step_end", "probe", "vllm.v1.core.sched.scheduler", "Scheduler.update_from_output", FOLLOWING, None,
    step_ends, (SELF,),
)  # fmt: skip


def hooks() -> tuple[Hook, ...]:
    """The hook, if a tracker that is on wants the row or the write."""
    return (STEP_END,) if STEP.parts or len(STEP.streams) > 1 else ()
