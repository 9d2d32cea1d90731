"""Whether a number of two sessions differs beyond the noise.

The difference over its standard error is held against Student's distribution (Welch's degrees of freedom), on a logarithmic
scale where the number cannot be zero. All p-values of a comparison are adjusted together (Benjamini and Hochberg, J. Royal
Statistical Society B 57 (1995)), and a change must also be as large as the least one that is worth a word.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from profilemate.compare.noise import ROUNDING, Estimate
from profilemate.compare.number import LESS, NEUTRAL, SHARE, Fixed, Number
from profilemate.frames.packages import load

FALSE_ALARMS = 0.05
"""How often a comparison of two runs of the same may find a difference; and the part of all found ones that may be false."""

LEAST_CHANGE = 0.05
LEAST_POINTS = 0.01
"""Least change worth a word: of the baseline's value, or of a share as such."""

CERTAIN = 4.0
"""A value at least so many errors from zero can be put on a logarithmic scale."""

BETTER, WORSE, DIFFERS, SMALL, SAME, UNSURE = "better", "worse", "differs", "small", "same", "cannot tell"
SINGLE = "one value"
"""Beyond the noise for good, for bad, or neither; beyond the noise but smaller than the least change; within the noise; the
data is too thin; or a session has one value of it, so that nothing tells its noise."""

FOUND = (WORSE, BETTER, DIFFERS)
BEYOND = frozenset(FOUND)


@dataclass(frozen=True)
class Change:
    """A number of a session against the baseline.

    `relative` is the change as a part of the baseline's value, `points` the difference itself; `low` and `high` bound at 95 %
    the one that `scale` names, for this number alone. `p` is for this number alone, `adjusted` among all of the comparison.
    """

    number: Number
    before: Estimate
    after: Estimate
    verdict: str
    relative: float | None = None
    points: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    adjusted: float | None = None
    why: str = ""

    @property
    def in_points(self) -> bool:
        """Whether `low` and `high` are of `points`; otherwise of `relative`."""
        return self.number.scale == SHARE or self.before.value == 0

    @property
    def beyond_noise(self) -> bool:
        """Whether the two differ, however little."""
        return self.adjusted is not None and self.adjusted <= FALSE_ALARMS


def compared(number: Number, before: Estimate, after: Estimate) -> Change:
    """One number of two sessions, not yet judged among the others."""
    if before.value is None or after.value is None:
        why = "" if before.value is after.value else "recorded in one of the two only"
        return Change(number, before, after, UNSURE, why=why or before.thin)
    points = after.value - before.value
    if abs(points) <= ROUNDING * abs(before.value):
        points = 0.0
    relative = points / before.value if before.value else None
    change = Change(number, before, after, UNSURE, relative, points)
    thin = before.thin or after.thin
    if thin:
        verdict = SINGLE if isinstance(number.measure, Fixed) else UNSURE
        return replace(change, verdict=verdict, why=thin)
    return _tested(change)


def _tested(change: Change) -> Change:
    """With p and the interval."""
    stats = load("scipy.stats")
    before, after = change.before, change.after
    assert before.value is not None and after.value is not None and change.points is not None
    errors = [before.error or 0.0, after.error or 0.0]
    on_log = not change.in_points and _is_certain(before) and _is_certain(after)
    if on_log:
        errors = [errors[0] / before.value, errors[1] / after.value]
    difference = math.log1p(change.points / before.value) if on_log else change.points
    error = math.hypot(*errors)
    if error == 0:
        return replace(change, p=0.0 if difference else 1.0, low=_shown(change, on_log, difference),
                       high=_shown(change, on_log, difference))  # fmt: skip
    parts = [one**4 / estimate.freedom for one, estimate in zip(errors, (before, after), strict=True) if one]
    freedom = error**4 / sum(parts)
    reach = float(stats.t.isf(0.025, freedom)) * error
    return replace(
        change,
        p=float(2 * stats.t.sf(abs(difference) / error, freedom)),
        low=_shown(change, on_log, difference - reach),
        high=_shown(change, on_log, difference + reach),
    )


def _is_certain(estimate: Estimate) -> bool:
    return estimate.value is not None and estimate.value > CERTAIN * (estimate.error or 0.0)


def _shown(change: Change, on_log: bool, difference: float) -> float:
    if on_log:
        return math.expm1(difference)
    return difference if change.in_points else max(-1.0, difference / abs(change.before.value or 1.0))


def judged(changes: Sequence[Change], least: float = LEAST_CHANGE) -> list[Change]:
    """With adjusted p-values and verdicts. What differs by nothing at all is no test and costs the others nothing."""
    stats = load("scipy.stats")
    tested = [n for n, change in enumerate(changes) if change.p is not None and _is_random(change)]
    adjusted = stats.false_discovery_control([changes[n].p for n in tested]) if tested else []
    found = list(changes)
    for n, q in zip(tested, adjusted, strict=True):
        found[n] = replace(changes[n], adjusted=float(q))
    return [_with_verdict(change, least) for change in found]


def _is_random(change: Change) -> bool:
    return bool(change.points or change.before.error or change.after.error)


def _with_verdict(change: Change, least: float) -> Change:
    if change.p is None:
        return change
    if not change.beyond_noise:
        return replace(change, verdict=SAME)
    if not is_large(change, least):
        return replace(change, verdict=SMALL)
    if change.number.better == NEUTRAL:
        return replace(change, verdict=DIFFERS)
    is_less = (change.points or 0) < 0
    return replace(change, verdict=BETTER if is_less == (change.number.better == LESS) else WORSE)


def is_large(change: Change, least: float) -> bool:
    """Whether it is worth a word."""
    if change.number.scale == SHARE:
        return abs(change.points or 0) >= LEAST_POINTS
    return change.relative is None or abs(change.relative) >= least
