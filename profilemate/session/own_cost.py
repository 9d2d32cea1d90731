"""What ProfileMate itself cost a session: time in its own code, by process and hook, estimated from what was timed."""

from __future__ import annotations

from dataclasses import dataclass

from profilemate.session.health import Health, ProcessHook
from profilemate.session.records import ProcessInfo
from profilemate.session.session import Session

STEP_HOOKS = ("scheduler.step_end", "v1_runner.execute_model", "v2_runner.execute_model")
"""Each is called once per engine step in the process that it is in."""


@dataclass(frozen=True)
class HookCost:
    """Time in the handlers of one hook and in the entry of its wrapper. Nanoseconds over all its calls.

    `timed_calls` of them were measured; the others are taken to cost what the sampled ones did on average. None where no
    later call was in the sample and there was no first one either.
    """

    process: str
    hook: str
    calls: int
    timed_calls: int
    spent_ns: float | None
    later_calls: int
    later_ns: float


@dataclass(frozen=True)
class ProcessCost:
    """All hooks of one process. `run_ns` is from ProfileMate's start in it to the last count."""

    process: str
    role: str
    spent_ns: float
    run_ns: int
    steps: int
    step_ns: float | None
    hooks: tuple[HookCost, ...]

    @property
    def share(self) -> float | None:
        """Part of the run that was spent in our code."""
        return self.spent_ns / self.run_ns if self.run_ns > 0 else None


def read_own_cost(session: Session, health: Health) -> tuple[ProcessCost, ...]:
    """Every process that told its calls."""
    costs = (_process_cost(process, health.by_process) for process in session.processes)
    return tuple(cost for cost in costs if cost is not None)


def _process_cost(process: ProcessInfo, hooks: tuple[ProcessHook, ...]) -> ProcessCost | None:
    mine = [hook for hook in hooks if hook.process == process.name and hook.calls]
    if not mine or not process.began_ns:
        return None
    costs = sorted((_hook_cost(hook, process.entry_ns) for hook in mine), key=lambda cost: -(cost.spent_ns or 0))
    steps = max((cost.later_calls for cost in costs if cost.hook in STEP_HOOKS), default=0)
    later_ns = sum(cost.later_ns for cost in costs)
    return ProcessCost(
        process.name,
        process.role,
        sum(cost.spent_ns or 0 for cost in costs),
        max(hook.as_of_ns or 0 for hook in mine) - process.at(process.began_ns),
        steps,
        later_ns / steps if steps else None,
        tuple(costs),
    )


def _hook_cost(hook: ProcessHook, entry_ns: float) -> HookCost:
    timed = hook.timed
    later_calls = max(0, hook.calls - timed.first_calls)
    mean_ns = _mean_ns(hook)
    later_ns = later_calls * ((mean_ns or 0) + entry_ns)
    known = mean_ns is not None or not later_calls
    return HookCost(
        hook.process,
        hook.record.name,
        hook.calls,
        timed.first_calls + timed.sampled_calls,
        timed.first_ns + timed.first_calls * entry_ns + later_ns if known else None,
        later_calls,
        later_ns,
    )


def _mean_ns(hook: ProcessHook) -> float | None:
    """Of a later call; that of the first calls where none of the later ones was in the sample."""
    timed = hook.timed
    if timed.sampled_calls:
        return timed.sampled_ns / timed.sampled_calls
    return timed.first_ns / timed.first_calls if timed.first_calls else None
