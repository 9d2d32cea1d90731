"""Device time of sampled forward passes: CUDA event pairs, recorded around the pass and read some steps later.

Nothing waits: a pair whose end event has not been reached is asked again at a later step. Events are only used while
serving, when no stream captures.
"""

from __future__ import annotations

import sys
from collections import deque
from typing import Any

MOST_PAIRS = 64
NS_PER_MS = 1_000_000


class DeviceClock:
    """A bounded set of event pairs. Without a CUDA device it never samples."""

    def __init__(self) -> None:
        """The device is asked for at the first pass."""
        self.forget()

    def forget(self) -> None:
        """For a forked child: events belong to the parent's device context."""
        self._event_class: Any = None
        self._asked = False
        self._free: list[tuple[Any, Any]] = []
        self._made = 0
        self._running: tuple[Any, Any] | None = None
        self.waiting: deque[tuple[int, Any, Any]] = deque()

    def start(self) -> bool:
        """Record the first event of a pass; False where there is no device or no pair left."""
        if self._running is not None:  # that pass raised
            self._free.append(self._running)
            self._running = None
        if not self._has_device():
            return False
        pair = self._pair()
        if pair is None:
            return False
        pair[0].record()
        self._running = pair
        return True

    def stop(self, forward: int) -> None:
        """Record the second event of a sampled pass."""
        if self._running is not None:
            self._running[1].record()
            self.waiting.append((forward, *self._running))
            self._running = None

    def read(self) -> list[tuple[int, int]]:
        """(forward, device nanoseconds) of the passes that the device has finished since the last call."""
        done = []
        while self.waiting and self.waiting[0][2].query():
            forward, first, last = self.waiting.popleft()
            done.append((forward, round(first.elapsed_time(last) * NS_PER_MS)))
            self._free.append((first, last))
        return done

    def _has_device(self) -> bool:
        if not self._asked:
            self._asked = True
            cuda = getattr(sys.modules.get("torch"), "cuda", None)
            if cuda is not None and cuda.is_available():
                self._event_class = cuda.Event
        return self._event_class is not None

    def _pair(self) -> tuple[Any, Any] | None:
        if self._free:
            return self._free.pop()
        if self._made >= MOST_PAIRS:
            return None
        self._made += 1
        return self._event_class(enable_timing=True), self._event_class(enable_timing=True)


CLOCK = DeviceClock()
