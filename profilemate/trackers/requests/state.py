"""What is kept of the requests of a scheduler while they wait, are in prefill, or make up for a preemption.

Nothing is kept of a request that only decodes: its rows are joined when the session is read.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from profilemate.probe.engine_step import engine_of
from profilemate.probe.per_object import PerObject

MOST_WAITING = 1 << 17
"""Arrivals that are kept at once: were the hook that forgets them switched off, they would grow without end."""


class Prefill:
    """A request between its first schedule and its first token. `done_step` is the step that gives it, 0 before that."""

    __slots__ = ("cached_tokens", "done_step", "prompt_tokens", "queued_ns", "scheduled_ns", "steps")

    def __init__(
        self, queued_ns: int | None, scheduled_ns: int | None, prompt_tokens: int, cached_tokens: int | None
    ) -> None:
        """No step yet. The times and cached tokens of a request that was scheduled before are not known again."""
        self.queued_ns = queued_ns
        self.scheduled_ns = scheduled_ns
        self.prompt_tokens = prompt_tokens
        self.cached_tokens = cached_tokens
        self.steps = self.done_step = 0


class Recovery:
    """A request that was resumed and has not yet again what it lost. `done_step` is the step that gives it the rest."""

    __slots__ = ("done_step", "kept_tokens", "lost_tokens", "number")

    def __init__(self, number: int, lost_tokens: int, kept_tokens: int) -> None:
        """`kept_tokens` of those lost were found again."""
        self.number = number
        self.lost_tokens = lost_tokens
        self.kept_tokens = kept_tokens
        self.done_step = 0

    def recomputed(self, computed_tokens: int) -> int:
        """Of the lost tokens, those computed again by now."""
        return max(0, min(computed_tokens, self.lost_tokens) - self.kept_tokens)


class State:
    """The requests of one scheduler, by vLLM's id. `in_flight` schedules have not been updated from their output."""

    __slots__ = (
        "awaited",
        "engine",
        "in_flight",
        "is_resetting",
        "preempted",
        "prefilling",
        "recovering",
        "waiting",
    )

    def __init__(self, scheduler: Any) -> None:
        """Nothing is waiting."""
        self.engine = engine_of(scheduler)
        self.in_flight = 0
        self.is_resetting = False
        self.waiting: dict[str, int] = {}
        self.prefilling: dict[str, Prefill] = {}
        self.preempted: dict[str, tuple[int, int]] = {}
        self.recovering: dict[str, Recovery] = {}
        self.awaited: deque[tuple[int, str]] = deque()

    @property
    def next_step(self) -> int:
        """Number of the step that a schedule() under way, or the next one, makes."""
        return self.engine.step + self.in_flight + 1

    @property
    def ending_step(self) -> int:
        """Number of the step whose output is processed now, or next."""
        return self.engine.step + 1


STATES: PerObject[State] = PerObject()
"""By the id of a scheduler, for handlers that run in every step; `state_of` is for all else."""


def state_of(scheduler: Any) -> State:
    """The state of a scheduler."""
    return STATES.get(id(scheduler)) or meet(scheduler)


def meet(scheduler: Any) -> State:
    """Begin to follow a scheduler."""
    return STATES.keep(scheduler, State(scheduler))


def forget_all() -> None:
    """For a forked child, which has no schedulers of its own yet."""
    STATES.clear()


class Totals:
    """Cumulative counts of this process, as in events.TOTALS."""

    __slots__ = ("arrived", "ended", "freed", "preempted")

    def __init__(self) -> None:
        """Nothing yet."""
        self.forget()

    def forget(self) -> None:
        """Begin anew."""
        self.arrived = self.ended = self.freed = self.preempted = 0


TOTALS = Totals()
