"""How far the longest request seen bounds those to come, whatever the distribution of lengths is."""

from __future__ import annotations

import math

LONGER_SHARE, CONFIDENCE = 0.01, 0.95
REQUESTS_NEEDED = math.ceil(math.log(1 - CONFIDENCE) / math.log(1 - LONGER_SHARE))
"""With so many requests (299) and none longer, at most 1 % of all are longer than the longest seen, at 95 %: the rule of
three (Hanley and Lippman-Hand, JAMA 249, 1983) without its approximation, (1 - share) ** requests = 1 - confidence."""

STEPS_PER_OCTAVE = 4


def most_longer(seen: int, more: int, confidence: float = CONFIDENCE) -> int:
    """Of so many more requests, at most this many are longer than the longest of those seen, at the given confidence.

    Distribution-free, order not mattering: the chance of at least k is C(seen + more - k, seen) / C(seen + more, seen)
    (Wilks 1942). Equal lengths only lower it.
    """
    chance = 1.0
    for k in range(more):
        chance *= (more - k) / (seen + more - k)
        if chance <= 1 - confidence:
            return k
    return more


def round_up(tokens: float) -> int:
    """The smallest number of the form 2**n * {1, 1.25, 1.5, 1.75} that is no smaller, 64 at least."""
    octave = max(64, 1 << math.floor(math.log2(max(tokens, 64))))
    quarter = octave // STEPS_PER_OCTAVE
    return max(64, quarter * math.ceil(tokens / quarter))
