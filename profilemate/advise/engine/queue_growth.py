"""Whether the queue of waiting requests grows over the session: a rank test and a slope over slices of time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from profilemate.advise.enough import Need, lost_rows, thin, unmet
from profilemate.advise.finding import FINE, LOOK, Evidence, Finding
from profilemate.advise.steps import ENGINE, TABLE

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    from numpy.typing import NDArray

    from profilemate.frames.session import Session

    Floats = NDArray[np.float64]

TOPIC = "scheduling"
NAME = "scheduling.queue"
ABOUT = "whether the queue grows"
COLUMNS = ("waiting", "running", "step_finished")

SLICES = 12
STEPS_NEEDED, SECONDS_NEEDED, FINISHED_NEEDED = 20 * SLICES, 30, 30
LEVEL = 0.01
"""Of the rank test. Neighbouring slices of a queue are alike, which makes small p-values too easy: hence also MOST."""
MOST = 1.5
"""The last quarter of the slices must hold so many times the waiting requests of the first, and one more at least."""


class Trend(NamedTuple):
    """`per_minute` is the Theil-Sen slope with its 95 % interval (Sen 1968), `p_value` Kendall's (Mann 1945)."""

    slice_seconds: float
    means: Floats
    per_minute: float
    low: float
    high: float
    p_value: float

    @property
    def first(self) -> float:
        """Waiting requests in the first quarter."""
        return float(self.means[: SLICES // 4].mean())

    @property
    def last(self) -> float:
        """And in the last."""
        return float(self.means[-(SLICES // 4) :].mean())

    @property
    def grows(self) -> bool:
        """By the test, by the slope's interval and by size."""
        return self.p_value < LEVEL and self.low > 0 and self.last > MOST * self.first and self.last >= self.first + 1


def advise(session: Session, frame: pl.DataFrame) -> list[Finding]:
    """One finding."""
    import polars

    rows = frame.filter(polars.col("waiting").is_not_null())
    seconds = _seconds(rows)
    finished = int(rows["step_finished"].sum() or 0)
    evidence = (Evidence(TABLE, rows.height, "waiting requests after each step"),)
    needs = [
        Need("engine steps", rows.height, STEPS_NEEDED),
        Need("seconds from the first step to the last", int(seconds), SECONDS_NEEDED),
        Need("requests that ended", finished, FINISHED_NEEDED),
    ]
    if unmet(needs):
        return [thin(TOPIC, NAME, ABOUT, needs, "", evidence)]
    most = int(rows["waiting"].to_numpy().max())
    if not most:
        return [Finding(TOPIC, NAME, FINE, "No request ever waited after a step", "The queue was empty at the end of every "
                        "engine step.", evidence, numbers={"most_waiting": 0})]  # fmt: skip
    trend = measure(rows)
    left = _left(rows)
    says = f"{_text(trend, most, finished, left, seconds)}{lost_rows(session, TABLE)}"
    numbers = _numbers(trend, most, finished, left, seconds)
    if not trend.grows:
        falls = trend.p_value < LEVEL and trend.high < 0
        title = (
            "The queue shrank: what had come at once was worked off" if falls else "The queue does not grow steadily"
        )
        return [Finding(TOPIC, NAME, FINE, title, says, evidence, numbers=numbers)]
    return [
        Finding(
            TOPIC, NAME, LOOK, "The queue grows: more requests come than are completed",
            f"{says} While this load lasts every request waits longer than the one before. A flag helps only as far as it "
            "makes the server faster: see scheduling.limits for what bounds it. Otherwise it takes less load, or more engines.",
            evidence,
            to_be_sure="A longer recording tells a lasting overload from a burst.",
            numbers=numbers,
        )
    ]  # fmt: skip


def measure(rows: pl.DataFrame) -> Trend:
    """Mean of the waiting requests over slices of equal time, all engines added up, and its trend."""
    import numpy
    from scipy import stats

    begin, end = _span(rows)
    edges = numpy.linspace(begin, end, SLICES + 1)
    means = numpy.zeros(SLICES)
    for _, one in rows.group_by(ENGINE, maintain_order=True):
        means += _slice_means(one["time_ns"].to_numpy().astype(float), one["waiting"].to_numpy().astype(float), edges)
    seconds = (end - begin) / SLICES / 1e9
    places = numpy.arange(SLICES, dtype=float)
    slope, _, low, high = stats.theilslopes(means, places, alpha=0.95)
    per_minute = 60 / seconds
    p_value = float(stats.kendalltau(places, means).pvalue)
    return Trend(
        seconds, means, float(slope) * per_minute, float(low) * per_minute, float(high) * per_minute,
        p_value if numpy.isfinite(p_value) else 1.0,
    )  # fmt: skip


def _slice_means(times: Floats, waiting: Floats, edges: Floats) -> Floats:
    """Of a step function that holds each value until the next row, 0 before the first: exact, by its integral."""
    import numpy

    held = numpy.diff(numpy.append(times, max(times[-1], edges[-1])))
    area = numpy.concatenate([[0.0, 0.0], numpy.cumsum(waiting * held)])
    at = numpy.concatenate([[min(edges[0], times[0])], times[:1], times[1:], [max(times[-1], edges[-1])]])
    filled: Floats = numpy.diff(numpy.interp(edges, at, area)) / numpy.diff(edges)
    return filled


def _span(rows: pl.DataFrame) -> tuple[float, float]:
    times = rows["time_ns"].to_numpy()
    return float(times.min()), float(times.max())


def _seconds(rows: pl.DataFrame) -> float:
    if not rows.height:
        return 0.0
    begin, end = _span(rows)
    return (end - begin) / 1e9


def _left(rows: pl.DataFrame) -> int:
    """Requests that were still with the engines at the last row of each."""
    import polars

    last = rows.group_by(ENGINE).agg(polars.col("waiting").last(), polars.col("running").last())
    return int(last["waiting"].sum() or 0) + int(last["running"].sum() or 0)


def _text(trend: Trend, most: int, finished: int, left: int, seconds: float) -> str:
    return (
        f"On average {trend.first:.1f} requests waited in the first quarter of {seconds:,.0f} s and {trend.last:.1f} in the "
        f"last, {most:,} at most in an engine. Over {SLICES} slices of {trend.slice_seconds:.3g} s the queue changes by "
        f"{trend.per_minute:+.3g} requests a minute ({trend.low:+.3g} to {trend.high:+.3g} at 95 %; rank test "
        f"p = {trend.p_value:.2g}). {finished / seconds * 60:,.3g} requests a minute ended, {left:,} were left at the end."
    )


def _numbers(trend: Trend, most: int, finished: int, left: int, seconds: float) -> dict[str, Any]:
    return {
        "seconds": seconds, "most_waiting": most, "waiting_by_slice": trend.means.tolist(), "per_minute": trend.per_minute,
        "per_minute_low": trend.low, "per_minute_high": trend.high, "p_value": trend.p_value,
        "ended_per_minute": finished / seconds * 60, "left": left,
    }  # fmt: skip
