"""The cheapest ladder under a budget, exactly: a dynamic programme over the largest size chosen so far.

With candidates s_1 < ... < s_M, `weights[i][j]` is what all batches above s_i and up to s_j cost when s_j serves them
(s_0 = 0), and `prices[j]` what size j takes of the budget:

    best(b, j) = min over i < j of best(b - prices[j], i) + weights[i][j],    best(b, 0) = 0 for b >= 0

The answer for a budget b is best(b, M): the last candidate is always taken. O(budget x M^2) additions, vectorised.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from profilemate.frames.packages import load

if TYPE_CHECKING:
    from collections.abc import Sequence

FORBIDDEN = 2**60
"""Weight of an interval that may not be; sums of two of them still fit 64 bits."""


@dataclass(frozen=True)
class Solutions:
    """Best ladders for every budget up to the largest one: `best` (budgets,) and `parents` (budgets, candidates)."""

    best: Any
    parents: Any
    prices: Sequence[int]

    def cost(self, budget: int) -> float | None:
        """What the best ladder within a budget costs; None where none is within it."""
        value = self.best[budget]
        return None if value >= FORBIDDEN else value.item()

    def chosen(self, budget: int) -> list[int]:
        """Places of its candidates, ascending. The budget allows a ladder."""
        places = []
        place, left = self.parents.shape[1] - 1, budget
        while place >= 0:
            places.append(place)
            before = int(self.parents[left, place])
            left -= self.prices[place]
            place = before
        return places[::-1]


def solve(weights: Any, prices: Sequence[int], forced: Sequence[bool], budget: int) -> Solutions:
    """Solve for every budget from 0 to `budget`.

    `weights` is an array (M + 1, M), of int64 (then all is exact) or float64; only i <= j is read (row i stands for s_i).
    `forced[j]` candidates are in every ladder. `prices` are positive whole numbers.
    """
    numpy = load("numpy")
    count = len(prices)
    allowed = _without_skipping(weights, forced)
    best = numpy.full((budget + 1, count + 1), FORBIDDEN, dtype=weights.dtype)
    best[:, 0] = 0
    parents = numpy.full((budget + 1, count), -1, dtype=numpy.int32)
    by_price: dict[int, list[int]] = {}
    for place, price in enumerate(prices):
        by_price.setdefault(price, []).append(place)
    blocks = {price: (numpy.array(places), allowed[:, places]) for price, places in by_price.items()}
    for spent in range(1, budget + 1):
        for price, (places, block) in blocks.items():
            if price > spent:
                continue
            sums = best[spent - price][:, None] + block
            chosen = sums.argmin(axis=0)
            best[spent, places + 1] = numpy.minimum(sums[chosen, numpy.arange(len(places))], FORBIDDEN)
            parents[spent, places] = chosen - 1
    return Solutions(best[:, count], parents, tuple(prices))


def _without_skipping(weights: Any, forced: Sequence[bool]) -> Any:
    """Weights with FORBIDDEN where i > j, or where a forced candidate lies strictly between s_i and s_j."""
    numpy = load("numpy")
    rows, columns = weights.shape
    row, column = numpy.arange(rows)[:, None], numpy.arange(columns)[None, :]
    before = numpy.concatenate([[0], numpy.cumsum(numpy.asarray(forced, dtype=numpy.int64))])
    skipped = before[:-1][None, :] - before[row]
    return numpy.where((row > column) | (skipped > 0), weights.dtype.type(FORBIDDEN), weights)
