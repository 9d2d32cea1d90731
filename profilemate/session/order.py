"""Rows in order of time where a process wrote them nearly so: a call's row may hold when it began and come when it ended."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

MOST_LATE = 4096
"""So many rows later than its time says a row may come, and still be put in order."""

T = TypeVar("T")


def nearly_sorted(rows: Iterable[T], time_of: Callable[[T], int]) -> Iterator[T]:
    """Sort in bounded memory; rows of one time stay as they came."""
    waiting: list[tuple[int, int, T]] = []
    for number, row in enumerate(rows):
        entry = (time_of(row), number, row)
        if len(waiting) < MOST_LATE:
            heapq.heappush(waiting, entry)
        else:
            yield heapq.heappushpop(waiting, entry)[2]
    for _, _, row in sorted(waiting, key=lambda entry: entry[:2]):
        yield row
