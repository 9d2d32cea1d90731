"""Long series made short for drawing: exact sums for bars, extremes for lines, quantiles for distributions."""

from __future__ import annotations

import math
from dataclasses import dataclass

import polars as pl

from profilemate.figures.words import duration

SECOND = 1_000_000_000
MOST_BARS = 120
MOST_QUANTILES = 250
MOST_POINTS = 2_000
"""Points in one chart; the others above keep to it with some series each."""

UNITS = ((7_200, 3_600, "h"), (600, 60, "min"), (0, 1, "s"))
NICE = (1, 2, 5)


@dataclass(frozen=True)
class Bins:
    """Equal bins of time. Nanoseconds since the session began; a bin holds `start_ns + n * width_ns` up to the next."""

    start_ns: int
    width_ns: int
    count: int

    @property
    def end_ns(self) -> int:
        """End of the last one."""
        return self.start_ns + self.count * self.width_ns

    @property
    def unit(self) -> str:
        """Unit of the axis: s, min or h, by how long it all took."""
        return self._scale[1]

    @property
    def unit_ns(self) -> int:
        """Nanoseconds in it."""
        return self._scale[0] * SECOND

    @property
    def _scale(self) -> tuple[int, str]:
        longest_ns = max(abs(self.start_ns), abs(self.end_ns))  # rows of a broken session may be before its beginning
        return next((size, unit) for least, size, unit in UNITS if longest_ns >= least * SECOND)

    @property
    def width_text(self) -> str:
        """For people: `0.5 s`, `2 min`."""
        return duration(self.width_ns / SECOND)

    def moment(self, at_ns: float) -> str:
        """For people, as the axis has it: `54.9 s`."""
        return f"{at_ns / self.unit_ns:,.4g} {self.unit}"

    def of(self, time: pl.Expr) -> pl.Expr:
        """Number of the bin of a moment; what lies outside counts in the first or the last."""
        return ((time - self.start_ns) // self.width_ns).clip(0, self.count - 1)

    def edges(self, number: str = "bin") -> list[pl.Expr]:
        """Columns `from` and `to` in the unit of the axis, for rectangles."""
        begin = pl.col(number) * self.width_ns + self.start_ns
        return [
            (begin / self.unit_ns).round(6).alias("from"),
            ((begin + self.width_ns) / self.unit_ns).round(6).alias("to"),
        ]


def bins(first_ns: int, last_ns: int, at_most: int = MOST_BARS) -> Bins:
    """Bins of a round width that cover a span of time with `at_most` bins. The first begins at a multiple of the width."""
    span = max(last_ns - first_ns, 1)
    width = max(_nice(span / at_most), 1)
    while True:
        start = first_ns // width * width
        count = (last_ns - start) // width + 1
        if count <= at_most:
            return Bins(start, width, count)
        width = _nice(width * 1.01)


SEXAGESIMAL = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 14_400, 28_800, 86_400)


def _nice(nanoseconds: float) -> int:
    """The least round width that is not less: 1, 2 or 5 of a power of ten below a second, round times above."""
    if nanoseconds <= SECOND:
        power = 10 ** math.floor(math.log10(max(nanoseconds, 1)))
        return int(next(step * power for step in (*NICE, 10) if step * power >= nanoseconds * (1 - 1e-9)))
    seconds = nanoseconds / SECOND
    days = 86_400 * math.ceil(seconds / 86_400)
    return next((step for step in SEXAGESIMAL if step >= seconds), days) * SECOND


def spread(intervals: pl.LazyFrame, grid: Bins, by: list[str], *weights: str) -> pl.DataFrame:
    """How much of each bin intervals cover, exactly.

    `intervals` has `begin_ns` and `end_ns` (integers) and the columns of `by`. Gives `by`, `bin` and `ns`, the nanoseconds
    covered; for each of `weights` the sum of that column times nanoseconds. What an interval covers is shared out among the
    bins it reaches into, so that the sum over bins is the sum of the lengths.
    """
    cut = (
        intervals.filter(pl.col("end_ns") > pl.col("begin_ns"))
        .select(*by, "begin_ns", "end_ns", *weights)
        .with_columns(grid.of(pl.col("begin_ns")).alias("bin"), grid.of(pl.col("end_ns") - 1).alias("_last"))
    )
    inside = cut.filter(pl.col("bin") == pl.col("_last")).with_columns(
        (pl.col("end_ns") - pl.col("begin_ns")).alias("ns")
    )
    across = (
        cut.filter(pl.col("bin") < pl.col("_last"))
        .with_columns(pl.int_ranges("bin", pl.col("_last") + 1).alias("bin"))
        .explode("bin")
        .with_columns(_overlap(grid).alias("ns"))
    )
    columns = [*by, "bin", "ns", *weights]
    return (
        pl.concat([inside.select(columns), across.select(columns)])
        .group_by([*by, "bin"])
        .agg(
            pl.col("ns").sum(), *((pl.col("ns") * pl.col(name).cast(pl.Float64)).sum().alias(name) for name in weights)
        )
        .sort([*by, "bin"])
        .collect(engine="streaming")
    )


def _overlap(grid: Bins) -> pl.Expr:
    """Of an interval and its bin; the first and the last bin take what lies outside."""
    begin = grid.start_ns + pl.col("bin") * grid.width_ns
    from_ns = pl.when(pl.col("bin") == 0).then(pl.col("begin_ns")).otherwise(pl.max_horizontal("begin_ns", begin))
    end = begin + grid.width_ns
    to_ns = pl.when(pl.col("bin") == grid.count - 1).then(pl.col("end_ns")).otherwise(pl.min_horizontal("end_ns", end))
    return to_ns - from_ns


def sums(rows: pl.LazyFrame, grid: Bins, by: list[str], *columns: str) -> pl.DataFrame:
    """Sums of integer columns per bin of `at_ns` and the columns of `by`, exact; `rows` is how many there were."""
    return (
        rows.with_columns(grid.of(pl.col("at_ns")).alias("bin"))
        .group_by([*by, "bin"])
        .agg(pl.len().cast(pl.Int64).alias("rows"), *(pl.col(name).sum() for name in columns))
        .sort([*by, "bin"])
        .collect(engine="streaming")
    )


def ranges(rows: pl.LazyFrame, grid: Bins, by: list[str], value: str) -> pl.DataFrame:
    """The lowest, the mean and the highest value of each bin of `at_ns`, so that no extreme is lost.

    Gives `by`, `bin`, `low`, `mean`, `high` and `rows`, how many values there were.
    """
    return (
        rows.filter(pl.col(value).is_not_null())
        .with_columns(grid.of(pl.col("at_ns")).alias("bin"))
        .group_by([*by, "bin"])
        .agg(
            pl.col(value).min().alias("low"),
            pl.col(value).mean().alias("mean"),
            pl.col(value).max().alias("high"),
            pl.len().cast(pl.Int64).alias("rows"),
        )
        .sort([*by, "bin"])
        .collect(engine="streaming")
    )


def line_points(frame: pl.DataFrame, x: str, y: str, by: str, at_most: int = MOST_POINTS) -> tuple[pl.DataFrame, int]:
    """Rows to draw lines through, and one in how many it is: all of them, or the lowest and the highest of each so many.

    Neighbouring rows of each line are put together; both extremes stay at their own place, and the ends of the line.
    """
    ordered = frame.sort(by, x)
    if ordered.height <= at_most:
        return ordered, 1
    together = -(-2 * ordered.height // (at_most - 4 * ordered[by].n_unique()))
    numbered = ordered.with_row_index("row").with_columns((pl.int_range(pl.len()).over(by) // together).alias("group"))
    row, value = pl.col("row"), pl.col(y)
    extremes = numbered.group_by(by, "group").agg(
        row.get(value.arg_min()).alias("low"), row.get(value.arg_max()).alias("high")
    )
    ends = numbered.group_by(by).agg(row.first().alias("first"), row.last().alias("last"))
    kept = pl.concat([extremes["low"], extremes["high"], ends["first"], ends["last"]]).unique().sort()
    return ordered[kept], together


def quantiles(values: pl.Series, at_most: int = MOST_QUANTILES) -> pl.DataFrame:
    """The empirical distribution: `value` and the share of values that are not larger, lowest and highest included.

    Every share is that of a value that occurred. With more than `at_most` values it is every n-th of the sorted ones.
    """
    ordered = values.drop_nulls().sort()
    count = len(ordered)
    shown = min(count, at_most)
    picks = sorted({round(n * (count - 1) / max(shown - 1, 1)) for n in range(shown)})
    chosen = ordered.gather(picks)
    below = ordered.search_sorted(chosen, side="right")
    return pl.DataFrame({"value": chosen, "share": below / max(count, 1)}).unique().sort("value", "share")
