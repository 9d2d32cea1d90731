"""The speed of the machine that the targets in microseconds were set on: what vLLM and Python take there without ProfileMate.

The targets came with bare scheduler steps of 258 to 278 us. The full run of 2026-11-25 (benchmarks/results.json of commit
a79b9d3: AMD EPYC, 2 cores, Linux 6.18.44) had 281, and its other bare medians stand here. Shared machines of the same name
are two to four times slower on other days, bare vLLM included, and a microsecond of theirs is not one of the targets'.
"""

from __future__ import annotations

from statistics import median
from typing import NamedTuple

PYTHON_START_MS = 17.045
SCHEDULER_STEP_US = 280.75
REPLAYING_CALL_US = 0.55097


class Yardstick(NamedTuple):
    """Work without ProfileMate, timed round by round beside a figure, and the time that it takes on the targets' machine."""

    what: str
    samples: list[float]
    reference: float

    @property
    def slowness(self) -> float:
        """How many times as long this machine takes. A faster one counts as equal: a target is never made smaller."""
        return max(1.0, median(self.samples) / self.reference)
