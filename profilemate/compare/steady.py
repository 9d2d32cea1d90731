"""The part of a session that can be compared: after the warm-up, before the last requests drain, without long idle times.

The warm-up ends where leaving it out makes the rest's mean surest (MSER-5: White, "An effective truncation heuristic for bias
reduction in simulation output", Simulation 69 (1997)), at a quarter of the stretch at most.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from profilemate.frames.packages import load

if TYPE_CHECKING:
    import polars as pl

SLICES = 64
"""Into so many slices the steady part is cut: 6 cosines (`noise.py`)."""

LONGEST_WARM_UP = 0.25
MSER_SLICES, MSER_BATCH = 200, 5
FEWEST_STEPS = 200
IDLE_SECONDS, IDLE_SHARE = 30.0, 0.1
"""A gap without steps that is longer than both, the latter of the whole time, ends a stretch."""

BATCH_ARRIVALS = 0.5
"""Where all requests came within this part of the time, they were queued beforehand, and the drain is part of the load."""


@dataclass(frozen=True)
class Window:
    """From `begin` to `end`, seconds since the session began. `says` tells why it is not the whole session."""

    begin: float
    end: float
    says: str = ""

    @property
    def seconds(self) -> float:
        """How long."""
        return self.end - self.begin


def whole_window(frames: Mapping[str, pl.DataFrame]) -> Window | None:
    """From the first request or step to the last."""
    times = [frames["requests"]["arrival"], frames["requests"]["end"], frames["steps"]["t"], frames["passes"]["t"]]
    known = [time.drop_nulls() for time in times if time.drop_nulls().len()]
    if not known:
        return None
    return Window(min(float(time.min()) for time in known), max(float(time.max()) for time in known))  # type: ignore[arg-type]


def steady_window(frames: Mapping[str, pl.DataFrame]) -> Window | None:
    """The steady part; None where there are too few steps to find one."""
    numpy = load("numpy")
    steps = numpy.sort(frames["steps"].filter("is_busy")["t"].drop_nulls().to_numpy())
    if len(steps) < FEWEST_STEPS:
        return None
    begin, end, said = _longest_stretch(steps)
    arrivals = numpy.sort(frames["requests"]["arrival"].drop_nulls().to_numpy())
    arrivals = arrivals[(arrivals >= begin - 1) & (arrivals <= end)]
    if len(arrivals) and arrivals[-1] - begin <= BATCH_ARRIVALS * (end - begin):
        begin = min(begin, float(arrivals[0]))
        return Window(begin, end, "; ".join([*said, "all requests were there at the beginning"]))
    if len(arrivals):
        end = float(arrivals[-1])
    warm = _warm_up(frames["steps"], begin, end)
    if warm > begin:
        said.append(f"the first {warm - begin:.1f} s are taken for its warm-up")
    return Window(warm, end, "; ".join(said))


def _longest_stretch(steps: Any) -> tuple[float, float, list[str]]:
    """Begin and end of the stretch with most steps."""
    numpy = load("numpy")
    longest_gap = max(IDLE_SECONDS, IDLE_SHARE * (steps[-1] - steps[0]))
    cuts = numpy.flatnonzero(numpy.diff(steps) > longest_gap) + 1
    stretches = numpy.split(steps, cuts)
    best = max(stretches, key=len)
    others = sum(map(len, stretches)) - len(best)
    said = [f"{others} steps before or after long idle times are left out"] if others else []
    return float(best[0]), float(best[-1]), said


def _warm_up(steps: pl.DataFrame, begin: float, end: float) -> float:
    """When the warm-up is over: the latest by the step's time and by the running requests."""
    polars, numpy = load("polars"), load("numpy")
    rows = steps.filter(polars.col("is_busy") & polars.col("t").is_between(begin, end))
    if not rows.height or end <= begin:
        return begin
    place = numpy.minimum(((rows["t"].to_numpy() - begin) / (end - begin) * MSER_SLICES).astype(int), MSER_SLICES - 1)
    count = numpy.bincount(place, minlength=MSER_SLICES)
    cuts = [0]
    for column in ("wall", "running"):
        sums = numpy.bincount(place, rows[column].fill_null(0).to_numpy().astype(float), MSER_SLICES)
        cuts.append(mser(sums[count > 0] / count[count > 0]))
    return begin + max(cuts) / MSER_SLICES * (end - begin)


def mser(series: Any) -> int:
    """How many values at the beginning to leave out, a multiple of MSER_BATCH."""
    numpy = load("numpy")
    batches = len(series) // MSER_BATCH
    if batches < 1 / LONGEST_WARM_UP:
        return 0
    means = series[: batches * MSER_BATCH].reshape(batches, MSER_BATCH).mean(axis=1)
    spread = [float(numpy.var(means[cut:])) / (batches - cut) for cut in range(int(batches * LONGEST_WARM_UP) + 1)]
    return int(numpy.argmin(spread)) * MSER_BATCH
