"""The ratio of two rates measured in turn, with its 95 % confidence interval."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

T_975 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110,
    2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
"""Student's t at 97.5 % for 1 to 30 degrees of freedom; beyond, 2.042 is a little too wide."""


class Ratio(NamedTuple):
    """Geometric mean of the pairs' ratios, and where the true one lies with 95 % confidence. One pair has no interval."""

    mean: float
    low: float
    high: float
    pairs: int


def of_pairs(changed: Sequence[float], base: Sequence[float]) -> Ratio:
    """How many times the base rate the changed one is; both positive, pair by pair."""
    logs = [math.log(ours / theirs) for ours, theirs in zip(changed, base, strict=True)]
    mean = statistics.fmean(logs)
    if len(logs) < 2:
        return Ratio(math.exp(mean), 0.0, math.inf, len(logs))
    quantile = T_975[min(len(logs) - 1, len(T_975)) - 1]
    half = quantile * statistics.stdev(logs) / math.sqrt(len(logs))
    return Ratio(math.exp(mean), math.exp(mean - half), math.exp(mean + half), len(logs))
