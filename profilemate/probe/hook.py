"""A hook: where it goes, what runs before and after the original, and what became of it.

A handler that fails five times is switched off for this process.
"""

from __future__ import annotations

import inspect
import re
import sys
import traceback
from collections.abc import Callable
from typing import Any, NamedTuple

from profilemate.probe.cost import Sample
from profilemate.probe.wrapper import (
    AHEAD,
    AROUND,
    AROUND_LISTED,
    FOLLOWING,
    FOLLOWING_NONE,
    FOLLOWING_TRUE,
    NOTING_TRUE,
    SCOPE,
    SELF,
    Kind,
    Wrapper,
    missing,
    source_name,
    wrap,
)

__all__ = [
    "AHEAD",
    "AROUND",
    "AROUND_LISTED",
    "FOLLOWING",
    "FOLLOWING_NONE",
    "FOLLOWING_TRUE",
    "NOTING_TRUE",
    "SCOPE",
    "SELF",
    "Hook",
    "HookState",
]

FAILURES_BEFORE_OFF = 5
RETURNS_EARLY = inspect.CO_COROUTINE | inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR


class Hook(NamedTuple):
    """One place in vLLM (or torch) that a tracker watches.

    `kind` is one of the constants above and says how the handlers are called. `arguments` are names of the target's
    parameters whose values the handlers get; SELF is the first one. `late` hooks go in when the worker has chosen its
    device, since platforms replace torch's classes until then. `optional` says that some vLLM versions have no such
    target, which is then no fault.
    """

    name: str
    tracker: str
    module: str
    target: str
    kind: Kind
    before: Callable[..., Any] | None = None
    after: Callable[..., Any] | None = None
    arguments: tuple[str, ...] = ()
    late: bool = False
    optional: bool = False
    unless: str = ""
    """Another target of the module that makes this hook needless where it exists."""


class Place(NamedTuple):
    """Where a wrapper stands, and what stood there before."""

    owner: Any
    name: str
    original: Any
    wrapper: Wrapper

    @property
    def is_ours(self) -> bool:
        """Whether the wrapper is still there, and not somebody else's around it."""
        return vars(self.owner).get(self.name) is self.wrapper.function


class HookState:
    """What became of one hook in this process. It has several places if its module was loaded anew."""

    __slots__ = ("failures", "hook", "on_failure", "places", "reason", "reported", "sample", "state")

    def __init__(self, hook: Hook, on_failure: Callable[[HookState], None] = lambda state: None) -> None:
        """A hook whose module has not been imported yet. `on_failure` must not raise."""
        self.on_failure = on_failure
        self.hook = hook
        self.state = "waiting"
        self.reason = ""
        self.failures = 0
        self.reported: tuple[int, int] = (0, 0)
        self.places: list[Place] = []
        self.sample = Sample(hook.before, hook.after)

    @property
    def calls(self) -> int:
        """How often the target was called."""
        return sum(place.wrapper.calls() for place in self.places)

    @property
    def counts(self) -> tuple[int, int]:
        """Calls and failures."""
        return self.calls, self.failures

    def fail(self) -> None:
        """Count an exception of our own code; call it inside the `except` clause."""
        self.failures += 1
        if self.failures == FAILURES_BEFORE_OFF:
            self.quiet()
            self.state = "switched_off"
        if self.failures <= FAILURES_BEFORE_OFF or not self.reason:
            self.reason = _description()
            self.on_failure(self)

    def quiet(self) -> None:
        """Run no handler any more."""
        for place in self.places:
            place.wrapper.set_live(False)

    def sample_calls(self, on: bool) -> None:
        """Time the handlers of every call from here on, or of none."""
        if self.places:
            handlers = self.sample.switch(on, self.calls)
            for place in self.places:
                place.wrapper.use(*handlers)

    def forget_calls(self) -> None:
        """Start counting anew: a forked child does not repeat its parent's numbers."""
        self.failures = 0
        self.reported = (0, 0)
        self.sample.forget()
        for place in self.places:
            place.wrapper.forget_calls()

    def is_in(self, module: Any) -> bool:
        """Whether the target of this module, which may have been loaded anew, is wrapped."""
        try:
            owner, name = owner_and_name(module, self.hook.target)
        except AttributeError:
            return False
        return any(place.owner is owner and place.name == name for place in self.places)


def _description() -> str:
    """The exception being handled, in one line; at the end of the stack there may be no room for more than its name."""
    error = sys.exc_info()[1]
    try:
        lines = [] if error is None else traceback.format_tb(error.__traceback__, limit=-3)
        return " | ".join([*"".join(lines).splitlines(), error_text(error)])[-600:]
    except Exception:
        return type(error).__name__


LONGEST_ERROR = 400
QUOTED = re.compile(r"""(["'])(?:\\.|(?!\1).)*(?:\1|$)""")


def error_text(error: BaseException | None, may_quote: bool = False) -> str:
    """An exception's kind and what it says, in one line of bounded length.

    What such as `KeyError: 'her-name-1'` quote may be a request's own, and is left out, unless no request has been seen yet.
    """
    try:
        says = " ".join(str(error).split())
    except Exception:
        says = "<exception str() failed>"  # in the words of the standard library's traceback
    if isinstance(error, (LookupError, ValueError)) and not may_quote:
        says = QUOTED.sub("'...'", says)
    return f"{type(error).__name__}: {says}"[:LONGEST_ERROR]


def owner_and_name(module: Any, target: str) -> tuple[Any, str]:
    """The class or module that holds the target, and the attribute's name. Raises AttributeError."""
    *path, name = target.split(".")
    owner = module
    for part in path:
        owner = getattr(owner, part)
    return owner, name


def _exists(module: Any, target: str) -> bool:
    try:
        owner, name = owner_and_name(module, target)
    except AttributeError:
        return False
    return name in vars(owner)


def misfit(hook: Hook, module: Any) -> str:
    """Why a hook does not go into its imported module; empty if it does."""
    try:
        owner, name = owner_and_name(module, hook.target)
    except AttributeError as error:
        return f"absent: {error}"
    if hook.unless and _exists(module, hook.unless):
        return f"absent: not needed, {hook.unless} is there"
    if name not in vars(owner):
        return f"absent: {hook.target} is not defined in {hook.module}"
    found = vars(owner)[name]
    if not inspect.isfunction(found):
        return f"does not fit: {hook.target} is a {type(found).__name__}, not a function"
    if found.__code__.co_flags & RETURNS_EARLY:
        return f"does not fit: {hook.target} is a coroutine or generator, whose call returns before it has run"
    gone = missing(found, hook.arguments)
    return f"does not fit: {hook.target} has no parameter {', '.join(gone)}" if gone else ""


def put_in(state: HookState, module: Any) -> None:
    """Wrap the target, or note why not. Raises nothing that a misfit can cause."""
    hook = state.hook
    reason = misfit(hook, module)
    if reason:
        state.state = "absent" if reason.startswith("absent") else "does_not_fit"
        state.reason = reason
        return
    owner, name = owner_and_name(module, hook.target)
    original = vars(owner)[name]
    if is_wrapper_of(hook, original):
        return
    wrapper = wrap(original, hook.kind, hook.arguments, hook.before, hook.after, state.fail, hook.name)
    disguise(wrapper.function, original, hook.name)
    state.places.append(Place(owner, name, original, wrapper))
    state.sample_calls(state.sample.is_on or not state.calls)
    setattr(owner, name, wrapper.function)
    state.state, state.reason = "put_in", ""
    _order.append(state)


_order: list[HookState] = []
"""Hooks as they went in: where two share a target, the later one comes out first."""


def is_wrapper_of(hook: Hook, function: Any) -> bool:
    """Whether it is a wrapper of this hook itself; `functools.wraps` gives our mark to other people's as well."""
    marked = getattr(function, "profilemate_hook", None) == hook.name
    return marked and function.__code__.co_filename == source_name(hook.name)


def disguise(wrapper: Any, original: Any, hook_name: str) -> None:
    """Give the wrapper the original's name, doc and signature.

    `functools.wraps` would copy torch's `_torchdynamo_*` attributes too, which makes Dynamo bypass the wrapper.
    """
    for attribute in ("__module__", "__name__", "__qualname__", "__doc__"):
        setattr(wrapper, attribute, getattr(original, attribute, None))
    wrapper.__signature__ = inspect.signature(original)
    wrapper.profilemate_hook = hook_name


def take_out(state: HookState) -> None:
    """Put the original object back, unless someone wrapped the target after us: then ours only goes quiet."""
    state.quiet()
    if not state.places:
        return
    for place in reversed(state.places):
        if place.is_ours:
            setattr(place.owner, place.name, place.original)
    state.places = [place for place in state.places if vars(place.owner).get(place.name) is not place.original]
    state.state = "taken_out"


def take_out_all() -> None:
    """Every hook, the last one first."""
    while _order:
        take_out(_order.pop())
