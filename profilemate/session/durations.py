"""Durations added up in bounded memory: exact sums and extremes, percentiles from buckets less than a percent wide."""

from __future__ import annotations

from collections import Counter
from math import sqrt
from operator import mul

BUCKET_BITS = 8
WAITING = 4096
"""So many events are taken in at a time, which is several times as fast as one by one."""


class Durations:
    """Nanoseconds of many events. Percentiles are off by at most 1 / 2**8 of themselves; all else is exact."""

    def __init__(self) -> None:
        """Nothing added yet."""
        self._count = self._total_ns = self._squares = self._max_ns = 0
        self._min_ns: int | None = None
        self._buckets: Counter[int] = Counter()
        self._waiting: list[int] = []

    def add(self, ns: int) -> None:
        """One event."""
        self._waiting.append(ns)
        if len(self._waiting) >= WAITING:
            self._take_in()

    def _take_in(self) -> None:
        waiting = self._waiting
        if not waiting:
            return
        self._count += len(waiting)
        self._total_ns += sum(waiting)
        self._squares += sum(map(mul, waiting, waiting))
        self._max_ns = max(self._max_ns, *waiting)
        least = min(waiting)
        self._min_ns = least if self._min_ns is None else min(self._min_ns, least)
        for ns, count in Counter(waiting).items():
            shift = max(0, ns.bit_length() - BUCKET_BITS)
            self._buckets[(ns >> shift) << shift] += count
        waiting.clear()

    @property
    def count(self) -> int:
        """How many events."""
        self._take_in()
        return self._count

    @property
    def total_ns(self) -> int:
        """Their sum."""
        self._take_in()
        return self._total_ns

    @property
    def max_ns(self) -> int:
        """The longest one, 0 where there was none."""
        self._take_in()
        return self._max_ns

    @property
    def min_ns(self) -> int | None:
        """The shortest one, None where there was none."""
        self._take_in()
        return self._min_ns

    @property
    def mean_ns(self) -> float | None:
        """None where there was none."""
        return self.total_ns / self.count if self.count else None

    @property
    def std_ns(self) -> float | None:
        """Standard deviation of the events themselves (divided by their count)."""
        if not self.count:
            return None
        return sqrt(max(0, self.count * self._squares - self.total_ns**2)) / self.count

    def percentile_ns(self, percent: int) -> int | None:
        """The duration that so many percent of the events do not exceed (nearest rank)."""
        rank = -(-percent * self.count // 100)
        if rank == self.count:
            return self.max_ns if rank else None
        for low, count in sorted(self._buckets.items()):
            rank -= count
            if rank <= 0:
                width = 1 << max(0, low.bit_length() - BUCKET_BITS)
                return min(max(low + width // 2, self.min_ns or 0), self.max_ns)
        return None
