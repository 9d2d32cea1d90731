"""What is known of one scheduler between its steps: plain numbers and texts, never an object of vLLM's."""

from __future__ import annotations

from typing import Any, NamedTuple

from profilemate.probe.engine_step import Engine, engine_of
from profilemate.trackers.engine_steps.events import COUNTS, LIMITS
from profilemate.trackers.engine_steps.limit import Caps


class Batch(NamedTuple):
    """What is added up of a step that is not plain decode."""

    context_requests: int | None
    context_tokens: int | None
    recomputed: int | None
    preempted: int | None


Scheduled = tuple[int, int, int, str, str, "Batch | None"]
"""A step that waits for its output: its number, when scheduling began and ended, the cells of its row that are known, the
limit, and what is added up of it beside requests and tokens. A plain tuple, since one is made for every step."""


class Totals:
    """Sums over the finished steps of one scheduler, named as in events.COUNTS."""

    __slots__ = (
        "accepted_tokens", "between_ns", "blocked_ns", "busy_steps", "context_requests", "context_tokens",
        "drafted_tokens", "limits", "no_requests_ns", "recomputed_tokens", "schedule_ns", "step_finished",
        "step_preempted", "step_requests", "step_tokens", "update_ns",
    )  # fmt: skip

    def __init__(self) -> None:
        """Nothing counted yet."""
        self.busy_steps = self.step_tokens = self.step_requests = self.context_requests = self.context_tokens = 0
        self.recomputed_tokens = self.step_preempted = self.step_finished = 0
        self.drafted_tokens = self.accepted_tokens = 0
        self.schedule_ns = self.blocked_ns = self.update_ns = self.between_ns = self.no_requests_ns = 0
        self.limits = dict.fromkeys(LIMITS, 0)

    def cells(self) -> tuple[int, ...]:
        """In the order of events.COUNTS."""
        return tuple(self.limits[name] if name in self.limits else getattr(self, name) for name in COUNTS)


class StepState:
    """One scheduler. Times are monotonic nanoseconds; what is counted is so since its last row or its last batch."""

    def __init__(self, scheduler: Any) -> None:
        """Nothing has happened yet."""
        self.engine: Engine = engine_of(scheduler)
        self.caps = Caps.of(scheduler)
        usable = int(scheduler.kv_cache_manager.block_pool.num_gpu_blocks) - 1
        self.constants = f"{self.caps.max_requests},{self.caps.max_step_tokens},{usable}"
        self.skipped = "deferred_waiting" if hasattr(scheduler, "deferred_waiting") else "skipped_waiting"
        self.none = 0 if hasattr(scheduler, "_preempt_request") else None
        self.plain_tokens = self.caps.plain_tokens
        self.plain_requests = self.plain_step_tokens = -1
        self.plain_cells = ""
        self.was_plain = False
        self.totals = Totals()
        self.through_step = 0
        self.pending: dict[int, Scheduled] = {}
        self.lost: dict[str, int] = {}
        self.number, self.expected = 0, 1
        self.mark_ns = self.between_ns = self.no_requests_ns = 0
        self.is_empty = True
        self.deferring = False
        self.preempted = self.preempted_before = self.failures_before = self.dummy_steps = 0
        self.finished = self.drafted = self.accepted = 0

    def count(self, scheduled: Any, step: Scheduled, blocked_ns: int, update_ns: int) -> None:
        """A row was made: add it up, and begin anew with what it told."""
        sums, (_, begun_ns, ended_ns, _, limit, batch) = self.totals, step
        sums.schedule_ns += ended_ns - begun_ns
        sums.blocked_ns += blocked_ns
        sums.update_ns += update_ns
        sums.between_ns += self.between_ns
        self.between_ns = 0
        tokens = scheduled.total_num_scheduled_tokens
        if limit:
            sums.limits[limit] += 1
            if tokens:
                sums.busy_steps += 1
                sums.step_tokens += tokens
                sums.step_requests += len(scheduled.num_scheduled_tokens)
        if batch is not None:
            sums.context_requests += batch.context_requests or 0
            sums.context_tokens += batch.context_tokens or 0
            sums.recomputed_tokens += batch.recomputed or 0
            sums.step_preempted += batch.preempted or 0
        if self.no_requests_ns:
            sums.no_requests_ns += self.no_requests_ns
            self.no_requests_ns = 0
        if self.finished or self.drafted:
            sums.step_finished += self.finished
            sums.drafted_tokens += self.drafted
            sums.accepted_tokens += self.accepted
            self.finished = self.drafted = self.accepted = 0
        self.through_step = self.engine.step + 1
