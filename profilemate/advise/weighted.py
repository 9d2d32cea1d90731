"""Percentiles by weight, and how far a statistic of steps may be off, blocks of neighbouring steps being alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

RESAMPLES = 999
SEED = 20251124
CONFIDENCE = 0.95


def quantiles(values: Sequence[float] | Floats, shares: Sequence[float], weights: Floats | None = None) -> list[float]:
    """For each share the smallest value at or below which that share of the weight lies (nearest rank).

    Weights are one each by default, or where they add up to nothing. No value gives no quantile: an empty list.
    """
    import numpy

    data = numpy.asarray(values, dtype=float)
    if not data.size:
        return []
    heavy = numpy.ones(data.size) if weights is None else numpy.asarray(weights, dtype=float)
    if heavy.sum() <= 0:
        heavy = numpy.ones(data.size)
    order = numpy.argsort(data, kind="stable")
    reached = numpy.cumsum(heavy[order])
    places = numpy.searchsorted(reached, numpy.asarray(shares) * reached[-1] * (1 - 1e-12))
    return [float(data[order[min(int(place), data.size - 1)]]) for place in places]


def mean(values: Floats, weights: Floats) -> float | None:
    """The mean by weight; None where there is no weight."""
    total = float(weights.sum())
    return float((values * weights).sum() / total) if total > 0 else None


def cluster_interval(
    clusters: int, statistic: Callable[[Floats], Floats], confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """Percentile interval of a statistic, its clusters drawn with replacement (Efron and Tibshirani 1993, 8.5 and 13.3).

    `statistic` gets counts of how often each cluster was drawn, of shape [resamples, clusters], and gives one value for
    each resample; what is no number is left out. Clusters are stretches of neighbouring steps, so that what neighbours
    have in common widens the interval as it should. The draws are the same each time.
    """
    import numpy

    random = numpy.random.default_rng(SEED)
    counts = random.multinomial(clusters, numpy.full(clusters, 1 / clusters), size=RESAMPLES).astype(float)
    with numpy.errstate(divide="ignore", invalid="ignore"):
        drawn = numpy.asarray(statistic(counts), dtype=float)
    drawn = drawn[numpy.isfinite(drawn)]
    if not drawn.size:
        return float("nan"), float("nan")
    tail = (1 - confidence) / 2
    low, high = numpy.quantile(drawn, [tail, 1 - tail])
    return float(low), float(high)
