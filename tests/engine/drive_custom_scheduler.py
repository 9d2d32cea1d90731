"""Drive schedulers of the user's own, as `--scheduler-cls` gives them, over vLLM's pool and manager.

    drive_custom_scheduler.py FOLDER [arguments of the scheduler driver]

Each kind runs in a child of its own, which starts ProfileMate and leaves its sessions, the oracle's result and its own in
FOLDER. A user who overrides without super() pastes vLLM's code: here that is a second copy of vLLM's module, whose classes
nobody has hooked.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "driver")]


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


def run(kind: str, folder: Path, arguments: list[str]) -> None:
    """One kind, in this process."""
    import drive
    from vllm.v1.core.sched import scheduler as module

    from profilemate.probe import install
    from profilemate.probe.process import THIS

    os.environ["PROFILEMATE_DIR"] = str(folder / kind)
    install.begin()
    setattr(module, "Scheduler", KINDS[kind](module))  # noqa: B010  mypy would not assign to a class
    summary, watcher = drive.run(drive.parse([*arguments, "--oracle", "here"]))
    assert watcher is not None
    watcher.write(folder / f"{kind}.oracle.json")
    waiting = {name: len(stream.pending) for name, stream in THIS.writer.streams.items()}
    (folder / f"{kind}.json").write_text(json.dumps({"summary": summary, "waiting": waiting}))


def main() -> int:
    """Import vLLM once, then fork a child for each kind; the number of those that failed."""
    folder, arguments = Path(sys.argv[1]), sys.argv[2:]
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    import_module("vllm.engine.arg_utils")
    import_module("vllm.v1.core.sched.scheduler")
    failed = 0
    for kind in KINDS:
        child = os.fork()
        if child == 0:
            try:
                run(kind, folder, arguments)
                os._exit(0)
            except BaseException:
                sys.excepthook(*sys.exc_info())
                os._exit(1)
        failed += os.waitpid(child, 0)[1] != 0
    return failed


if __name__ == "__main__":
    sys.exit(main())
