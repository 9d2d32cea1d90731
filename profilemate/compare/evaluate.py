"""A key number of one session: over the whole of it, exact, and over its steady part with how sure it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from profilemate.compare.material import Material
from profilemate.compare.noise import NOTHING, Estimate, quantile, ratio
from profilemate.compare.number import Fixed, Mean, Number, Quantile, Rate, Ratio, Rows
from profilemate.compare.steady import SLICES, Window, whole_window
from profilemate.frames.packages import load

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[np.float64]]

TOO_SHORT = "too few engine steps to find a steady part"


class Evaluator:
    """Evaluates numbers of one session. What was read is kept: several numbers are made of the same column."""

    def __init__(self, material: Material) -> None:
        """Nothing is read yet."""
        self._material = material
        self._kept: dict[Any, tuple[Array, Array]] = {}
        self._sorted: dict[Any, tuple[Array, Array, Any]] = {}
        self._whole = whole_window(material.frames)

    def whole(self, number: Number) -> float | None:
        """Over all rows of the session."""
        measure = number.measure
        if isinstance(measure, Fixed):
            return measure.read(self._material.metadata)
        return self._over(measure, self._whole, 1).value if self._whole else None

    def steady(self, number: Number) -> Estimate:
        """Over the steady part, in slices."""
        measure, window = number.measure, self._material.steady
        if isinstance(measure, Fixed):
            return Estimate(measure.read(self._material.metadata), thin="one value of the whole session")
        if window is None:
            value = self.whole(number)
            return Estimate(value, thin=NOTHING if value is None else TOO_SHORT)
        return self._over(measure, window, SLICES)

    def values(self, rows: Rows, column: str) -> Array:
        """The column in the steady part (the whole session where there is none), ascending; for distributions."""
        window = self._material.steady or self._whole
        return self._in_order(rows, column, "", window, 1)[0] if window else load("numpy").empty(0)

    def _over(self, measure: Mean | Quantile | Ratio | Rate, window: Window, slices: int) -> Estimate:
        numpy = load("numpy")
        if isinstance(measure, Quantile):
            values, weights, place = self._in_order(measure.rows, measure.column, measure.weight, window, slices)
            return quantile(values, weights, place, slices, measure.level)
        if isinstance(measure, Rate):
            if not self._is_known(measure.rows, measure.column):
                return Estimate(None, thin=NOTHING)
            above, events = self._sums(measure.rows, measure.column, window, slices)
            return ratio(above, numpy.full(slices, window.seconds / slices), max(events, slices))
        if isinstance(measure, Mean):
            above, events = self._sums(measure.rows, measure.column, window, slices)
            below, _ = self._sums(measure.rows, measure.column, window, slices, count=True)
            return ratio(above, below, events)
        if not self._is_known(measure.above, measure.column):
            return Estimate(None, thin=NOTHING)
        above, _ = self._sums(measure.above, measure.column, window, slices)
        below, events = self._sums(measure.below, measure.under, window, slices)
        return ratio(above, below, events)

    def _is_known(self, rows: Rows, column: str) -> bool:
        """Whether it was recorded at all. Where requests were, a session without preemptions had none."""
        if rows.frame == "preemptions" and self._material.frames["requests"].height:
            return True
        return len(self._cells(rows, column)[0]) > 0

    def _frame(self, rows: Rows) -> Any:
        frame = self._material.frames[rows.frame]
        return frame.filter(load("polars").col(rows.where).fill_null(False)) if rows.where else frame

    def _sums(self, rows: Rows, column: str, window: Window, slices: int, count: bool = False) -> tuple[Array, int]:
        """Sum of a column by slice, or how many rows have it, and their number in all."""
        numpy = load("numpy")
        values, time = self._cells(rows, column)
        place = _place(time, window, slices)
        inside = place >= 0
        weights = None if count or not column else values[inside]
        return numpy.bincount(place[inside], weights, slices).astype(float), int(inside.sum())

    def _cells(self, rows: Rows, column: str) -> tuple[Array, Array]:
        """Values and times of the rows that have both."""
        if (rows, column) not in self._kept:
            polars = load("polars")
            value = polars.col(column).cast(polars.Float64) if column else polars.lit(1.0)
            cells = self._frame(rows).select(value.alias("value"), polars.col(rows.at).alias("at")).drop_nulls()
            self._kept[rows, column] = (cells["value"].to_numpy(), cells["at"].to_numpy())
        return self._kept[rows, column]

    def _in_order(self, rows: Rows, column: str, weight: str, window: Window, slices: int) -> tuple[Array, Array, Any]:
        key = (rows, column, weight, window, slices)
        if key not in self._sorted:
            polars, numpy = load("polars"), load("numpy")
            weights = polars.col(weight) if weight else polars.lit(1.0)
            cells = (
                self._frame(rows)
                .select(polars.col(column).alias("value"), polars.col(rows.at).alias("at"), weights.alias("weight"))
                .drop_nulls().sort("value")
            )  # fmt: skip
            place = _place(cells["at"].to_numpy(), window, slices)
            inside = numpy.flatnonzero(place >= 0)
            values, heavy = cells["value"].to_numpy().astype(float), cells["weight"].to_numpy().astype(float)
            self._sorted[key] = (values[inside], heavy[inside], place[inside])
        return self._sorted[key]


def _place(time: Array, window: Window, slices: int) -> Any:
    """Slice of each moment; -1 outside of the window."""
    numpy = load("numpy")
    if window.seconds <= 0:
        return numpy.where(time == window.begin, 0, -1)
    place = ((time - window.begin) / window.seconds * slices).astype(int)
    place = numpy.minimum(place, slices - 1)
    return numpy.where((time >= window.begin) & (time <= window.end), place, -1)
