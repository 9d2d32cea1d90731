"""The tracker's own cells of the row of a forward pass, and the counts by phase that outlive old rows."""

from __future__ import annotations

from time import monotonic_ns
from typing import Any

from profilemate.probe.batch import context_of
from profilemate.probe.process import THIS
from profilemate.trackers.forward_passes import events, runners
from profilemate.trackers.forward_passes.recorder import FORWARD, contribute

TOTALS = THIS.writer.stream(events.TOTALS, detail=False, newest_counts=True)


UNTOLD = (0,)
"""In the place of what vLLM 0.11 does not tell."""


class Totals:
    """What was counted so far. Decode passes, which are most, are all passes without the others."""

    __slots__ = ("others", "passes", "requests", "tokens")

    def __init__(self) -> None:
        """Nothing yet."""
        self.forget()

    def forget(self) -> None:
        """For a forked child."""
        self.passes = self.requests = self.tokens = 0
        self.others: dict[str, list[int]] = {}

    def add_other(self, phase: str, requests: int, tokens: int, context_tokens: int) -> None:
        """A pass that is no decode; it is counted among all as well."""
        total = self.others.setdefault(phase, [0, 0, 0, 0])
        for place, value in enumerate((1, requests, tokens, context_tokens)):
            total[place] += value

    def by_phase(self) -> dict[str, list[int]]:
        """Passes, requests, tokens and context tokens of each phase."""
        sums = [sum(column) for column in zip(*self.others.values())] or [0, 0, 0, 0]  # noqa: B905 (3.10: as long)
        decode = [self.passes - sums[0], self.requests - sums[1], self.tokens - sums[2], 0]
        return {**self.others, **({"decode": decode} if decode[0] else {})}


COUNTED = Totals()


def pass_cells(scheduler_output: Any) -> str:
    """The columns of events.PASSES."""
    requests, tokens = len(scheduler_output.num_scheduled_tokens), scheduler_output.total_num_scheduled_tokens
    outputs = getattr(scheduler_output.scheduled_cached_reqs, "num_output_tokens", UNTOLD)
    phase, context = "decode", "0,0"
    if scheduler_output.scheduled_new_reqs or 0 in outputs:  # else context_of would count none, for a call more
        phase, context = other_phase(scheduler_output, requests, tokens)
    COUNTED.passes += 1
    COUNTED.requests += requests
    COUNTED.tokens += tokens
    return f"{phase},{requests},{tokens},{context},{FORWARD.execute_ns},{FORWARD.sample_ns}"


def other_phase(scheduler_output: Any, requests: int, tokens: int) -> tuple[str, str]:
    """Phase of a pass with context requests, and the text of their number and tokens."""
    try:
        context_requests, context_tokens = context_of(scheduler_output)
    except AttributeError:  # vLLM 0.11
        COUNTED.add_other("", requests, tokens, 0)
        return "", ","
    phase = "prefill" if context_requests == requests else "mixed"
    COUNTED.add_other(phase, requests, tokens, context_tokens)
    return phase, f"{context_requests},{context_tokens}"


def write_totals() -> None:
    """Old rows are about to go: the counts by phase stay."""
    now = monotonic_ns()
    for phase, total in COUNTED.by_phase().items():
        TOTALS.add((now, FORWARD.number, phase, *total))


def after_fork() -> None:
    """A forked child starts at zero."""
    runners.after_fork()
    COUNTED.forget()


contribute(events.PASSES, pass_cells)

HOOKS = runners.pass_hooks("forward_passes")
