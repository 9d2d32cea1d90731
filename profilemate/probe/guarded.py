"""The guard of functions of a tracker that are no handlers of a hook: what one of them raises stays its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from profilemate.probe.hook import FAILURES_BEFORE_OFF, error_text
from profilemate.probe.process import THIS


class Guarded:
    """Calls a function until it has failed five times; the first and the last time are told in process.json's warnings.

    Without it a failure would count for the hook that happens to flush, and switch that one off for every tracker.
    """

    __slots__ = ("failures", "function", "what")

    def __init__(self, tracker: str, name: str, function: Callable[..., Any]) -> None:
        """`function` is what a tracker calls `name`."""
        self.what = f"tracker {tracker}: {name}"
        self.function = function
        self.failures = 0

    def __call__(self, *arguments: Any) -> None:
        """Call it, unless it is off. Raises nothing."""
        if self.failures >= FAILURES_BEFORE_OFF:
            return
        try:
            self.function(*arguments)
        except Exception as error:
            self.failures += 1
            if self.failures in (1, FAILURES_BEFORE_OFF):
                off = "is off" if self.failures > 1 else "failed"
                THIS.warnings.append(f"{self.what} {off}: {error_text(error)}")
                THIS.dirty = True
