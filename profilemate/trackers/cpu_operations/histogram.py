"""A histogram of durations of fixed size, whose percentiles are right within 0.8 %.

Each power of two has 64 buckets of equal width; below 128 ns a bucket is one nanosecond. A bucket stands for the middle of
what falls into it, so that a duration is known within half a bucket: 1/128 of it at most.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

SHIFT = 6
"""Of 64 buckets in each power of two."""

LINEAR = 2 << SHIFT
LARGEST_NS = (1 << 40) - 1
"""18 minutes; anything longer counts as this long in the histogram."""

NUM_BUCKETS = (41 - SHIFT) << SHIFT
RELATIVE_ERROR = 1 / LINEAR


def bucket_of(duration_ns: int) -> int:
    """Index of the bucket of a duration from 0 to LARGEST_NS."""
    shift = duration_ns.bit_length() - SHIFT - 1
    return duration_ns if shift <= 0 else (shift << SHIFT) + (duration_ns >> shift)


def middle_of(bucket: int) -> float:
    """Nanoseconds for which a bucket stands."""
    if bucket < LINEAR:
        return float(bucket)
    shift = (bucket >> SHIFT) - 1
    first = (bucket - (shift << SHIFT)) << shift
    return first + ((1 << shift) - 1) / 2


def as_text(counts: list[int], first: int, last: int) -> str:
    """Buckets from `first` to `last` as text: runs without an empty bucket, "first:count count;first:count"."""
    text = []
    follows = False
    for bucket, count in enumerate(counts[first : last + 1], first):
        if count:
            text.append(f" {count}" if follows else f";{bucket}:{count}")
        follows = count > 0
    return "".join(text)[1:]


def from_text(text: str) -> dict[int, int]:
    """Counts by bucket. Raises ValueError for anything else than what `as_text` gives."""
    counts: dict[int, int] = {}
    for run in text.split(";") if text else ():
        first, _, cells = run.partition(":")
        for bucket, count in enumerate(cells.split(" "), int(first)):
            if not 0 <= bucket < NUM_BUCKETS or int(count) < 1:
                raise ValueError(run[:40])
            counts[bucket] = counts.get(bucket, 0) + int(count)
    return counts


def added(histograms: Iterable[Mapping[int, int]]) -> dict[int, int]:
    """Several processes' calls as one."""
    counts: dict[int, int] = {}
    for histogram in histograms:
        for bucket, count in histogram.items():
            counts[bucket] = counts.get(bucket, 0) + count
    return counts


def percentile_ns(counts: Mapping[int, int], share: float) -> float | None:
    """The duration that `share` of the calls do not exceed, between the nearest two; None of no calls.

    As `statistics.quantiles(method="inclusive")` on the durations, within RELATIVE_ERROR.
    """
    place = share * (sum(counts.values()) - 1)
    if place < 0:
        return None
    low, high = _at(counts, int(place)), _at(counts, int(place) + (place > int(place)))
    return low + (high - low) * (place - int(place))


def _at(counts: Mapping[int, int], rank: int) -> float:
    seen = bucket = 0
    for bucket in sorted(counts):
        seen += counts[bucket]
        if seen > rank:
            break
    return middle_of(bucket)
