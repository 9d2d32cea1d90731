"""In a process with one vLLM version on its path and ProfileMate on: drive it, and write down what the truth is.

    drive_version.py OUT.json

What ProfileMate recorded lies in its session; `compat/check.py` holds the two against each other.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any


def attempt(work: Callable[[], Any]) -> tuple[Any, str]:
    """The result, and the last line of what went wrong."""
    try:
        return work(), ""
    except Exception as error:
        traceback.print_exc()
        return None, f"{type(error).__name__}: {error}"[:300]


def scheduler_truth() -> dict[str, Any]:
    """Counts of a whole trace through this version's scheduler."""
    from compat import drive_scheduler
    from compat.pool_truth import PoolTruth

    truth, counts = drive_scheduler.run(PoolTruth)
    assert counts.pop("requests") == counts.pop("finished") == drive_scheduler.REQUESTS
    return {**truth.counts, **counts}


def in_pass(call: Callable[[], Any]) -> Any:
    """A serving forward pass of the main model around a call, told by the functions that the hooks on a runner call."""
    from profilemate.trackers.forward_passes import runners
    from profilemate.trackers.forward_passes.recorder import FORWARD

    cached = SimpleNamespace(req_ids=["a"], num_output_tokens=[1])
    scheduled = SimpleNamespace(
        num_scheduled_tokens={"a": 8}, total_num_scheduled_tokens=8, scheduled_new_reqs=[], scheduled_cached_reqs=cached
    )
    began_ns = runners.execute_begins(scheduled)
    FORWARD.descriptor = ("FULL", 8, 8, True, False, 0, None, None, None)
    FORWARD.dispatched(8, 1)
    FORWARD.begin()
    result = call()
    FORWARD.end()
    runners.execute_ends(began_ns, None, scheduled)
    return result


def graph_truth() -> dict[str, Any]:
    """Replays that the graph driver saw, by holder; a holder that this version lacks is named so."""
    from compat import drive_graphs, drive_scheduler
    from profilemate.probe import install

    driver = drive_graphs.Driver()
    install.install_late_hooks()
    config = drive_scheduler.make_config(1024)
    found = {}
    for name, drive in drive_graphs.HOLDERS.items():
        before = driver.replays
        state, failed = attempt(lambda drive=drive: drive(config, in_pass))
        found[name] = {"state": state or "", "failed": failed, "replays": driver.replays - before}
    return found


def fits() -> dict[str, str]:
    """Why each hook does not go in, empty if it does; a module that cannot be imported here is named so."""
    from profilemate.probe import fit, hook, install

    found = {}
    for one in fit.all_hooks():
        if not one.module.startswith("vllm"):
            continue
        module, failed = attempt(lambda one=one: import_module(one.module))
        state = install.states.get(one.name)
        is_in = state is not None and state.state == "put_in"
        found[one.name] = f"not imported: {failed}" if failed else "" if is_in else hook.misfit(one, module)
    return found


def main() -> None:
    """Run all of it; a part that fails does not keep the others back."""
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    scheduler, scheduler_failed = attempt(scheduler_truth)
    graphs, graphs_failed = attempt(graph_truth)
    import vllm

    result = {
        "vllm": str(Path(vllm.__file__).parent), "scheduler": scheduler, "scheduler_failed": scheduler_failed,
        "graphs": graphs, "graphs_failed": graphs_failed, "fits": fits(),
    }  # fmt: skip
    Path(sys.argv[1]).write_text(json.dumps(result))


if __name__ == "__main__":
    main()
