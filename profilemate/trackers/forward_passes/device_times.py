"""Device times of sampled passes, joined with their rows."""

from __future__ import annotations

from collections.abc import Iterator

from profilemate.session.records import ProcessInfo
from profilemate.session.session import Session
from profilemate.session.stream import Row
from profilemate.trackers.forward_passes.events import LATENCIES

LARGEST_WINDOW = 10_000


class DeviceTimes:
    """Joins forward_latencies with rows of passes; both ascend by forward pass, so a small window is enough."""

    def __init__(self, rows: Iterator[Row]) -> None:
        """Nothing is read before the first question."""
        self._rows = rows
        self._window: dict[int, int] = {}
        self._reached = -1

    def of(self, forward: int) -> int | None:
        """Nanoseconds on the device of a forward pass; None if it was not sampled or not read."""
        while self._reached < forward and (row := next(self._rows, None)) is not None:
            self._reached = row[0]
            self._window[row[0]] = row[1]
        if len(self._window) > LARGEST_WINDOW:
            self._window = {number: value for number, value in self._window.items() if number >= forward}
        return self._window.pop(forward, None)


def has_device(session: Session, process: ProcessInfo) -> bool:
    """Whether host time is only the launch: the process timed a device, or its configuration names one."""
    device = str(process.engine_config.get("device", "")).partition(":")[0]
    return device in ("cuda", "xpu", "hip") or session.has_rows(process, LATENCIES)
