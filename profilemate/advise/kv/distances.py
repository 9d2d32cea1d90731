"""Stack distances: how many blocks a plain LRU cache of prompt blocks needs for each block of a prompt to be found in it.

A prompt is looked up at once and then used from its last block to its first, as vLLM frees them: what comes first in a prompt
is always more recent than what follows it, so that the blocks found in a cache of any size are a prefix, and a larger cache
holds what a smaller one does (Mattson, Gecsei, Slutz and Traiger, "Evaluation techniques for storage hierarchies", IBM
Systems Journal 9(2), 1970).

The distance of a use is the number of different blocks used since the last use of the same block. With prev[i] the position
of that last use, it is the number of uses in between, less those that were used again in between: the j < i with
prev[j] > prev[i], since these have j > prev[i] as well. These are the inversions of `prev`, counted here by merging, in
n log n steps of which numpy makes log n.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from profilemate.frames.packages import load

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Integers = NDArray[np.int64]

NEVER = -1
"""Distance of a first use."""


def stack_distances(blocks: Integers, starts: Integers) -> Integers:
    """Distance of each use: blocks used since its last use and before its request began; NEVER for a first use.

    `blocks` are the uses in order, those of a request from its last block to its first, each at most once; `starts` is for
    each use the position at which its request begins. Both have shape (uses,).
    """
    numpy = load("numpy")
    previous = last_uses(blocks)
    distances: Integers = numpy.full(len(blocks), NEVER, dtype=numpy.int64)
    again = numpy.flatnonzero(previous >= 0)
    if len(again):
        before = previous[again]
        distances[again] = starts[again] - before - 1 - inversions(before)
    return distances


def last_uses(blocks: Integers) -> Integers:
    """Position of the last use of the same block before each use, -1 for a first use."""
    numpy = load("numpy")
    order = numpy.argsort(blocks, kind="stable")
    same = blocks[order][1:] == blocks[order][:-1]
    previous: Integers = numpy.full(len(blocks), -1, dtype=numpy.int64)
    previous[order[1:][same]] = order[:-1][same]
    return previous


def inversions(values: Integers) -> Integers:
    """For each of some different values from 0 on, how many of those before it are larger. Shape (n,)."""
    numpy = load("numpy")
    count = len(values)
    found: Integers = numpy.zeros(count, dtype=numpy.int64)
    span = int(values.max()) + 1 if count else 1
    order = numpy.arange(count)
    width = 1
    while width < count:
        ranks = numpy.arange(count)  # places in `order`, which is sorted within each run of `width`
        pair = ranks // (2 * width)
        is_right = (ranks // width) % 2 == 1
        keys = values[order] + pair * span  # sorted runs stay sorted, and those of a later pair are larger
        left, right = keys[~is_right], keys[is_right]
        smaller = numpy.searchsorted(left, right) - pair[is_right] * width
        found[order[is_right]] += width - smaller  # only a run on the right can be shorter than `width`
        order = order[numpy.argsort(keys, kind="stable")]
        width *= 2
    return found
