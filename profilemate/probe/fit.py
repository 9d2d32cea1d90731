"""Which hooks fit the vLLM that is installed, found by importing their targets. For `profilemate doctor` and tests."""

from __future__ import annotations

import os
from importlib import import_module
from typing import NamedTuple

from profilemate.probe import engine_step, user_tracker
from profilemate.probe.hook import Hook, error_text, misfit
from profilemate.probe.install import is_optional, probe_hooks, tracker_hooks
from profilemate.probe.settings import is_users, load
from profilemate.trackers import NAMES


class HookFit(NamedTuple):
    """One hook against the installed vLLM. `fits` is also true where this version rightly has no such target."""

    name: str
    tracker: str
    target: str
    fits: bool
    reason: str


def all_hooks() -> list[Hook]:
    """The hooks of the probe and of every tracker, on or off; one that several trackers need is there once."""
    found: dict[str, Hook] = {}
    for hook in (*probe_hooks(), *(hook for name in NAMES for hook in tracker_hooks(name)), engine_step.STEP_END):
        found.setdefault(hook.name, hook)
    return list(found.values())


def fit_report() -> list[HookFit]:
    """Import every target module and try every hook, without putting one in. Slow: it imports torch and vLLM."""
    hooks = all_hooks()
    users, refused = _users_hooks({hook.name for hook in hooks})
    return [*refused, *(_fit(hook) for hook in [*hooks, *users])]


def _users_hooks(taken: set[str]) -> tuple[list[Hook], list[HookFit]]:
    """The hooks of the user's own trackers, as the environment names them, and those that cannot be loaded."""
    hooks: list[Hook] = []
    refused: list[HookFit] = []
    for word in filter(is_users, load(os.environ).trackers):
        name = user_tracker.name_of(word)
        try:
            hooks += user_tracker.load(word, taken | {hook.name for hook in hooks}).hooks
        except (Exception, SystemExit) as error:
            refused.append(HookFit(name, name, word, False, error_text(error, may_quote=True)))
    return hooks, refused


def _fit(hook: Hook) -> HookFit:
    try:
        reason = misfit(hook, import_module(hook.module))
    except Exception as error:
        reason = f"absent: {hook.module} cannot be imported: {type(error).__name__}: {error}"
    fits = not reason or (reason.startswith("absent") and is_optional(hook))
    return HookFit(hook.name, hook.tracker, f"{hook.module}:{hook.target}", fits, reason)
