"""Counting the passes of a session again as if another ladder had been captured, and how far that would vary."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from profilemate.advise.graphs.batches import BLOCKS
from profilemate.advise.graphs.rules import NONE
from profilemate.frames.packages import load

if TYPE_CHECKING:
    from profilemate.advise.graphs.batches import Batch, Batches
    from profilemate.advise.graphs.costs import CostModel
    from profilemate.advise.graphs.rules import Ladder

REPLICATES = 2000
SEED = 20250601
LOW, HIGH = 2.5, 97.5


@dataclass(frozen=True)
class Count:
    """Sums over passes. Those `within` have no more tokens than a bound, so that a ladder up to it could serve them."""

    passes: int = 0
    tokens: int = 0
    padded: int = 0
    uncovered: int = 0
    passes_within: int = 0
    tokens_within: int = 0
    padded_within: int = 0
    uncovered_within: int = 0

    def __add__(self, other: Count) -> Count:
        """Sums of both."""
        return Count(*(getattr(self, one.name) + getattr(other, one.name) for one in fields(self)))

    @property
    def padding(self) -> int:
        """Tokens that nobody had scheduled."""
        return self.padded - self.tokens

    @property
    def padding_share(self) -> float:
        """Padding among the padded tokens of passes within the bound."""
        return share(self.padded_within - self.tokens_within, self.padded_within)

    @property
    def uncovered_share(self) -> float:
        """Passes without a graph among the passes within the bound."""
        return share(self.uncovered_within, self.passes_within)


def share(part: float, all_of_it: float) -> float:
    """A quotient; 0 of nothing."""
    return part / all_of_it if all_of_it else 0.0


def chosen(batch: Batch, ladder: Ladder) -> tuple[str, int]:
    """Mode and padded tokens under a ladder: by the rules, or as it was where something else decided."""
    return ladder.dispatch(batch.tokens, batch.uniform) if batch.by_rule else (batch.mode, batch.padded)


def is_served(batch: Batch, mixed_mode: str, bound: int) -> bool:
    """Whether the sizes decide which graph a batch gets: the rules do, it is not too large, and its kind has graphs."""
    return batch.by_rule and batch.tokens <= bound and (batch.uniform or mixed_mode != NONE)


def by_block(batches: Batches, bound: int, choose: Callable[[Batch], tuple[str, int]]) -> list[Count]:
    """Sums of each block; `choose` gives a batch's mode and padded tokens."""
    sums = [[0] * len(fields(Count)) for _ in range(BLOCKS)]
    for batch in batches.groups:
        mode, padded = choose(batch)
        cells = (1, batch.tokens, padded, int(mode == NONE))
        within = cells if batch.tokens <= bound else (0, 0, 0, 0)
        row = sums[batch.block]
        for place, cell in enumerate((*cells, *within)):
            row[place] += cell * batch.passes
    return [Count(*row) for row in sums]


def under(batches: Batches, ladder: Ladder, bound: int) -> list[Count]:
    """Sums of each block under a ladder."""
    return by_block(batches, bound, lambda batch: chosen(batch, ladder))


def observed(batches: Batches, bound: int) -> list[Count]:
    """Sums of each block as vLLM ran them."""
    return by_block(batches, bound, lambda batch: (batch.mode, batch.padded))


def total(counts: Sequence[Count]) -> Count:
    """Sums over all blocks."""
    return sum(counts, Count())


def cost_by_block(batches: Batches, ladder: Ladder, bound: int, model: CostModel) -> list[float]:
    """Cost of each block's passes that the sizes decide about: within the bound, and of a kind that has graphs."""
    of = lru_cache(maxsize=None)(model.of)
    sums = [0.0] * BLOCKS
    for batch in batches.groups:
        if is_served(batch, ladder.mixed_mode, bound):
            sums[batch.block] += of(*ladder.dispatch(batch.tokens, batch.uniform)) * batch.passes
    return sums


@dataclass(frozen=True)
class Range:
    """Low and high of a quantity over resampled blocks."""

    low: float
    high: float

    def around(self, *values: float) -> Range:
        """The range widened so that it holds these values."""
        return Range(min(self.low, *values), max(self.high, *values))


def resampled(parts: Sequence[float], wholes: Sequence[float]) -> Range:
    """95 % range of sum(parts) / sum(wholes) over blocks drawn with replacement (moving with time, as traffic does)."""
    numpy = load("numpy")
    draws = numpy.random.default_rng(SEED).integers(0, len(parts), (REPLICATES, len(parts)))
    top, bottom = _sums(parts, draws), _sums(wholes, draws)
    quotients = numpy.divide(top, bottom, out=numpy.zeros_like(top), where=bottom != 0)
    return Range(*(float(value) for value in numpy.percentile(quotients, [LOW, HIGH])))


def _sums(values: Sequence[float], draws: Any) -> Any:
    numpy = load("numpy")
    return numpy.asarray(values, dtype=float)[draws].sum(axis=1)
