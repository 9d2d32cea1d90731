"""Which hooks fit the vLLM that is installed, found by importing their targets. For `profilemate doctor` and tests."""

from __future__ import annotations

from importlib import import_module
from typing import NamedTuple

from profilemate.probe import engine_step
from profilemate.probe.hook import Hook, misfit
from profilemate.probe.install import is_optional, probe_hooks, tracker_hooks
from profilemate.trackers import NAMES


class HookFit(NamedTuple):
    """One hook against the installed vLLM. `fits` is also true where this version rightly has no such target."""

    name: str
    tracker: str
    target: str
    fits: bool
    reason: str


def all_hooks() -> list[Hook]:
    """The hooks of the probe and of every tracker, on or off."""
    return [*probe_hooks(), *(hook for name in NAMES for hook in tracker_hooks(name)), engine_step.STEP_END]


def fit_report() -> list[HookFit]:
    """Import every target module and try every hook, without putting one in. Slow: it imports torch and vLLM."""
    return [_fit(hook) for hook in all_hooks()]


def _fit(hook: Hook) -> HookFit:
    try:
        reason = misfit(hook, import_module(hook.module))
    except Exception as error:
        reason = f"absent: {hook.module} cannot be imported: {type(error).__name__}: {error}"
    fits = not reason or (reason.startswith("absent") and is_optional(hook))
    return HookFit(hook.name, hook.tracker, f"{hook.module}:{hook.target}", fits, reason)
