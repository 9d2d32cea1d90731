"""The tracker's own cells of the row of a forward pass, and the counts by phase that outlive old rows."""

from __future__ import annotations

from time import monotonic_ns
from typing import Any

from profilemate.probe.batch import context_of
from profilemate.probe.process import THIS
from profilemate.trackers.forward_passes import events, runners
from profilemate.trackers.forward_passes.recorder import FORWARD, contribute

TOTALS = THIS.writer.stream(events.TOTALS, detail=False)


class Totals:
    """What was counted so far. Decode passes, which are most, are all passes without the others."""

    __slots__ = ("others", "requests", "tokens")

    def __init__(self) -> None:
        """Nothing yet."""
        self.forget()

    def forget(self) -> None:
        """For a forked child."""
        self.requests = self.tokens = 0
        self.others: dict[str, list[int]] = {}

    def add_other(self, phase: str, requests: int, tokens: int, context_tokens: int) -> None:
        """One pass that was not a decode."""
        total = self.others.setdefault(phase, [0, 0, 0, 0])
        for place, value in enumerate((1, requests, tokens, context_tokens)):
            total[place] += value

    def by_phase(self, passes: int) -> dict[str, list[int]]:
        """Passes, requests, tokens and context tokens of each phase; `passes` is the number of all."""
        sums = [sum(column) for column in zip(*self.others.values())] or [0, 0, 0, 0]  # noqa: B905 (3.10: as long)
        decode = [passes - sums[0], self.requests - sums[1], self.tokens - sums[2], 0]
        return {**self.others, **({"decode": decode} if decode[0] else {})}


COUNTED = Totals()


def pass_cells(scheduler_output: Any) -> str:
    """The columns of events.PASSES."""
    requests, tokens = len(scheduler_output.num_scheduled_tokens), scheduler_output.total_num_scheduled_tokens
    COUNTED.requests += requests
    COUNTED.tokens += tokens
    cached = scheduler_output.scheduled_cached_reqs
    try:
        if (
            not scheduler_output.scheduled_new_reqs and 0 not in cached.num_output_tokens
        ):  # as context_of, in a call less
            return f"decode,{requests},{tokens},0,0,{FORWARD.execute_ns},{FORWARD.sample_ns}"
        context_requests, context_tokens = context_of(scheduler_output)
    except AttributeError:  # vLLM 0.11
        COUNTED.add_other("", requests, tokens, 0)
        return f",{requests},{tokens},,,{FORWARD.execute_ns},{FORWARD.sample_ns}"
    phase = "prefill" if context_requests == requests else "mixed"
    COUNTED.add_other(phase, requests, tokens, context_tokens)
    return f"{phase},{requests},{tokens},{context_requests},{context_tokens},{FORWARD.execute_ns},{FORWARD.sample_ns}"


def write_totals() -> None:
    """Old rows are about to go: the counts by phase stay."""
    now, passes = monotonic_ns(), FORWARD.number
    for phase, total in COUNTED.by_phase(passes).items():
        TOTALS.add((now, passes, phase, *total))


def after_fork() -> None:
    """A forked child starts at zero."""
    runners.after_fork()
    COUNTED.forget()


contribute(events.PASSES, pass_cells)

HOOKS = runners.pass_hooks("forward_passes")
