"""The statistics of one session by hand: values, errors of dependent rows, thin data, the steady part, p-values together."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy import stats

from profilemate.compare.catalogue import BY_NAME
from profilemate.compare.change import compared, judged
from profilemate.compare.noise import Estimate, long_run_variance, quantile, ratio
from profilemate.compare.shown import change_text, digits, value_text
from profilemate.compare.steady import Window, mser, steady_window, whole_window

SLICES = 64


def wave(dice: np.random.Generator, length: int, keep: float) -> Any:
    """AR(1) with unit variance."""
    found = [dice.standard_normal()]
    for shock in dice.standard_normal(length - 1) * np.sqrt(1 - keep**2):
        found.append(keep * found[-1] + shock)
    return np.array(found)


def estimate(value: float, error: float, freedom: float = 6) -> Estimate:
    return Estimate(value, error, freedom, 1000, SLICES, SLICES)


def test_a_ratio_is_sum_over_sum() -> None:
    above, below = np.arange(SLICES, dtype=float) + 1, np.full(SLICES, 4.0)
    assert ratio(above, below, 1000).value == pytest.approx(sum(range(1, SLICES + 1)) / (4 * SLICES))


@pytest.mark.parametrize(("keep", "low", "high"), [(0.0, 1.0, 1.5), (0.5, 2.9, 4.5)])
def test_the_long_run_variance_is_that_of_the_process_or_a_bit_more(keep: float, low: float, high: float) -> None:
    """1 of independent slices, 3 of those with a correlation of one half."""
    dice = np.random.default_rng(1)
    assert low < np.mean([long_run_variance(wave(dice, SLICES, keep)) for _ in range(400)]) < high


@pytest.mark.parametrize(("keep", "told_of"), [(0.0, 590), (0.3, 500), (0.5, 200), (0.95, 0)])
def test_the_interval_of_a_mean_covers_it_however_much_hangs_together(keep: float, told_of: int) -> None:
    """Or nothing is told: where neighbours are too much alike, most series are too short to tell."""
    dice = np.random.default_rng(2)
    estimates = [ratio(5 + wave(dice, SLICES, keep), np.ones(SLICES), 1000) for _ in range(600)]
    told = [found for found in estimates if not found.thin]
    covered = [abs(one.value - 5) <= stats.t.isf(0.025, one.freedom) * one.error for one in told]  # type: ignore[operator]
    assert len(told) > told_of and (keep < 0.9 or len(told) < 90)
    assert keep >= 0.9 or np.mean(covered) > 0.94


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.5])
def test_the_error_is_not_much_larger_than_it_is(keep: float) -> None:
    """Or nothing would ever be found. The truth: variance of the mean of a first-order autoregression."""
    dice = np.random.default_rng(8)
    errors = [ratio(5 + wave(dice, SLICES, keep), np.ones(SLICES), 1000).error or 0 for _ in range(300)]
    truth = np.sqrt((1 + keep) / (1 - keep) / SLICES)
    assert 0.95 < np.mean(errors) / truth < 1.25


@pytest.mark.parametrize(("level", "seed"), [(0.5, 3), (0.95, 4)])
def test_the_interval_of_a_quantile_covers_it_with_heavy_tails(level: float, seed: int) -> None:
    dice = np.random.default_rng(seed)
    truth = stats.pareto.ppf(level, 1.5)
    covered = 0
    for _ in range(300):
        values = dice.pareto(1.5, 3200) + 1
        place = np.repeat(np.arange(SLICES), 50)
        order = np.argsort(values)
        found = quantile(values[order], np.ones(3200), place[order], SLICES, level)
        assert found.value is not None and found.error is not None
        covered += abs(found.value - truth) <= stats.t.isf(0.025, found.freedom) * found.error
    assert 0.94 < covered / 300 < 0.999


@pytest.mark.parametrize("level", [0.5, 0.95, 0.99])
def test_a_quantile_is_the_nearest_rank(level: float) -> None:
    values = np.sort(np.random.default_rng(5).exponential(1, 1237))
    found = quantile(values, np.ones(1237), np.arange(1237) % SLICES, SLICES, level)
    assert found.value == values[int(np.ceil(level * 1237)) - 1]


def test_a_weighted_quantile_counts_weights() -> None:
    values, weights = np.arange(1.0, 5.0), np.array([1.0, 1.0, 1.0, 97.0])
    assert quantile(values, weights, np.arange(4), SLICES, 0.5).value == 4.0


@pytest.mark.parametrize(
    ("numerator", "events", "said"),
    [
        (np.ones(SLICES), 29, "30 are needed"),
        (np.where(np.arange(SLICES) < 3, 1.0, 0.0), 1000, "in 3 of 64 time slices only"),
        (np.where(np.arange(SLICES) < SLICES - 3, 1.0, 0.0), 1000, "in 3 of 64 time slices only"),
        (np.arange(SLICES) * 0.01, 1000, "neighbouring time slices hang together"),
    ],
)
def test_thin_data_says_why(numerator: Any, events: int, said: str) -> None:
    assert said in ratio(numerator, np.ones(SLICES), events).thin


@pytest.mark.parametrize(
    ("level", "rows", "is_thin"), [(0.95, 199, True), (0.95, 200, False), (0.99, 999, True), (0.99, 1000, False)]
)
def test_a_quantile_needs_rows_beyond_it(level: float, rows: int, is_thin: bool) -> None:
    values = np.random.default_rng(6).exponential(1, rows)
    order = np.argsort(values)
    found = quantile(values[order], np.ones(rows), (np.arange(rows) % SLICES)[order], SLICES, level)
    assert ("are needed" in found.thin) == is_thin


def test_nothing_at_all_is_known_exactly() -> None:
    found = ratio(np.zeros(SLICES), np.ones(SLICES), 1000)
    assert (found.value, found.error, found.thin) == (0.0, 0.0, "")


def test_the_difference_is_held_against_students_distribution() -> None:
    number = BY_NAME["step_time_mean"]
    change = compared(number, estimate(10.0, 0.1), estimate(11.0, 0.11))
    error = np.hypot(0.01, 0.01)
    assert change.p == pytest.approx(2 * stats.t.sf(np.log(1.1) / error, 12))
    reach = stats.t.isf(0.025, 12) * error
    assert (change.low, change.high) == pytest.approx((1.1 * np.exp(-reach) - 1, 1.1 * np.exp(reach) - 1))


def test_p_values_are_adjusted_together() -> None:
    """One number that would pass alone does not among a hundred that do not differ."""
    number = BY_NAME["step_time_mean"]
    single = compared(number, estimate(10.0, 0.1), estimate(10.6, 0.1))
    assert single.p is not None and 0.0005 < single.p < 0.01
    dull = [compared(number, estimate(10.0, 0.1), estimate(10.01, 0.1))] * 100
    assert judged([single])[0].verdict == "worse"
    assert judged([single, *dull])[0].verdict == "same"


@pytest.mark.parametrize(
    ("name", "before", "after", "verdict"),
    [
        ("step_time_mean", 10.0, 12.0, "worse"),
        ("step_time_mean", 10.0, 8.0, "better"),
        ("output_throughput", 10.0, 8.0, "worse"),
        ("output_throughput", 10.0, 12.0, "better"),
        ("batch_requests_mean", 10.0, 12.0, "differs"),
        ("step_time_mean", 10.0, 10.3, "small"),
        ("hit_rate", 0.5, 0.515, "better"),
        ("hit_rate", 0.5, 0.508, "small"),
        ("evictions", 0.0, 0.5, "worse"),
    ],
)
def test_a_verdict_has_a_direction_and_a_least_change(name: str, before: float, after: float, verdict: str) -> None:
    sure = [estimate(value, value * 1e-4) for value in (before, after)]
    assert judged([compared(BY_NAME[name], *sure)])[0].verdict == verdict


def test_equal_numbers_without_noise_do_not_differ() -> None:
    change = judged([compared(BY_NAME["step_time_mean"], estimate(0.1 + 0.2, 0.0), estimate(0.3, 0.0))])[0]
    assert change.verdict == "same" and change.points == 0


def test_mser_leaves_out_a_warm_up_and_no_more_than_a_quarter() -> None:
    dice = np.random.default_rng(7)
    series = 10 + 0.1 * dice.standard_normal(200)
    series[:20] += 5
    assert 20 <= mser(series) <= 50
    assert mser(np.linspace(10, 0, 200)) <= 50
    assert mser(np.ones(200)) == 0


def frames(step_times: Any, arrivals: Any) -> dict[str, pl.DataFrame]:
    count = len(step_times)
    return {
        "steps": pl.DataFrame(
            {"t": step_times, "is_busy": [True] * count, "wall": [0.1] * count, "running": [1] * count}
        ),
        "requests": pl.DataFrame(
            {"arrival": arrivals, "end": [one + 1 for one in arrivals]},
            schema={"arrival": pl.Float64, "end": pl.Float64},
        ),
        "passes": pl.DataFrame({"t": step_times}),
    }


def steady(step_times: Any, arrivals: Any) -> Window:
    found = steady_window(frames(step_times, arrivals))
    assert found is not None
    return found


def test_the_drain_is_left_out() -> None:
    window = steady(np.linspace(0, 100, 1000), np.linspace(0, 80, 100))
    assert (window.begin, window.end) == (0, 80)


def test_requests_that_all_came_first_keep_the_whole_time() -> None:
    window = steady(np.linspace(0, 100, 1000), np.linspace(0, 0.5, 100))
    assert window.end == 100 and "all requests were there" in window.says


def test_a_request_long_before_the_load_is_left_out() -> None:
    window = steady(np.r_[np.linspace(0, 1, 10), np.linspace(400, 500, 1000)], np.r_[0.0, np.linspace(400, 500, 100)])
    assert (window.begin, window.end) == (400, 500) and "10 steps before or after" in window.says


def test_too_few_steps_have_no_steady_part() -> None:
    assert steady_window(frames(np.linspace(0, 10, 100), [1.0])) is None
    assert whole_window(frames(np.linspace(0, 10, 100), [1.0])) == Window(0, 10)


def test_values_are_shown_in_units_that_fit() -> None:
    seconds = BY_NAME["ttft_mean"]
    assert [value_text(seconds, one) for one in (0, 2.5, 0.0123, 4.56e-5, None)] == [
        "0 us",
        "2.50 s",
        "12.3 ms",
        "45.6 us",
        "-",
    ]
    assert value_text(BY_NAME["hit_rate"], 0.1234) == "12.3 %"
    assert [digits(one) for one in (1234.5, 12.34, 0.01234)] == ["1,235", "12.3", "0.0123"] or digits(1234.5) == "1,234"
    assert change_text(compared(BY_NAME["hit_rate"], estimate(0.5, 0), estimate(0.48, 0))) == "-2.0 pt"
