"""What our handlers cost is measured on all calls at first, then on a sample, and nothing else is paid for it."""

from __future__ import annotations

import time
import types
from typing import Any

from profilemate.probe import cost
from profilemate.probe import hook as hooks

SLOW_NS = 300_000
NO_BIAS = cost.Bias()


class Target:
    """Stands for a vLLM class."""

    def step(self) -> int:
        return 1


def spin() -> None:
    until = time.perf_counter_ns() + SLOW_NS
    while time.perf_counter_ns() < until:
        pass


def hooked(before: Any, after: Any) -> Any:
    owner = type("Owner", (Target,), {"step": lambda self: 1})
    state = hooks.HookState(hooks.Hook("name", "tracker", "module", "Owner.step", hooks.AROUND, before, after))
    hooks.put_in(state, types.SimpleNamespace(Owner=owner))
    return owner(), state


def run(target: Any, state: Any, sampler: cost.Sampler, intervals: int, intervals_left: int, calls: int = 2) -> int:
    for _ in range(intervals):
        for _ in range(calls):
            target.step()
        intervals_left -= 1
        if not intervals_left:
            intervals_left = sampler.turn([state], NO_BIAS)
    return intervals_left


def test_the_first_calls_are_all_timed_and_then_one_interval_of_each_199() -> None:
    target, state = hooked(lambda: None, lambda *a: None)
    sampler = cost.Sampler()
    left = run(target, state, sampler, cost.FIRST_INTERVALS - 1, sampler.turn([state], NO_BIAS))
    assert state.sample.counts(state.calls, NO_BIAS)[:1] + state.sample.counts(state.calls, NO_BIAS)[2:] == (30, 0, 0)
    run(target, state, sampler, 1 + 10 * cost.SAMPLE_EVERY, left)
    first_calls, _, sampled_calls, _ = state.sample.counts(state.calls, NO_BIAS)
    assert (first_calls, sampled_calls) == (2 * cost.FIRST_INTERVALS, 2 * 10)
    assert state.calls == 2 * (cost.FIRST_INTERVALS + 10 * cost.SAMPLE_EVERY)


def test_both_handlers_count_and_the_original_does_not() -> None:
    target, state = hooked(spin, lambda *a: spin())
    sampler = cost.Sampler()
    run(target, state, sampler, cost.FIRST_INTERVALS, sampler.turn([state], NO_BIAS), calls=1)
    calls, spent_ns, _, _ = state.sample.counts(state.calls, NO_BIAS)
    assert calls == cost.FIRST_INTERVALS
    assert spent_ns / calls >= 2 * SLOW_NS


def test_a_handler_that_raises_is_timed_and_switched_off_as_ever() -> None:
    def explode() -> None:
        spin()
        raise ValueError("ours")

    target, state = hooked(explode, lambda *a: None)
    assert [target.step() for _ in range(8)] == [1] * 8
    assert state.state == "switched_off" and state.failures == 5
    assert state.sample.spent_ns >= 5 * SLOW_NS


def test_outside_the_sample_the_handlers_are_the_trackers_own() -> None:
    seen = []
    target, state = hooked(lambda: seen.append("before"), lambda *a: seen.append("after"))
    state.sample_calls(False)
    target.step()
    assert seen == ["before", "after"] and state.sample.counts(state.calls, NO_BIAS)[0] == 0
    assert state.sample.switch(False, state.calls) == (state.hook.before, state.hook.after)


def test_a_forked_child_starts_at_zero_in_the_middle_of_a_timed_interval() -> None:
    target, state = hooked(lambda: None, lambda *a: None)
    for _ in range(5):
        target.step()
    state.forget_calls()
    assert state.sample.counts(state.calls, NO_BIAS) == (0, 0, 0, 0)
    target.step()
    assert state.sample.counts(state.calls, NO_BIAS)[0] == 1


def test_the_bias_is_measured_and_small() -> None:
    bias = cost.calibrate()
    assert 0 <= bias.clock_ns < 5_000 and 0 <= bias.entry_ns < 5_000
    assert bias.clock_ns + bias.entry_ns > 0


def test_what_the_clock_itself_takes_is_taken_off() -> None:
    target, state = hooked(lambda: None, lambda *a: None)
    for _ in range(1000):
        target.step()
    raw_ns, clock_ns = state.sample.spent_ns, 3.0
    assert state.sample.counts(1000, cost.Bias(clock_ns))[1] == max(0, raw_ns - 2 * 1000 * clock_ns)
