"""Drive vLLM's scheduler with a clock of the test's around every handler of every call, beside ProfileMate's sample.

    drive_own_cost.py OUT.json [driver arguments]

Writes the nanoseconds that the handlers of each hook took, all calls counted.
"""

from __future__ import annotations

import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "driver")]
SAMPLE_EVERY = 5
"""Often enough that a short run has some hundred timed steps."""

spent_ns: dict[str, int] = defaultdict(int)
sampling_ns = [0]
"""Time in the sampler, which runs inside a handler: every 5 steps here and every 199 in a server."""


def clocked(name: str, handler: Callable[..., Any] | None) -> Callable[..., Any] | None:
    """The handler with the test's clock around it."""
    if handler is None:
        return None

    def run(*values: Any) -> Any:
        began = time.perf_counter_ns() - sampling_ns[0]
        try:
            return handler(*values)
        finally:
            spent_ns[name] += time.perf_counter_ns() - sampling_ns[0] - began

    return run


def sampling(turn: Callable[..., int]) -> Callable[..., int]:
    """The sampler's own work with a clock of its own."""

    def run(*values: Any) -> int:
        began = time.perf_counter_ns()
        result = turn(*values)
        sampling_ns[0] += time.perf_counter_ns() - began
        return result

    return run


def with_clock(hook: Any) -> Any:
    """The hook with both handlers clocked."""
    return hook._replace(before=clocked(hook.name, hook.before), after=clocked(hook.name, hook.after))


def main() -> None:
    """Run it."""
    import drive

    from profilemate.probe import cost, engine_step, install

    cost.SAMPLE_EVERY = SAMPLE_EVERY
    of_tracker, of_step = install.tracker_hooks, engine_step.hooks
    install.tracker_hooks = lambda tracker: tuple(map(with_clock, of_tracker(tracker)))
    engine_step.hooks = lambda: tuple(map(with_clock, of_step()))
    install.sampler.turn = sampling(install.sampler.turn)  # type: ignore[method-assign]
    install.begin()
    drive.run(drive.parse(sys.argv[2:]))
    Path(sys.argv[1]).write_text(json.dumps(spent_ns))


if __name__ == "__main__":
    main()
