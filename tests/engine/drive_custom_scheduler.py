"""Drive a scheduler of the user's own, as `--scheduler-cls` gives it, over vLLM's pool and manager.

    drive_custom_scheduler.py KIND [arguments of the scheduler driver]

After the driver's line it prints how many rows wait in memory. A user who overrides without super() pastes vLLM's code:
here that is a second copy of vLLM's module, whose classes nobody has hooked.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "driver"))


def pasted(module: Any) -> Any:
    """A second copy of a module."""
    spec = importlib.util.spec_from_file_location("pasted_scheduler", module.__file__)
    assert spec is not None and spec.loader is not None
    copy = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = copy
    spec.loader.exec_module(copy)
    return copy


def calls_super(module: Any) -> type:
    """Overrides both methods of a step, and calls vLLM's."""

    class Scheduler(module.Scheduler):  # type: ignore[misc]
        def schedule(self, *args: Any, **kwargs: Any) -> Any:
            return super().schedule(*args, **kwargs)

        def update_from_output(self, scheduler_output: Any, model_runner_output: Any) -> Any:
            return super().update_from_output(scheduler_output, model_runner_output)

    return Scheduler


def own_schedule(module: Any) -> type:
    """Chooses batches by code of its own."""
    return type("Scheduler", (module.Scheduler,), {"schedule": pasted(module).Scheduler.schedule})


def own_update(module: Any) -> type:
    """Takes in outputs by code of its own."""
    return type("Scheduler", (module.Scheduler,), {"update_from_output": pasted(module).Scheduler.update_from_output})


def no_subclass(module: Any) -> type:
    """Has nothing of vLLM's Scheduler but its interface."""
    return type("Scheduler", (pasted(module).Scheduler,), {})


KINDS = {kind.__name__: kind for kind in (calls_super, own_schedule, own_update, no_subclass)}


def main() -> int:
    """Run the driver with the scheduler that was asked for."""
    import drive
    from vllm.v1.core.sched import scheduler as module

    module.Scheduler = KINDS[sys.argv[1]](module)
    code = drive.main(sys.argv[2:])
    process = sys.modules.get("profilemate.probe.process")
    streams = process.THIS.writer.streams if process else {}
    print(json.dumps({name: len(stream.pending) for name, stream in streams.items()}))
    return code


if __name__ == "__main__":
    sys.exit(main())
