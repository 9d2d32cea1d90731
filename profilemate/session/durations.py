"""Durations added up in bounded memory: exact sums and extremes, percentiles from buckets less than a percent wide."""

from __future__ import annotations

from collections import Counter
from math import sqrt

BUCKET_BITS = 8


class Durations:
    """Nanoseconds of many events. Percentiles are off by at most 1 / 2**8 of themselves; all else is exact."""

    def __init__(self) -> None:
        """Nothing added yet."""
        self.count = self.total_ns = self._squares = self.max_ns = 0
        self.min_ns: int | None = None
        self._buckets: Counter[int] = Counter()

    def add(self, ns: int) -> None:
        """One event."""
        self.count += 1
        self.total_ns += ns
        self._squares += ns * ns
        self.max_ns = max(self.max_ns, ns)
        self.min_ns = ns if self.min_ns is None else min(self.min_ns, ns)
        shift = max(0, ns.bit_length() - BUCKET_BITS)
        self._buckets[(ns >> shift) << shift] += 1

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
