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


def clocked(name: str, handler: Callable[..., Any] | None) -> Callable[..., Any] | None:
    """The handler with the test's clock around it."""
    if handler is None:
        return None

    def run(*values: Any) -> Any:
        began = time.perf_counter_ns()
        try:
            return handler(*values)
        finally:
            spent_ns[name] += time.perf_counter_ns() - began

    return run


def main() -> None:
    """Run it."""
    import drive

    from profilemate.probe import cost, install

    cost.SAMPLE_EVERY = SAMPLE_EVERY
    real = install.tracker_hooks
    install.tracker_hooks = lambda tracker: tuple(
        hook._replace(before=clocked(hook.name, hook.before), after=clocked(hook.name, hook.after))
        for hook in real(tracker)
    )
    install.begin()
    drive.run(drive.parse(sys.argv[2:]))
    Path(sys.argv[1]).write_text(json.dumps(spent_ns))


if __name__ == "__main__":
    main()
