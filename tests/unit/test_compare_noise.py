"""The verdict of a comparison over many made-up sessions: false alarms no more often than promised, 10 % found."""

from __future__ import annotations

import numpy as np
import pytest
from made_up_sessions import MadeUp, comparison, found
from scipy import stats

from profilemate.compare.change import FALSE_ALARMS
from profilemate.compare.comparison import Comparison

PAIRS = 24


@pytest.fixture(scope="module")
def alike() -> list[Comparison]:
    """Pairs of the same server, of unequal length, whose load hangs together for longer than a time slice."""
    return [comparison(MadeUp(2 * n, 240, memory=5), MadeUp(2 * n + 1, 200, memory=5)) for n in range(PAIRS)]


@pytest.fixture(scope="module")
def slower() -> list[Comparison]:
    """Pairs of which the second is slower by a tenth."""
    return [comparison(MadeUp(2 * n, 300), MadeUp(2 * n + 1, 300, slower=1.1)) for n in range(1000, 1012)]


def test_two_runs_of_the_same_server_are_told_apart_no_more_often_than_promised(alike: list[Comparison]) -> None:
    """Of any number at all, however small the difference. One in a thousand runs of this test exceeds the bound by chance."""
    alarms = sum(any(change.beyond_noise for change in result.changes[0]) for result in alike)
    assert alarms <= stats.binom.isf(0.001, PAIRS, FALSE_ALARMS)


def test_the_same_server_is_nearly_always_told_the_same(alike: list[Comparison]) -> None:
    """Not because nothing is told at all."""
    told = [change.verdict for result in alike for change in result.changes[0] if change.before.value is not None]
    assert told.count("same") > 0.6 * len(told)


def test_intervals_hold_the_truth_as_often_as_they_say(alike: list[Comparison]) -> None:
    """The truth is no change. They are made a bit too long rather than too short, but not by much."""
    intervals = [change for result in alike for change in result.changes[0] if change.low is not None]
    held = sum((change.low or 0) <= 0 <= (change.high or 0) for change in intervals)
    assert 0.93 < held / len(intervals) < 0.998


@pytest.mark.parametrize(
    "name", ["tpot_mean", "tpot_p50", "step_time_mean", "step_time_p50", "decode_pass_p50", "mixed_pass_mean"]
)
def test_a_tenth_slower_is_found(slower: list[Comparison], name: str) -> None:
    """In five minutes, in five of six cases at least; the chance of each is measured at over 95 % (docs/compare.md)."""
    assert sum(name in found(result) for result in slower) >= 10


def test_what_is_found_is_worse_and_by_about_a_tenth(slower: list[Comparison]) -> None:
    for result in slower:
        change = next(one for one in result.changes[0] if one.number.name == "step_time_p50")
        assert change.verdict == "worse"
        assert change.low is not None and change.high is not None
        assert change.low > 0 and 0.02 < (change.relative or 0) < 0.2
    centre = np.mean([
        next(one.relative or 0 for one in result.changes[0] if one.number.name == "tpot_mean") for result in slower
    ])  # fmt: skip
    assert 0.08 < centre < 0.12


def test_what_is_not_slower_is_not_found(slower: list[Comparison]) -> None:
    """Hit rate, padding, prompts: in 12 comparisons that have true findings, at most a few false ones."""
    others = ("hit_rate", "padding_share", "full_graph_share", "prompt_length", "batch_requests_mean", "evictions")
    assert sum(name in found(result) for result in slower for name in others) <= 4


def test_more_hits_are_found_in_points() -> None:
    result = comparison(MadeUp(5, 300), MadeUp(6, 300, hits=0.45))
    change = next(one for one in result.changes[0] if one.number.name == "hit_rate")
    assert change.verdict == "better" and change.low is not None and change.high is not None
    assert change.low < 0.05 < change.high


@pytest.mark.parametrize(
    ("changed", "said"), [({"prompts": 1.5}, "longer prompts"), ({"arrivals": 1.5}, "more requests")]
)
def test_another_load_is_said(changed: dict[str, float], said: str) -> None:
    result = comparison(MadeUp(7, 300), MadeUp(8, 300, **changed))
    assert len(result.load) == 1 and said in result.load[0]


def test_a_short_session_says_that_it_cannot_tell() -> None:
    result = comparison(MadeUp(9, 3), MadeUp(10, 3))
    assert found(result) == set()
    assert all(change.verdict == "cannot tell" for change in result.changes[0] if change.number.name.startswith("ttft"))
