"""Each handler takes what the wrapper of its hook hands it: one that does not fails at every call, far from any test."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest

from profilemate.probe import engine_step, install
from profilemate.probe.hook import (
    AROUND,
    AROUND_LISTED,
    FOLLOWING,
    FOLLOWING_NONE,
    FOLLOWING_TRUE,
    NOTING_TRUE,
    SCOPE,
    Hook,
)
from profilemate.trackers import NAMES

HANDED_BEFORE_ARGUMENTS = {
    AROUND: 2, AROUND_LISTED: 2, FOLLOWING: 1, FOLLOWING_TRUE: 1, FOLLOWING_NONE: 1, NOTING_TRUE: 0, SCOPE: 1,
}  # fmt: skip
"""How many values an `after` gets before the hook's own arguments: token, result, one of them, or none."""


def all_hooks() -> dict[str, Hook]:
    """Every hook, as it comes with its trackers."""
    groups = [*map(install.tracker_hooks, NAMES), install.probe_hooks(), engine_step.hooks()]
    return {hook.name: hook for group in groups for hook in group}


HOOKS = all_hooks()


def takes(handler: Callable[..., Any], count: int) -> bool:
    """Whether it can be called with so many values; true of a C function that does not tell."""
    try:
        signature = inspect.signature(handler)
    except ValueError:
        return True
    try:
        signature.bind(*range(count))
    except TypeError:
        return False
    return True


def test_there_are_hooks() -> None:
    assert len(HOOKS) > 40 and {hook.kind for hook in HOOKS.values()} >= {AROUND, FOLLOWING, SCOPE}


@pytest.mark.parametrize("name", sorted(HOOKS))
def test_its_handlers_take_what_they_are_handed(name: str) -> None:
    hook = HOOKS[name]
    own = len(hook.arguments)
    if hook.before is not None:
        assert takes(hook.before, own)
    if hook.after is not None:
        assert takes(hook.after, HANDED_BEFORE_ARGUMENTS[hook.kind] + own)
