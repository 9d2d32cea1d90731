"""Drive vLLM's own scheduler once per hook with that hook's handlers made to raise, and once with all of them.

    chaos_drive.py OUT.json [driver arguments]

Writes, per case, the driver's tallies and the state of every hook. The case "" is the driver without ProfileMate.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "driver")]


class Chaos(Exception):
    """What our handlers raise here."""


def explode(*_: Any) -> Any:
    raise Chaos("made to fail")


def broken(hook: Any) -> Any:
    """The hook with its handlers replaced."""
    return hook._replace(before=hook.before and explode, after=hook.after and explode)


def is_ours(function: Any) -> bool:
    """Whether it is a wrapper of ours, as where two hooks share a target."""
    return hasattr(function, "profilemate_hook")


def main() -> None:
    """Run every case and write the results."""
    import drive

    from profilemate.probe import install

    out, arguments = Path(sys.argv[1]), sys.argv[2:]
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    real_probe, real_tracker = install.probe_hooks, install.tracker_hooks
    unmeasured = ("loop_cpu_s", "loop_wall_s")

    def one(case: str) -> dict[str, Any]:
        names = {case}

        def chosen(hooks: Any) -> Any:
            return tuple(broken(hook) if case == "all" or hook.name in names else hook for hook in hooks)

        install.probe_hooks = lambda: chosen(real_probe())
        install.tracker_hooks = lambda name: chosen(real_tracker(name))
        if case:
            install.begin()
        summary, _ = drive.run(drive.parse(arguments))
        states = {
            name: {"state": state.state, "calls": state.calls, "failures": state.failures, "reason": state.reason}
            for name, state in install.states.items()
        }
        undone = [state.undo for state in install.states.values() if state.undo]
        originals = {(id(owner), name): original for owner, name, original in undone if not is_ours(original)}
        if case:
            install.remove_all()
        restored = all(vars(owner)[name] is originals[id(owner), name] for owner, name, _ in undone)
        kept = {k: v for k, v in summary.items() if k not in unmeasured}
        return {"summary": kept, "states": states, "hooks": len(undone), "restored": restored}

    results = {"": one("")}
    results["none"] = one("none")
    for name, state in results["none"]["states"].items():
        if state["calls"]:
            results[name] = one(name)
    results["all"] = one("all")
    out.write_text(json.dumps(results))


if __name__ == "__main__":
    main()
