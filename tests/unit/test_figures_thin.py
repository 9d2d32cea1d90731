"""Thinning for drawing: sums stay exact, extremes stay, and nothing grows with the session."""

from __future__ import annotations

import random
from collections import Counter

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from profilemate.figures.distribution import percentile
from profilemate.figures.thin import (
    MOST_BARS,
    SECOND,
    Bins,
    bins,
    line_points,
    quantiles,
    ranges,
    spread,
    sums,
)  # fmt: skip
from profilemate.figures.words import duration, listed, share

MOMENTS = st.integers(0, 10**15)


@given(MOMENTS, MOMENTS)
def test_bins_cover_the_span_with_few_bins_of_a_round_width(one: int, other: int) -> None:
    first, last = sorted((one, other))
    grid = bins(first, last)
    assert grid.start_ns <= first and last < grid.end_ns
    assert 1 <= grid.count <= MOST_BARS
    if grid.width_ns <= SECOND:
        assert str(grid.width_ns).strip("0") in ("1", "2", "5")
    else:
        assert grid.width_ns % SECOND == 0
    assert grid.count > MOST_BARS / 4 or last - first < MOST_BARS


@given(st.integers(-(10**15), 10**15), st.integers(0, 10**15))
def test_bins_before_the_session_began_have_a_unit_too(first: int, span: int) -> None:
    """Rows of a broken session; `make fuzz` met them."""
    grid = bins(first, first + span)
    assert grid.unit in ("s", "min", "h") and grid.moment(first).endswith(grid.unit)


INTERVALS = st.lists(
    st.tuples(st.integers(0, 2_000), st.integers(0, 700), st.sampled_from("ab")), min_size=1, max_size=30
)


@given(INTERVALS, st.integers(1, 400))
def test_spread_shares_every_nanosecond_out_once(intervals: list[tuple[int, int, str]], width: int) -> None:
    grid = Bins(0, width, 2_701 // width + 1)
    frame = pl.LazyFrame(
        {
            "begin_ns": [begin for begin, _, _ in intervals],
            "end_ns": [begin + length for begin, length, _ in intervals],
            "kind": [kind for _, _, kind in intervals],
        }
    )
    found = {(row["kind"], row["bin"]): row["ns"] for row in spread(frame, grid, ["kind"]).iter_rows(named=True)}
    expected = Counter(
        (kind, moment // width) for begin, length, kind in intervals for moment in range(begin, begin + length)
    )
    assert found == dict(expected)


def test_what_lies_outside_the_bins_counts_in_the_outer_ones() -> None:
    frame = pl.LazyFrame({"begin_ns": [-50, 95], "end_ns": [15, 250], "w": [2, 3]})
    found = spread(frame, Bins(0, 10, 10), [], "w")
    assert found.rows() == [(0, 60, 120.0), (1, 5, 10.0), (9, 155, 465.0)]


def test_sums_are_exact_beyond_what_a_float_holds() -> None:
    rows = pl.LazyFrame({"at_ns": [1, 2, 11], "n": [2**60, 1, 5]})
    assert sums(rows, Bins(0, 10, 2), [], "n").rows() == [(0, 2, 2**60 + 1), (1, 1, 5)]


def test_ranges_keep_a_single_outlier_among_many() -> None:
    values = [5] * 50_000
    values[31_234] = 900
    rows = pl.LazyFrame({"at_ns": range(50_000), "v": values})
    found = ranges(rows, bins(0, 50_000), [], "v")
    assert found.height <= MOST_BARS
    assert (found["high"].max(), found["low"].min(), found["rows"].sum()) == (900, 5, 50_000)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=400), st.integers(2, 60))
def test_quantiles_are_shares_of_values_that_occurred(values: list[int], at_most: int) -> None:
    found = quantiles(pl.Series(values), at_most)
    assert found.height <= at_most
    assert found["value"].min() == min(values) and found["value"].max() == max(values)
    for value, below in found.iter_rows():
        assert below == pytest.approx(sum(one <= value for one in values) / len(values))


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=200), st.sampled_from([0.5, 0.95, 0.99]))
def test_a_percentile_is_the_least_value_that_enough_do_not_exceed(values: list[float], wanted: float) -> None:
    found = percentile(pl.Series(values), wanted)
    enough = [value for value in values if sum(one <= value for one in values) >= wanted * len(values) - 1e-9]
    assert found == min(enough)


def test_a_thinned_line_keeps_extremes_and_ends() -> None:
    generator = random.Random(3)
    heights = [generator.random() for _ in range(30_000)]
    heights[777], heights[29_000] = 7.0, -7.0
    frame = pl.DataFrame({"x": [float(n) for n in range(30_000)], "y": heights, "of": ["a", "b"] * 15_000})
    points, together = line_points(frame, "x", "y", "of", 1_000)
    assert points.height <= 1_000 and together >= 60
    assert {(777.0, 7.0), (29_000.0, -7.0)} <= set(points.select("x", "y").iter_rows())
    assert points["x"].min() == 0 and points["x"].max() == 29_999
    assert points.join(frame, on=["x", "y", "of"], how="anti").is_empty()


def test_a_short_line_is_drawn_as_it_is() -> None:
    frame = pl.DataFrame({"x": [2.0, 1.0], "y": [1.0, 2.0], "of": ["a", "a"]})
    points, together = line_points(frame, "x", "y", "of", 1_000)
    assert (points.rows(), together) == ([(1.0, 2.0, "a"), (2.0, 1.0, "a")], 1)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (2.5e-7, "0.25 us"), (0.00025, "0.25 ms"), (0.0032, "3.2 ms"), (0.5, "0.5 s"), (99.9, "99.9 s"),
     (150, "2.5 min"), (5_400, "90 min"), (9_000, "2.5 h"), (1_000_000, "278 h")],
)  # fmt: skip
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [
        (0, 5, "0.0 %"),
        (1, 0, "0 %"),
        (1, 3, "33.3 %"),
        (1, 10**6, "<0.1 %"),
        (10**6 - 1, 10**6, ">99.9 %"),
        (4, 4, "100.0 %"),
    ],
)
def test_shares(part: float, whole: float, text: str) -> None:
    assert share(part, whole) == text


def test_lists() -> None:
    assert [listed([]), listed(["a"]), listed(["a", "b"]), listed(["a", "b", "c"])] == [
        "",
        "a",
        "a and b",
        "a, b and c",
    ]


def test_the_unit_of_the_axis_follows_the_session() -> None:
    assert [bins(0, seconds * SECOND).unit for seconds in (1, 500, 5_000, 100_000)] == ["s", "s", "min", "h"]
    grid = bins(0, 5_000 * SECOND)
    assert grid.moment(3_000 * SECOND) == "50 min"
    edges = pl.DataFrame({"bin": [0, 1]}).with_columns(grid.edges())
    assert edges.rows() == [
        (0, 0.0, grid.width_ns / SECOND / 60),
        (1, grid.width_ns / SECOND / 60, 2 * grid.width_ns / SECOND / 60),
    ]
