"""What our own code costs, measured by timing a sample of its calls.

Every handler is timed from the start of the process until the first engine steps are over, and after that during one step of
each SAMPLE_EVERY: at all other times nothing is measured and nothing is paid. The entry into the wrapper and the call of the
original lie outside; `calibrate` measures them once, on a function that does nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from time import perf_counter_ns
from typing import Any, NamedTuple

from profilemate.probe.wrapper import FOLLOWING_NONE, wrap

FIRST_INTERVALS = 16
"""Engine steps, after all that comes before them, in which every call is timed: loading and warm-up happen once."""

SAMPLE_EVERY = 199
"""A prime, so that no rhythm of the server's own is always or never hit."""

Handler = Callable[..., Any] | None


class Bias(NamedTuple):
    """What is added to, or missing from, the time of one call; nanoseconds."""

    clock_ns: float = 0.0
    """That timing a handler adds to its time."""
    entry_ns: float = 0.0
    """That a wrapper costs beside its handlers."""


class Sample:
    """Time spent in the handlers of one hook. Nanoseconds; exact over the first calls, sampled later."""

    __slots__ = (
        "_all", "_began_at", "after", "before", "calls", "first_calls", "first_ns", "runs", "spent_ns", "timed_after",
        "timed_before",
    )  # fmt: skip

    def __init__(self, before: Handler, after: Handler) -> None:
        """Nothing timed yet."""
        self.before, self.after = before, after
        self.timed_before, self.timed_after = self._timed(before), self._timed(after)
        self._began_at = -1
        self.forget()

    def forget(self) -> None:
        """Start anew, as in a forked child, where a call that was timed when the parent forked may go on."""
        self.calls = self.runs = self.spent_ns = self.first_calls = self.first_ns = 0
        self._all = True
        self._began_at = min(self._began_at, 0)

    def _timed(self, handler: Handler) -> Handler:
        if handler is None:
            return None

        def run(*values: Any) -> Any:
            began = perf_counter_ns() - Sampler.spent_ns
            try:
                return handler(*values)
            finally:
                self.spent_ns += perf_counter_ns() - Sampler.spent_ns - began
                self.runs += 1

        return run

    @property
    def is_on(self) -> bool:
        """Whether calls are being timed."""
        return self._began_at >= 0

    def switch(self, on: bool, calls: int) -> tuple[Handler, Handler]:
        """Begin or end timing at this number of calls; returns the handlers to use."""
        if self._began_at >= 0:
            self.calls += calls - self._began_at
        self._began_at = calls if on else -1
        return (self.timed_before, self.timed_after) if on else (self.before, self.after)

    def counts(self, calls: int, bias: Bias) -> tuple[int, int, int, int]:
        """Cells of a health row when the hook has this many calls: first calls and time, sampled calls and time."""
        running = calls - self._began_at if self._began_at >= 0 else 0
        timed = self.calls + running, self._corrected_ns(bias)
        return (*timed, 0, 0) if self._all else (self.first_calls, self.first_ns, *timed)

    def _corrected_ns(self, bias: Bias) -> int:
        return max(0, self.spent_ns - round(self.runs * bias.clock_ns))

    def end_first(self, bias: Bias) -> None:
        """The start of the process is over: what was timed so far is all there was."""
        self.first_calls, self.first_ns = self.calls, self._corrected_ns(bias)
        self.calls = self.runs = self.spent_ns = 0
        self._all = False


class Sampler:
    """Says which flush intervals are timed.

    Its own work falls into a timed call, where it would count SAMPLE_EVERY times: `spent_ns` is taken off.
    """

    spent_ns = 0

    def __init__(self) -> None:
        """A process begins."""
        self.forget()

    def forget(self) -> None:
        """Everything is timed until the first intervals are over."""
        self.on = True
        self._turns = 0

    def turn(self, states: Iterable[Any], bias: Bias) -> int:
        """Begin a timed interval, or intervals that are not; returns how many. `states` are the HookStates."""
        began = perf_counter_ns()
        self._turns += 1
        if self._turns == 1:
            return FIRST_INTERVALS
        self.on = not self.on
        for state in states:
            state.sample_calls(self.on)
            if self._turns == 2:
                state.sample.end_first(bias)
        Sampler.spent_ns += perf_counter_ns() - began
        return 1 if self.on else SAMPLE_EVERY - 1


CALIBRATION_CALLS = 40
CALIBRATION_LOOPS = 5


def calibrate() -> Bias:
    """Measure both on a function that does nothing: the least of five short loops, some 50 microseconds in all."""
    hooked = wrap(_nothing, FOLLOWING_NONE, ("first",), None, None, _nothing, "calibration").function
    bare_ns = _loop_ns(_nothing)
    return Bias(max(0.0, _timed_ns() - bare_ns), max(0.0, _loop_ns(hooked) - bare_ns))


def _nothing(first: Any) -> bool:
    return True


def _timed_ns() -> float:
    least = 0
    for _ in range(CALIBRATION_LOOPS):
        sample = Sample(_nothing, None)
        timed = sample.switch(True, 0)[0]
        assert timed is not None
        for number in range(CALIBRATION_CALLS):
            timed(number)
        least = min(least or sample.spent_ns, sample.spent_ns)
    return least / CALIBRATION_CALLS


def _loop_ns(function: Callable[..., Any]) -> float:
    least = 0
    for _ in range(CALIBRATION_LOOPS):
        began = perf_counter_ns()
        for number in range(CALIBRATION_CALLS):
            function(number)
        took = perf_counter_ns() - began
        least = min(least or took, took)
    return least / CALIBRATION_CALLS
