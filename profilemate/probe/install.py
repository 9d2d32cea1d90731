"""Second stage: collect the hooks of the trackers that are on, and put each in when its module is there."""

from __future__ import annotations

import atexit
import os
import sys
import time
from importlib import import_module
from typing import Any

from profilemate.probe import cost, engine_step, phase, user_tracker
from profilemate.probe.finder import TargetFinder
from profilemate.probe.guarded import Guarded
from profilemate.probe.hook import Hook, HookState, error_text, put_in, take_out_all
from profilemate.probe.pace import SHORTEST_PAUSE_NS, pause_ns
from profilemate.probe.process import THIS, tell
from profilemate.probe.settings import is_users, load, with_absolute_paths
from profilemate.schema.probe_tables import HEALTH
from profilemate.trackers import NAMES

states: dict[str, HookState] = {}
users: dict[str, user_tracker.UserTracker] = {}
refused: dict[str, str] = {}
"""Trackers of the user's that could not be loaded, and why."""

sampler = cost.Sampler()
_finder: TargetFinder | None = None
_next_health_ns = 0
_next_look_ns = 0


def tracker_module(name: str) -> str:
    """Name of the module with a tracker's hooks."""
    return f"profilemate.trackers.{name}.hooks"


def tracker_hooks(name: str) -> tuple[Hook, ...]:
    """The hooks of one tracker, from its folder."""
    return tuple(import_module(tracker_module(name)).HOOKS)


def probe_hooks() -> tuple[Hook, ...]:
    """The hooks that every session needs: process identity and phases."""
    modules = ("profilemate.probe.identity", "profilemate.probe.phase_hooks")
    return tuple(hook for name in modules for hook in import_module(name).HOOKS)


def begin(config: Any = None) -> None:
    """Start ProfileMate in this process. A second call, by whatever way in, does nothing."""
    global _finder
    if _finder is not None:
        return
    THIS.settings = load(os.environ, config)
    os.environ.update(with_absolute_paths(os.environ))  # for children that begin in another folder
    for hook in probe_hooks():
        states[hook.name] = HookState(hook, failure_noted)
    for tracker in THIS.settings.trackers:
        if is_users(tracker):
            add_user_tracker(tracker)
        else:
            add_tracker(tracker)
    for hook in engine_step.hooks():
        states[hook.name] = HookState(hook, failure_noted)
    THIS.cost_bias = cost.calibrate()
    THIS.turn_sampler = lambda: sampler.turn(states.values(), THIS.cost_bias)
    THIS.hook_records = hook_records
    THIS.at_flush.append(at_flush)
    THIS.writer.stream(HEALTH, detail=False)
    os.register_at_fork(after_in_child=after_fork)
    atexit.register(last_words)
    early = {state.hook.module for state in states.values() if not state.hook.late}
    _finder = TargetFinder(early, module_ready)
    sys.meta_path.insert(0, _finder)
    for name in early:
        module = sys.modules.get(name)
        if module is not None and not _is_importing(module):
            module_ready(name, module)


def add_tracker(tracker: str) -> None:
    """Load one tracker; if it cannot be loaded the others go on and process.json says so.

    Beside HOOKS and `after_fork` its hooks.py may have `before_flush(now_ns)`, called at every flush, `write_totals()`, called
    before rows are removed for the size cap, and `at_exit()`, called before the last flush where Python sees the exit.
    """
    try:
        for hook in tracker_hooks(tracker):
            states.setdefault(hook.name, HookState(hook, failure_noted))  # those that several trackers need go in once
        take_functions(tracker, sys.modules.get(tracker_module(tracker)))
    except Exception as error:
        THIS.warnings.append(f"tracker {tracker} is off: {type(error).__name__}: {error}")


def take_functions(tracker: str, module: Any) -> None:
    """Let a tracker's functions beside its hooks be called, each with a guard of its own."""
    for name, calls in (
        ("before_flush", THIS.at_flush),
        ("write_totals", THIS.writer.before_drop),
        ("at_exit", THIS.at_exit),
    ):
        function = getattr(module, name, None)
        if function is not None:
            calls.append(Guarded(tracker, name, function))


def add_user_tracker(word: str) -> None:
    """Load a file or module of the user's. One that cannot be used is off, with nothing of it left, and the records say why.

    `after_fork` and the functions of `add_tracker` are optional there.
    """
    try:
        tracker = users[word] = user_tracker.load(word, set(states))
        user_tracker.adopt(tracker)
    except (Exception, SystemExit) as error:
        refused[word] = error_text(error, may_quote=True)
        THIS.warnings.append(f"tracker {word} is off: {refused[word]}")
        return
    for hook in tracker.hooks:
        states[hook.name] = HookState(hook, failure_noted)
    take_functions(tracker.name, tracker.module)


def _is_importing(module: Any) -> bool:
    return bool(getattr(getattr(module, "__spec__", None), "_initializing", False))


def module_ready(name: str, module: Any) -> None:
    """Put in the hooks of a module that has just been imported. Never raises: vLLM's import stands."""
    for state in states.values():
        if state.hook.module == name and not state.hook.late and _is_wanted(state, module):
            install(state, module)


def _is_wanted(state: HookState, module: Any) -> bool:
    """Whether it is to go in now: for the first time, or again into a module that was loaded anew."""
    return state.state in ("waiting", "absent") or (state.state == "put_in" and not state.is_in(module))


def install_late_hooks() -> None:
    """Put in the hooks on torch, once the worker has its device. Idempotent."""
    for state in states.values():
        module = sys.modules.get(state.hook.module)
        if state.hook.late and state.state == "waiting" and module is not None:
            install(state, module)


def install(state: HookState, module: Any) -> None:
    """Put one hook in; whatever goes wrong is its reason."""
    try:
        put_in(state, module)
    except Exception as error:
        state.state, state.reason = "does_not_fit", f"{type(error).__name__}: {error}"
    THIS.dirty = True
    if THIS.settings.verbose and state.state != "put_in":
        tell(f"[profilemate] hook {state.hook.name}: {state.state}: {state.reason}")


def remove_all() -> None:
    """Restore every original object."""
    global _finder
    take_out_all()
    if _finder in sys.meta_path:
        sys.meta_path.remove(_finder)
    THIS.at_flush.clear()
    THIS.writer.before_drop.clear()
    THIS.at_exit.clear()
    atexit.unregister(last_words)
    states.clear()
    for tracker in users.values():
        sys.modules.pop(tracker.module.__name__, None)
    users.clear()
    refused.clear()
    sampler.forget()
    THIS.intervals_left = 0  # what is put in again begins with its first intervals
    _finder = None


def is_optional(hook: Hook) -> bool:
    """Whether some vLLM versions rightly have no such target."""
    return hook.optional or bool(hook.unless)


def failure_noted(state: HookState) -> None:
    """Say so at once: the hook that failed may be the one that flushes, and a process without a role never does.

    A hook does this five times at most.
    """
    try:
        THIS.dirty = True
        if THIS.folder:
            THIS.save()
        else:
            error = state.reason.rstrip(" |").rpartition(" | ")[2]
            tell(f"[profilemate] hook {state.hook.name} failed, call {state.calls}: {error}")
    except Exception:
        return


def hook_records() -> list[dict[str, Any]]:
    """State of every hook, for process.json; trackers that are off are listed as such."""
    records: list[dict[str, Any]] = [
        {
            "name": state.hook.name,
            "tracker": state.hook.tracker,
            "target": f"{state.hook.module}:{state.hook.target}",
            "state": "not_in_this_version" if state.state == "absent" and is_optional(state.hook) else state.state,
            "reason": state.reason,
            "failures": state.failures,
        }
        for state in states.values()
    ]
    for name in NAMES:
        if name not in THIS.settings.trackers:
            records.append(
                {"name": name, "tracker": name, "target": "", "state": "tracker_off", "reason": "by setting"}
            )
    for word, reason in refused.items():
        name = user_tracker.name_of(word)
        records.append({"name": name, "tracker": name, "target": word, "state": "does_not_fit", "reason": reason})
    return records


def at_flush(now_ns: int) -> None:
    """Once a second: report what was counted if it is time, and what was called for the first time in any case."""
    global _next_look_ns, _next_health_ns
    if now_ns < _next_look_ns:
        return
    _next_look_ns = now_ns + SHORTEST_PAUSE_NS
    if now_ns >= _next_health_ns:
        _next_health_ns = now_ns + pause_ns(now_ns - THIS.began_ns)
        report_health(now_ns, [state for state in states.values() if state.counts != state.reported])
    else:
        report_health(now_ns, [state for state in states.values() if not state.reported[0] and state.calls])


def report_health(now_ns: int, told: list[HookState]) -> None:
    """Queue a health row for each of these hooks."""
    add = THIS.writer.streams[HEALTH.name].add
    for state in told:
        counts = state.counts
        if counts[1] != state.reported[1]:
            THIS.dirty = True
        state.reported = counts
        add((now_ns, state.hook.name, state.state, *counts, *state.sample.counts(counts[0], THIS.cost_bias)))


def last_words() -> None:
    """At an exit that Python sees, the last counts: a convenience, since vLLM kills most of its processes."""
    global _next_look_ns, _next_health_ns
    if THIS.folder:
        _next_look_ns = _next_health_ns = 0
        for tell_last in THIS.at_exit:
            tell_last()
        THIS.ended_ns, THIS.dirty = time.monotonic_ns(), True
        THIS.flush()


def after_fork() -> None:
    """In a forked child: own files and numbers. Runs inside os.fork, so it must not raise."""
    global _next_look_ns, _next_health_ns
    try:
        _next_look_ns = _next_health_ns = 0
        phase.forget()
        sampler.forget()
        THIS.after_fork()
        engine_step.after_fork()
        for state in states.values():
            state.forget_calls()
            state.sample_calls(True)
        for tracker in THIS.settings.trackers:
            module = sys.modules.get(tracker_module(tracker))
            if module is not None:
                module.after_fork()
        for users_own in users.values():
            Guarded(users_own.name, "after_fork", getattr(users_own.module, "after_fork", list))()
    except Exception:
        THIS.off = True
