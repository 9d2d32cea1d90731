"""Percentiles of a quantity over any number of passes in bounded memory."""

from __future__ import annotations

import math
from collections import Counter

STEP = math.log(1.01)


class Spread:
    """Counts values by steps of 1 %, so that a percentile is right to half a percent of itself. Values are above zero."""

    def __init__(self) -> None:
        """No value yet."""
        self._counts: Counter[int] = Counter()
        self.count = 0

    def add(self, value: float) -> None:
        """Take one value in."""
        if value > 0:
            self._counts[round(math.log(value) / STEP)] += 1
            self.count += 1

    def percentile(self, percent: float) -> float | None:
        """The smallest value that so many percent do not exceed; None without values."""
        wanted, seen = self.count * percent / 100, 0
        for step, count in sorted(self._counts.items()):
            seen += count
            if seen >= wanted:
                return math.exp(step * STEP)
        return None
