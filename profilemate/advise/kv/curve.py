"""The miss-ratio curve: tokens that a plain LRU cache of prompt blocks would find, for every number of blocks.

Exact up to MOST_EXACT_USES; of a longer trace a sample of the blocks is followed, as SHARDS does (Waldspurger, Park, Garthwaite
and Ahmad, "Efficient MRC construction with SHARDS", FAST 2015): a block is in the sample or not, with all of its uses; a
distance in the sample stands for one that is 1/rate as long; and where a sample has more or fewer uses than its share the
difference goes to the smallest distance (SHARDS-adj). SHARDS draws each block by itself. Blocks of a prompt are used together,
so that a few popular prompts would be in the sample by chance or not; here every n-th block along a prompt is taken, from a
place that a hash gives, and the same at each branch. The error is measured, by the spread of eight parts of the sample that
share no block.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from profilemate.advise.kv.distances import stack_distances
from profilemate.frames.packages import load

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from profilemate.advise.kv.prompts import BlockTree
    from profilemate.advise.kv.trace import Trace

    Integers = NDArray[np.int64]

MOST_EXACT_USES = 4_000_000
"""Uses of blocks up to which every distance is worked out, in half a minute and 300 MB."""

NUM_PARTS = 8


@dataclass(frozen=True)
class Uses:
    """Uses of blocks in order, those of a request from its last block to its first; all of shape (uses,).

    `starts` is the position at which the request of each use begins, `counts` whether it is a hit where the block is found:
    vLLM computes a prompt's last token always, and looks some requests up not at all.
    """

    blocks: Integers
    starts: Integers
    counts: NDArray[np.bool_]

    def __len__(self) -> int:
        """Number of uses."""
        return len(self.blocks)


@dataclass(frozen=True)
class Sample:
    """Blocks that each use which counts needs so as to be found, ascending, of a share `rate` of the blocks.

    `short` of so many uses is the sample, or has so many too many, below 0.
    """

    needed: NDArray[np.float64]
    rate: float = 1.0
    short: float = 0.0

    def hits(self, blocks: float) -> float:
        """Uses found in a cache of so many blocks."""
        count = int(load("numpy").searchsorted(self.needed, blocks, side="right"))
        return max(0.0, count + (self.short if count else 0.0)) / self.rate


@dataclass(frozen=True)
class Curve:
    """Hit tokens by cache size; `parts` of the sample are for its error, and none where every block was followed."""

    block_size: int
    asked_tokens: int
    sample: Sample
    parts: tuple[Sample, ...] = ()

    @property
    def is_exact(self) -> bool:
        """Whether every block was followed."""
        return self.sample.rate == 1.0

    def hit_tokens(self, blocks: float) -> float:
        """Tokens found in a cache of so many blocks."""
        return self.sample.hits(blocks) * self.block_size

    def hit_rate(self, blocks: float) -> float:
        """Share of the tokens that were looked up."""
        return self.hit_tokens(blocks) / self.asked_tokens if self.asked_tokens else 0.0

    def error(self, blocks: float) -> float:
        """Standard error of the hit rate from the spread of the parts; 0 where it is exact."""
        if not self.parts or not self.asked_tokens:
            return 0.0
        each = [part.hits(blocks) * self.block_size / self.asked_tokens for part in self.parts]
        mean = sum(each) / len(each)
        return float((sum((one - mean) ** 2 for one in each) / (len(each) - 1) / len(each)) ** 0.5)

    def blocks_for(self, share: float) -> int:
        """The fewest blocks that find this share of what an unlimited cache finds."""
        needed = self.sample.needed
        return math.ceil(needed[max(0, math.ceil(share * len(needed)) - 1)]) if len(needed) else 0


def miss_ratio_curve(trace: Trace, most_uses: int = MOST_EXACT_USES) -> Curve:
    """The curve of one engine. A reset of the cache ends it: what comes after is never found by what came before."""
    parts = _parts(trace)
    total = sum(part.uses for part in parts)
    if total <= most_uses:
        uses = [_uses(trace, part) for part in parts]
        return Curve(trace.limits.block_size, trace.asked_tokens, _sample(uses, 1.0))
    every = -(-total // most_uses)
    part_of = sampled_blocks(trace.tree, every)
    uses = [_uses(trace, part, part_of >= 0) for part in parts]
    counting = sum(_counting(trace, part) for part in parts)
    samples = [
        _sample([_only(one, part_of[one.blocks] == number) for one in uses], 1 / every / NUM_PARTS, counting)
        for number in range(NUM_PARTS)
    ]
    return Curve(trace.limits.block_size, trace.asked_tokens, _sample(uses, 1 / every, counting), tuple(samples))


def _sample(uses: Sequence[Uses], rate: float, counting: int | None = None) -> Sample:
    """`counting` uses count in the whole trace; None where these are all."""
    numpy = load("numpy")
    needed = [_needed(one) / rate for one in uses]
    short = 0.0 if counting is None else counting * rate - sum(int(one.counts.sum()) for one in uses)
    return Sample(numpy.sort(numpy.concatenate(needed)) if needed else numpy.empty(0), rate, short)


def _parts(trace: Trace) -> list[Trace]:
    """The trace between resets."""
    if not trace.clock.resets:
        return [trace]
    parts: list[list[int]] = [[] for _ in range(len(trace.clock.resets) + 1)]
    for place, one in enumerate(trace.asked):
        moment = trace.clock.moment(one.queued_ns)
        parts[sum(reset <= moment for reset in trace.clock.resets)].append(place)
    return [replace(trace, asked=tuple(trace.asked[place] for place in part)) for part in parts if part]


def _uses(trace: Trace, part: Trace, wanted: NDArray[np.bool_] | None = None) -> Uses:
    """The uses of a part; only those of wanted blocks where these are given."""
    numpy = load("numpy")
    blocks, starts, counts = [], [], []
    total = 0
    for one in part.asked:
        path = numpy.array(trace.tree.path(one.end)[::-1], dtype=numpy.int64)
        may_hit = (one.prompt_tokens - 1) // trace.limits.block_size if one.is_looked_up else 0
        is_hit = numpy.arange(len(path))[::-1] < may_hit
        if wanted is not None:
            chosen = wanted[path]
            path, is_hit = path[chosen], is_hit[chosen]
        blocks.append(path)
        counts.append(is_hit)
        starts.append(numpy.full(len(path), total))
        total += len(path)
    if not blocks:
        empty = numpy.empty(0, dtype=numpy.int64)
        return Uses(empty, empty, empty.astype(bool))
    return Uses(numpy.concatenate(blocks), numpy.concatenate(starts), numpy.concatenate(counts))


def _counting(trace: Trace, part: Trace) -> int:
    """Uses that would be hits if their blocks were found."""
    size = trace.limits.block_size
    return sum(
        min(trace.tree.depth(one.end), max(0, one.prompt_tokens - 1) // size) for one in part.asked if one.is_looked_up
    )


def _only(uses: Uses, chosen: NDArray[np.bool_]) -> Uses:
    """Some of the uses: the requests begin where the first chosen use of each lies."""
    numpy = load("numpy")
    before = numpy.concatenate(([0], numpy.cumsum(chosen)))
    return Uses(uses.blocks[chosen], before[uses.starts[chosen]], uses.counts[chosen])


def _needed(uses: Uses) -> NDArray[np.float64]:
    """Blocks that each use which counts needs so as to be found; those of first uses are left out."""
    numpy = load("numpy")
    distances = stack_distances(uses.blocks, uses.starts)
    found: NDArray[np.float64] = (distances[uses.counts & (distances >= 0)] + 1).astype(numpy.float64)
    return found


def sampled_blocks(tree: BlockTree, every: int) -> Integers:
    """For each block the part of the sample in which it is, -1 for none: every n-th block along a path.

    The first block of a path, and of every branch but the first one from a block, begins at a place of its own.
    """
    numpy = load("numpy")
    period = every * NUM_PARTS
    places = (_mixed(len(tree.parents)) % numpy.uint64(period)).astype(numpy.int64).tolist()
    goes_on = bytearray(len(tree.parents))
    for block, parent in enumerate(tree.parents):
        if parent >= 0 and not goes_on[parent]:
            goes_on[parent] = 1
            places[block] = (places[parent] + 1) % period
    place = numpy.array(places, dtype=numpy.int64)
    found: Integers = numpy.where(place % every == 0, place // every, -1)
    return found


def _mixed(count: int) -> NDArray[np.uint64]:
    """A mixed number for each block, always the same (the finaliser of splitmix64)."""
    numpy = load("numpy")
    mixed: NDArray[np.uint64] = numpy.arange(1, count + 1, dtype=numpy.uint64) * numpy.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> numpy.uint64(shift))) * numpy.uint64(factor)
    mixed ^= mixed >> numpy.uint64(31)
    return mixed
