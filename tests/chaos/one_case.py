"""One case of chaos in this process: ProfileMate's hooks go in changed, something runs, and they come out again."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any


def is_ours(function: Any) -> bool:
    """Whether it is a wrapper of ours, as where two hooks share a target."""
    return hasattr(function, "profilemate_hook")


def run(change: Callable[[Any], Any], work: Callable[[], Any]) -> dict[str, Any]:
    """What `work` gave under changed hooks, the state of every hook, and whether all originals are back."""
    from profilemate.probe import install
    from profilemate.trackers import NAMES

    for tracker in NAMES:  # what an earlier case left in the trackers' memory is not this one's
        import_module(f"profilemate.trackers.{tracker}.hooks").after_fork()
    probe_hooks, tracker_hooks = install.probe_hooks, install.tracker_hooks
    install.probe_hooks = lambda: tuple(change(hook) for hook in probe_hooks())
    install.tracker_hooks = lambda tracker: tuple(change(hook) for hook in tracker_hooks(tracker))
    try:
        install.begin()
        install.install_late_hooks()
        worked = work()
    finally:
        install.probe_hooks, install.tracker_hooks = probe_hooks, tracker_hooks
    states = {
        name: {"state": state.state, "calls": state.calls, "failures": state.failures, "reason": state.reason}
        for name, state in install.states.items()
    }
    undone = [(place.owner, place.name, place.original) for state in install.states.values() for place in state.places]
    originals = {(id(owner), name): original for owner, name, original in undone if not is_ours(original)}
    install.remove_all()
    restored = all(vars(owner)[name] is originals[id(owner), name] for owner, name, _ in undone)
    return {"worked": worked, "states": states, "hooks": len(undone), "restored": restored}
