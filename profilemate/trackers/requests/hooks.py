"""Hooks on vLLM's OutputProcessor (the front end) and its Scheduler (the engine core)."""

from __future__ import annotations

from time import monotonic_ns
from typing import Any

from profilemate.probe.allocation import ALLOCATION_FAILED
from profilemate.probe.hook import AHEAD, AROUND, AROUND_LISTED, FOLLOWING, SCOPE, SELF, Hook
from profilemate.probe.process import THIS
from profilemate.trackers.requests import events, front_end, scheduler, state

TOTALS = THIS.writer.stream(events.TOTALS, detail=False, newest_counts=True)


def write_totals() -> None:
    """Before rows are removed: how many there were."""
    totals = state.TOTALS
    TOTALS.add((monotonic_ns(), totals.arrived, totals.ended, totals.freed, totals.preempted))


def after_fork() -> None:
    """A forked child has no requests of its own yet."""
    state.forget_all()
    state.TOTALS.forget()


FRONT_END = "vllm.v1.engine.output_processor"
SCHEDULER = "vllm.v1.core.sched.scheduler"


def _hook(name: str, module: str, target: str, *rest: Any, **options: Any) -> Hook:
    return Hook(f"{module.rpartition('.')[2]}.{name}", "requests", module, target, *rest, **options)


HOOKS = (
    _hook(
        "request_taken_in", FRONT_END, "OutputProcessor.add_request", AROUND, front_end.request_comes,
        front_end.request_taken_in, (SELF, "request"),
    ),
    _hook(
        "request_finished", FRONT_END, "OutputProcessor._update_stats_from_finished", FOLLOWING, None,
        front_end.request_finished, (SELF, "req_state", "finish_reason", "iteration_stats"),
    ),
    _hook(
        "requests_aborted", FRONT_END, "OutputProcessor.abort_requests", AROUND_LISTED, front_end.abort_begins,
        front_end.requests_aborted, (SELF, "request_ids"),
    ),
    _hook(
        "requests_lost", FRONT_END, "OutputProcessor.propagate_error", AHEAD, front_end.engine_died, None, (SELF,),
        optional=True,
    ),
    _hook("requests_delivered", FRONT_END, "OutputProcessor.process_outputs", FOLLOWING, None, front_end.outputs_processed),
    _hook("request_added", SCHEDULER, "Scheduler.add_request", FOLLOWING, None, scheduler.request_added, (SELF, "request")),
    _hook("requests_scheduled", SCHEDULER, "Scheduler.schedule", FOLLOWING, None, scheduler.step_scheduled, (SELF,)),
    _hook("requests_updated", SCHEDULER, "Scheduler.update_from_output", FOLLOWING, None, scheduler.step_finished, (SELF,)),
    _hook(
        "request_preempted", SCHEDULER, "Scheduler._preempt_request", AROUND, scheduler.preemption_begins,
        scheduler.request_preempted, (SELF, "request"), optional=True,
    ),
    _hook(
        "requests_reset", SCHEDULER, "Scheduler.reset_prefix_cache", SCOPE, scheduler.reset_begins, scheduler.reset_ends,
        (SELF,),
    ),
    _hook("request_freed", SCHEDULER, "Scheduler._free_request", AHEAD, scheduler.request_freed, None, (SELF, "request")),
    _hook("requests_finished", SCHEDULER, "Scheduler.finish_requests", FOLLOWING, None, scheduler.requests_finished, (SELF,)),
    ALLOCATION_FAILED,
)  # fmt: skip
