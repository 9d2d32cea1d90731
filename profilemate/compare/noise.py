"""How sure a number of one session is: its standard error from time slices that depend on each other.

A served request is slow when its neighbours are, so rows are no independent samples. The session's steady part is cut into
equal slices; the long-run variance of a slice is estimated from the lowest cosine weights of the series of slices (equal-
weighted cosine estimator), and the error has Student's distribution with as many degrees of freedom as there are cosines:
Lazarus, Lewis, Stock, Watson, "HAR Inference: Recommendations for Practice", J. Business & Economic Statistics 36 (2018). Where
a first-order autoregression (Andrews, Econometrica 59 (1991)) gives a larger variance, that is taken.
A quantile's error is that of the share of rows below it, carried back through the rows (Woodruff, J. American Statistical
Association 47 (1952)), so that no density is estimated and a heavy tail does no harm.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from profilemate.frames.packages import load

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[np.float64]]

COSINES = 0.4
"""Of these times slices to the power 2/3: the rule of the paper named above."""

MOST_ALIKE = 0.97
"""Correlation of neighbouring slices that is not exceeded."""

WOODRUFF_ERRORS = 2.0
"""A quantile's interval is looked up so many errors of the share away and scaled back."""

ROUNDING = 1e-9
"""Part of a value that is no difference but how numbers are kept."""

NOTHING = "nothing of it was recorded"

FEWEST_EVENTS = 30
"""Rows that a number needs."""

FEWEST_BEYOND = 10
"""Rows that must lie beyond a quantile on its thin side: 200 for a p95, 1,000 for a p99."""

FEWEST_BUSY_SLICES = 8
"""Slices that must have what the number is about."""

FEWEST_WORTH = 12
"""Independent slices that all slices must be worth. Below, neighbours hang together over so large a part of the session that
their long-run variance cannot be told."""


@dataclass(frozen=True)
class Estimate:
    """A number of one session's steady part.

    `error` is its standard error in the number's own unit, `freedom` the degrees of freedom of that error, `events` how many
    rows it is made of, `worth` how many independent slices the slices are worth. `thin` says why nothing can be told.
    """

    value: float | None
    error: float | None = None
    freedom: float = 0.0
    events: int = 0
    slices: int = 0
    worth: float = 0.0
    thin: str = ""


def cosines_of(slices: int) -> int:
    """How many cosine weights a series of so many slices gives."""
    return max(1, int(COSINES * slices ** (2 / 3)))


def long_run_variance(series: Array) -> float:
    """Of a series of slices with mean zero, such that variance of their mean = this / slices.

    The larger of two estimates: the cosines follow any kind of dependence, but from six of them the variance comes out far
    too small now and then; a first-order autoregression is steadier and right for the commonest kind.
    """
    return max(_by_cosines(series), _by_autoregression(series))


def _by_autoregression(series: Array) -> float:
    """Variance of a first-order autoregression at frequency zero; the correlation is made larger by its known bias."""
    slices, squares = len(series), float(series @ series)
    if squares <= 0:
        return 0.0
    along = float(series[1:] @ series[:-1]) / squares
    along = min(max(along + (1 + 3 * along) / slices, 0.0), MOST_ALIKE)
    return squares / slices * (1 + along) / (1 - along)


def _by_cosines(series: Array) -> float:
    numpy = load("numpy")
    slices = len(series)
    order = numpy.arange(1, cosines_of(slices) + 1)[:, None]
    place = (numpy.arange(slices) + 0.5) / slices
    weights = numpy.sqrt(2 / slices) * numpy.cos(numpy.pi * order * place) @ series
    return float(numpy.mean(weights**2))


def ratio(numerator: Array, denominator: Array, events: int) -> Estimate:
    """Sum of the one over sum of the other, both by slice: a mean, a share, a rate."""
    numpy = load("numpy")
    whole, slices = float(denominator.sum()), len(numerator)
    if whole <= 0:
        return Estimate(None, thin=NOTHING)
    value = float(numerator.sum()) / whole
    rest = numerator - value * denominator
    rest[abs(rest) <= ROUNDING * abs(numerator).max()] = 0
    thin = _thin(denominator, events) or _seldom(numerator) or _seldom(denominator - numerator)
    if thin:
        return Estimate(value, events=events, slices=slices, thin=thin)
    error = float(numpy.sqrt(long_run_variance(rest) * slices) / whole)
    return _told(value, error, events, rest)


def quantile(values: Array, weights: Array, slice_of: Any, slices: int, level: float) -> Estimate:
    """A quantile of rows that lie in slices: `values` ascending, `weights` and `slice_of` in their order."""
    numpy = load("numpy")
    events = len(values)
    if not events:
        return Estimate(None, thin=NOTHING)
    share = numpy.cumsum(weights)
    whole = float(share[-1])
    value = _at(values, share, whole, level)
    beyond = events * min(level, 1 - level)
    per_slice = numpy.bincount(slice_of, weights, slices)
    thin = _thin(per_slice, events)
    if not thin and beyond < FEWEST_BEYOND - 1e-9:
        thin = f"{events} rows, and {FEWEST_BEYOND / min(level, 1 - level):.0f} are needed"
    if thin:
        return Estimate(value, events=events, slices=slices, thin=thin)
    below = numpy.bincount(slice_of, weights * (values <= value), slices)
    rest = below - (below.sum() / whole) * per_slice
    of_share = float(numpy.sqrt(long_run_variance(rest) * slices) / whole)
    low = _at(values, share, whole, level - WOODRUFF_ERRORS * of_share)
    high = _at(values, share, whole, level + WOODRUFF_ERRORS * of_share)
    error = (high - low) / (2 * WOODRUFF_ERRORS)
    return _told(value, error, events, rest)


def _told(value: float, error: float, events: int, rest: Array) -> Estimate:
    worth = _worth(rest)
    thin = f"neighbouring time slices hang together: worth {worth:.0f} independent ones" if worth < FEWEST_WORTH else ""
    return Estimate(value, error, cosines_of(len(rest)), events, len(rest), worth, thin)


def _at(values: Array, share: Array, whole: float, level: float) -> float:
    """The smallest value with at least this share of the weight at or below it."""
    place = int(load("numpy").searchsorted(share, level * whole - 1e-9 * whole))
    return float(values[min(max(place, 0), len(values) - 1)])


def _thin(per_slice: Array, events: int) -> str:
    if events < FEWEST_EVENTS:
        return f"{events} rows, and {FEWEST_EVENTS} are needed"
    return "" if int((per_slice > 0).sum()) >= FEWEST_BUSY_SLICES else _seldom(per_slice)


def _seldom(per_slice: Array) -> str:
    """What never happens is known well; what happens in a few slices only is not."""
    busy = int((abs(per_slice) > 0).sum())
    return f"it happened in {busy} of {len(per_slice)} time slices only" if 0 < busy < FEWEST_BUSY_SLICES else ""


def _worth(rest: Array) -> float:
    """Independent slices that would tell as much."""
    plain, long_run = float((rest**2).mean()), long_run_variance(rest)
    return len(rest) * min(1.0, plain / long_run) if long_run > 0 else float(len(rest))
