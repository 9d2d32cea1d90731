"""What a forward pass costs by mode and padded size: measured on the device where there are enough times, else its tokens."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from profilemate.frames.packages import load
from profilemate.session.views import graph_workers

if TYPE_CHECKING:
    from profilemate.frames.session import Session

MIN_SAMPLES = 50
"""Device times that a mode needs."""
MIN_SIZES = 2
"""Sizes that a mode needs, with MIN_PER_SIZE times each."""
MIN_PER_SIZE = 5

TOKENS, NANOSECONDS = "tokens", "ns"
NO_TIMES = "a replay's time on a CPU says nothing about a graph on a GPU"


@dataclass(frozen=True)
class CostModel:
    """Cost of one pass. `why` says where it is from. `curves` are times by size, of which there are none for tokens."""

    unit: str
    why: str
    curves: Mapping[str, tuple[tuple[int, ...], tuple[float, ...]]] = field(default_factory=dict)
    samples: int = 0

    @property
    def is_time(self) -> bool:
        """Whether it is in nanoseconds of device time."""
        return self.unit == NANOSECONDS

    def of(self, mode: str, padded: int) -> float:
        """Nanoseconds, or the padded tokens themselves (a whole number).

        Between sampled sizes by a straight line; below the smallest as that one; above the largest in proportion to size.
        """
        if not self.is_time:
            return padded
        sizes, values = self.curves[mode]
        if padded > sizes[-1]:
            return values[-1] * padded / sizes[-1]
        return float(load("numpy").interp(padded, sizes, values))


def cost_model(session: Session, device: object, needed: Collection[str]) -> CostModel:
    """Fitted to the session's device times if each needed mode has enough of them, else padded tokens."""
    if device in (None, "cpu"):
        return CostModel(TOKENS, NO_TIMES)
    samples = _samples(session)
    short = [mode for mode in sorted(needed) if not _is_enough(samples.get(mode, []))]
    if short:
        return CostModel(
            TOKENS,
            f"fewer than {MIN_SAMPLES} device times over at least {MIN_SIZES} sizes for passes in {', '.join(short)}",
        )
    curves = {mode: _curve(points) for mode, points in samples.items() if _is_enough(points)}
    count = sum(number for mode in curves for _, _, number in samples[mode])
    return CostModel(NANOSECONDS, f"fitted to {count} device times of this session", curves, count)


Point = tuple[int, float, int]
"""Padded tokens, median device time in nanoseconds, how many."""


def _samples(session: Session) -> dict[str, list[Point]]:
    polars = load("polars")
    names = [worker.process.name for worker in graph_workers(session)]
    ours = polars.col("process").is_in(names)
    passes = session.scan("forward_passes").filter(ours & polars.col("num_tokens").is_not_null())
    times = session.scan("forward_latencies").filter(ours).select("process", "forward", "device_ns")
    joined = passes.select("process", "forward", "runtime_mode", "num_tokens").join(times, on=["process", "forward"])
    table: Any = joined.group_by("runtime_mode", "num_tokens").agg(
        polars.col("device_ns").median().alias("median"), polars.len().alias("times")
    ).sort("runtime_mode", "num_tokens").collect(engine="streaming")  # fmt: skip
    found: dict[str, list[Point]] = {}
    for row in table.iter_rows(named=True):
        if row["times"] >= MIN_PER_SIZE:
            found.setdefault(row["runtime_mode"], []).append((row["num_tokens"], row["median"], row["times"]))
    return found


def _is_enough(points: list[Point]) -> bool:
    return len(points) >= MIN_SIZES and sum(times for _, _, times in points) >= MIN_SAMPLES


def _curve(points: list[Point]) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Medians made non-decreasing in size by weighted isotonic regression (pool adjacent violators)."""
    optimize = load("scipy.optimize")
    sizes, medians, times = zip(*points, strict=True)
    fitted = optimize.isotonic_regression(medians, weights=times).x
    return tuple(sizes), tuple(float(value) for value in fitted)
