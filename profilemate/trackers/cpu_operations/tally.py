"""Durations of one operation in this process: noted by the hooks, and folded into sums and a histogram when there is time."""

from __future__ import annotations

import sys
from collections.abc import Callable
from time import monotonic_ns
from typing import Any

from profilemate.probe.phase import STACK
from profilemate.probe.process import THIS
from profilemate.trackers.cpu_operations import events
from profilemate.trackers.cpu_operations.histogram import LARGEST_NS, NUM_BUCKETS, SHIFT, as_text, bucket_of
from profilemate.trackers.cpu_operations.operations import OPERATIONS

ROWS = THIS.writer.stream(events.ROWS)
TOTALS = THIS.writer.stream(events.TOTALS)

FOLD_AT = 4096
"""So many durations wait at most: folding many at a time is cheaper than one beside a model."""

SHIFTED = SHIFT + 1
Amount = Callable[..., Any]


class Tally:
    """One operation. Calls come from one thread at a time, and folding may come from another one."""

    __slots__ = (
        "buckets",
        "calls",
        "due",
        "durations",
        "max_ns",
        "min_ns",
        "name",
        "next_row",
        "squares",
        "told",
        "total_ns",
    )

    def __init__(self, name: str) -> None:
        """No call yet."""
        self.name = name
        self.durations: list[int] = []
        self.forget()

    def forget(self) -> None:
        """Start anew, as in a forked child; the list stays the one that the hooks append to."""
        self.durations.clear()
        self.calls = self.total_ns = self.squares = self.max_ns = self.told = 0
        self.min_ns = LARGEST_NS
        self.buckets = [0] * NUM_BUCKETS
        self.next_row = THIS.settings.cpu_operation_rows_every or sys.maxsize
        self.due = min(self.next_row, FOLD_AT)

    def note(self, began_ns: int, duration_ns: int, amount: Any = None) -> None:
        """Count one call."""
        self.durations.append(duration_ns)
        if len(self.durations) >= self.due:
            self.attend(began_ns, duration_ns, amount)

    def attend(self, began_ns: int, duration_ns: int, amount: Any) -> None:
        """A row is due for this call, or so many wait that they are folded now."""
        number = self.calls + len(self.durations)
        if number >= self.next_row:
            ROWS.add((began_ns, self.name, duration_ns, number, amount))
            self.next_row += THIS.settings.cpu_operation_rows_every
        if len(self.durations) >= FOLD_AT:
            self.fold()
        self.due = min(self.next_row - self.calls, FOLD_AT)

    def fold(self) -> None:
        """Add up what waits. An append of another thread meanwhile waits on."""
        durations = self.durations[:]
        if not durations:
            return
        del self.durations[: len(durations)]
        longest, squares, buckets = max(durations), 0, self.buckets
        for duration in durations if longest <= LARGEST_NS else [min(one, LARGEST_NS) for one in durations]:
            squares += duration * duration
            shift = duration.bit_length() - SHIFTED  # as bucket_of, without a call
            buckets[duration if shift <= 0 else (shift << SHIFT) + (duration >> shift)] += 1
        self.squares += squares
        self.calls += len(durations)
        self.total_ns += sum(durations)
        self.min_ns = min(self.min_ns, min(durations))
        self.max_ns = max(self.max_ns, longest)
        self.due = min(self.next_row - self.calls, FOLD_AT)

    def row(self, now_ns: int) -> str:
        """A row of TOTALS."""
        spread = as_text(self.buckets, bucket_of(self.min_ns), bucket_of(min(self.max_ns, LARGEST_NS)))
        return (
            f"{now_ns},{self.name},{self.calls},{self.total_ns},{self.squares // 1_000_000},{self.min_ns},{self.max_ns},"
            f"{spread}\n"
        )


TALLIES = {operation.name: Tally(operation.name) for operation in OPERATIONS}


def begins(*values: Any) -> int:
    """When a call begins; 0 in a run that vLLM makes for itself, which is not counted."""
    return 0 if STACK else monotonic_ns()


def ends_of(name: str, amount: Amount | None = None) -> Callable[..., None]:
    """The handler for the end of an operation. `amount(result, *arguments)` is asked only where a row is due."""
    tally = TALLIES[name]
    durations = tally.durations

    def ends(began_ns: int, result: Any, *values: Any) -> None:
        if began_ns:
            duration = monotonic_ns() - began_ns
            durations.append(duration)
            if len(durations) >= tally.due:
                tally.attend(began_ns, duration, amount and amount(result, *values))

    return ends


def write_totals() -> None:
    """Queue a row for every operation that was called since its last one."""
    now = monotonic_ns()
    for tally in TALLIES.values():
        tally.fold()
        if tally.calls > tally.told:
            tally.told = tally.calls
            TOTALS.add(tally.row(now))
