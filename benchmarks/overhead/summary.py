"""What is made of a figure's samples: spread of both sides, and the effect with its confidence interval.

The interval is a percentile bootstrap over rounds, so that a round's with and without stay together; where rounds come in
groups, over groups and the rounds within each (a two-stage cluster bootstrap: Davison and Hinkley, Bootstrap Methods and
their Application, 1997, section 3.8).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from overhead.samples import Figure

Values = NDArray[np.float64]
RESAMPLES = 4000
CONFIDENCE_PERCENT = 95
SEED = 4
"""The same samples give the same interval."""


class Effect(NamedTuple):
    """How two sides become one number. `of` works on the last axis, so that it does all resamples at once."""

    of: Callable[[Values, Values], Any]
    unit: str = ""
    """Empty: the unit of the samples."""
    words: str = ""


EFFECTS = {
    "difference": Effect(lambda with_, without: np.median(with_ - without, axis=-1), words="median paired difference"),
    "percent": Effect(
        lambda with_, without: 100 * np.median(with_ / without - 1, axis=-1), "%", "median paired difference in percent"
    ),
    "times": Effect(
        lambda first, second: np.median(first, axis=-1) / np.median(second, axis=-1), "x", "ratio of the medians"
    ),
    "ratio": Effect(lambda with_, without: np.median(with_ / without, axis=-1), "x", "median paired ratio"),
    "value": Effect(lambda with_, without: np.median(with_, axis=-1), words="median"),
}


class Side(NamedTuple):
    """Spread of one side's samples."""

    min: float
    median: float
    quartile_low: float
    quartile_high: float
    max: float


class Summary(NamedTuple):
    """A figure in numbers. `bare` is None and the minima's effect too where there is nothing to compare with."""

    estimate: float
    low: float
    high: float
    of_minima: float | None
    profiled: Side
    bare: Side | None
    samples: int


def side(values: list[float]) -> Side:
    """Five numbers."""
    return Side(*(float(value) for value in np.percentile(values, [0, 50, 25, 75, 100])))


def resamples(count: int) -> NDArray[np.intp]:
    """Indices of rounds, drawn with replacement."""
    return np.random.default_rng(SEED).integers(count, size=(RESAMPLES, count))


def resamples_of_groups(groups: list[int]) -> Iterator[NDArray[np.intp]]:
    """Indices of rounds: as many groups as there are, drawn with replacement, and of each as many of its rounds."""
    random = np.random.default_rng(SEED)
    members = [np.flatnonzero(np.array(groups) == group) for group in sorted(set(groups))]
    for _ in range(RESAMPLES):
        drawn = random.integers(len(members), size=len(members))
        yield np.concatenate([random.choice(members[place], size=len(members[place])) for place in drawn])


def of_minima(figure: Figure) -> float | None:
    """The effect of the two best rounds: what a machine without neighbours would give. Not for differences of noise."""
    if not figure.bare or figure.effect in ("times", "ratio"):
        return None
    return float(EFFECTS[figure.effect].of(np.array([min(figure.profiled)]), np.array([min(figure.bare)])))


def summarise(figure: Figure) -> Summary:
    """Everything about a figure that is kept. Raises ValueError for no samples or sides of different length."""
    profiled = np.array(figure.profiled, dtype=float)
    bare = np.array(figure.bare or figure.profiled, dtype=float)
    if not profiled.size or profiled.size != bare.size:
        raise ValueError(f"{figure.name}: {profiled.size} samples beside {bare.size}")
    effect = EFFECTS[figure.effect]
    if figure.groups:
        effects = [effect.of(profiled[drawn], bare[drawn]) for drawn in resamples_of_groups(figure.groups)]
    else:
        drawn = resamples(profiled.size)
        effects = effect.of(profiled[drawn], bare[drawn])
    tail = (100 - CONFIDENCE_PERCENT) / 2
    low, high = np.percentile(effects, [tail, 100 - tail])
    return Summary(
        float(effect.of(profiled, bare)),
        float(low),
        float(high),
        of_minima(figure),
        side(figure.profiled),
        side(figure.bare) if figure.bare else None,
        int(profiled.size),
    )
