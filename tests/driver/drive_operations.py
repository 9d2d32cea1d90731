"""The scheduler driver with a second clock around its two methods.

drive_operations.py OUT.json [--kill-after STEPS] ARGUMENTS OF drive.py
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "support")]
SCHEDULER = "vllm.v1.core.sched.scheduler"


def main() -> int:
    """Drive, and write down what the clocks saw."""
    import drive
    import operation_oracle

    out, arguments, kill_after = Path(sys.argv[1]), sys.argv[2:], 0
    if arguments[:1] == ["--kill-after"]:
        kill_after, arguments = int(arguments[1]), arguments[2:]
    import vllm.v1.core.sched.scheduler

    spans = operation_oracle.watch(
        {name: (SCHEDULER, f"Scheduler.{name}") for name in ("schedule", "update_from_output")}
    )
    scheduler: Any = vllm.v1.core.sched.scheduler.Scheduler
    update = scheduler.update_from_output

    def update_and_die(*args: Any) -> Any:
        result = update(*args)
        if kill_after and len(spans["update_from_output"]) == kill_after:
            out.write_text(json.dumps(spans))
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    scheduler.update_from_output = update_and_die
    code = drive.main(arguments)
    begins, ends = [began for began, _ in spans["schedule"]], [ended for _, ended in spans["update_from_output"]]
    step_seconds = operation_oracle.union(begins, ends) if len(begins) == len(ends) else None
    out.write_text(json.dumps({**spans, "step_seconds": step_seconds}))
    return code


if __name__ == "__main__":
    sys.exit(main())
