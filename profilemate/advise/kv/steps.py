"""The engine steps of one engine, as a frame, and the clock by which a replay runs."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import TYPE_CHECKING

from profilemate.frames.packages import load

if TYPE_CHECKING:
    import polars as pl

    from profilemate.frames.session import Session
    from profilemate.session.views import EngineSpan

FEWEST_STEPS = 30
"""Of fewer the time of a step is not fitted to its tokens."""

LONGEST_SHARE = 0.99
"""Steps longer than this share of them are left out of the fit: a pause of the machine is no step time."""


def engine_steps(session: Session, span: EngineSpan, *columns: str) -> pl.DataFrame:
    """Columns of one engine's rows of engine_steps in order of time. Raises SessionError where polars is missing."""
    polars = load("polars")
    rows = session.scan_process(span.process, "engine_steps").filter(polars.col("engine") == span.local_engine)
    return rows.select("time_ns", *columns).collect(engine="streaming").sort("time_ns", maintain_order=True)


@dataclass(frozen=True)
class Clock:
    """The time of a step of n tokens, `base + per_token * n` seconds, and the moments of the recorded steps by it.

    By this clock every recorded step takes what its tokens say, and a request that came between two steps comes between the
    same two. So a replay at the recorded size goes step by step like the session, and one at another size takes longer where
    it has more to compute. Times without requests are as long as they were. `starts_ns` are when the steps were scheduled,
    monotonic; `moments` the same by this clock, in seconds.
    """

    base_seconds: float
    seconds_per_token: float
    starts_ns: tuple[int, ...]
    moments: tuple[float, ...]
    resets: tuple[float, ...] = ()
    """When the prefix cache was reset."""

    def step_seconds(self, tokens: int) -> float:
        """How long a step of so many tokens takes."""
        return self.base_seconds + self.seconds_per_token * tokens

    def moment(self, time_ns: int) -> float:
        """When the step began that was the first to see what came at this time."""
        place = bisect_left(self.starts_ns, time_ns)
        if place < len(self.moments):
            return self.moments[place]
        late = (time_ns - self.starts_ns[-1]) / 1e9 if self.starts_ns else 0.0
        return (self.moments[-1] if self.moments else 0.0) + max(late, self.base_seconds)


def read_clock(session: Session, span: EngineSpan) -> Clock:
    """The clock of one engine."""
    polars = load("polars")
    rows = engine_steps(session, span, "scheduled_ns", "step_tokens", "no_requests_ns", "resets")
    busy = rows.filter(polars.col("step_tokens") > 0).sort("scheduled_ns")
    starts = busy["scheduled_ns"].to_list()
    tokens = busy["step_tokens"].to_list()
    idle = [(value or 0) / 1e9 for value in busy["no_requests_ns"].to_list()]
    gaps = [(after - start) / 1e9 - pause for start, after, pause in zip(starts, starts[1:], idle[1:], strict=False)]
    base, per_token = fit(tokens[:-1], gaps)
    moments: list[float] = []
    moment = 0.0
    for count, pause in zip(tokens, idle, strict=True):
        moment += pause if moments else 0.0
        moments.append(moment)
        moment += base + per_token * count
    clock = Clock(base, per_token, tuple(starts), tuple(moments))
    reset = rows.filter(polars.col("resets") > polars.col("resets").shift(1, fill_value=0))["time_ns"].to_list()
    return Clock(base, per_token, clock.starts_ns, clock.moments, tuple(clock.moment(time) for time in reset))


def fit(tokens: list[int], seconds: list[float]) -> tuple[float, float]:
    """Base and seconds per token, both at least 0, by least squares; the mean alone where steps are few or all alike."""
    kept = [(count, max(second, 0.0)) for count, second in zip(tokens, seconds, strict=True)]
    longest = sorted(second for _, second in kept)[: max(1, int(len(kept) * LONGEST_SHARE))]
    kept = [pair for pair in kept if pair[1] <= longest[-1]] if longest else []
    if not kept:
        return 1.0, 0.0
    mean_tokens = sum(count for count, _ in kept) / len(kept)
    mean_seconds = sum(second for _, second in kept) / len(kept) or 1.0
    spread = sum((count - mean_tokens) ** 2 for count, _ in kept)
    if len(kept) < FEWEST_STEPS or not spread:
        return mean_seconds, 0.0
    slope = sum((count - mean_tokens) * (second - mean_seconds) for count, second in kept) / spread
    slope = min(max(slope, 0.0), mean_seconds / mean_tokens)
    return mean_seconds - slope * mean_tokens, slope
