"""A hook: where it goes, what runs before and after the original, and the guard around both.

The original is called exactly once, outside every `try` of ours, with the arguments that it was given; its result and its
exception are the caller's. A handler that fails five times is switched off for this process.
"""

from __future__ import annotations

import inspect
import sys
import traceback
from collections.abc import Callable
from typing import Any, NamedTuple

FAILURES_BEFORE_OFF = 5
FAILED = object()
"""Token of a `before` that raised: its `after` is left out."""


class Argument:
    """One parameter of a hooked function, read by name whatever way the caller passes it."""

    __slots__ = ("default", "index", "name")

    def __init__(self, name: str) -> None:
        """Name the parameter; `bind` finds its place."""
        self.name = name
        self.index = sys.maxsize
        self.default: Any = None

    def bind(self, signature: inspect.Signature) -> bool:
        """Find the parameter in a signature; False if it has none of this name."""
        for index, parameter in enumerate(signature.parameters.values()):
            if parameter.name == self.name:
                keyword_only = parameter.kind is inspect.Parameter.KEYWORD_ONLY
                self.index = sys.maxsize if keyword_only else index
                self.default = None if parameter.default is inspect.Parameter.empty else parameter.default
                return True
        return False

    def of(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The value in one call."""
        if self.index < len(args):
            return args[self.index]
        return kwargs.get(self.name, self.default)


class Hook(NamedTuple):
    """One place in vLLM (or torch) that a tracker watches.

    `wrap` is one of the functions below. `before(args, kwargs)` returns a token; `after(token, result, args, kwargs)`
    takes it. `late` hooks go in when the worker has chosen its device, since platforms replace torch's classes until then.
    `optional` says that some vLLM versions have no such target, which is then no fault.
    """

    name: str
    tracker: str
    module: str
    target: str
    wrap: Callable[..., Callable[..., Any]]
    before: Callable[..., Any] | None = None
    after: Callable[..., Any] | None = None
    arguments: tuple[Argument, ...] = ()
    late: bool = False
    optional: bool = False
    unless: str = ""
    """Another target of the module that makes this hook needless where it exists."""


class HookState:
    """What became of one hook in this process."""

    __slots__ = ("calls", "failures", "hook", "live", "reason", "reported_calls", "reported_failures", "state", "undo")

    def __init__(self, hook: Hook) -> None:
        """A hook whose module has not been imported yet."""
        self.hook = hook
        self.state = "waiting"
        self.reason = ""
        self.calls = 0
        self.failures = 0
        self.live = False
        self.reported_calls = 0
        self.reported_failures = 0
        self.undo: tuple[Any, str, Any] | None = None

    def fail(self) -> None:
        """Count an exception of our own code; call it inside the `except` clause."""
        self.failures += 1
        if self.failures == FAILURES_BEFORE_OFF:
            self.live = False
            self.state = "switched_off"
        if self.failures <= FAILURES_BEFORE_OFF:
            self.reason = traceback.format_exc(limit=-3).replace("\n", " | ")[-600:]

    def forget_calls(self) -> None:
        """Start counting anew: a forked child does not repeat its parent's numbers."""
        self.calls = self.failures = self.reported_calls = self.reported_failures = 0


def around(original: Callable[..., Any], state: HookState) -> Callable[..., Any]:
    """Run `before`, the original, `after`."""
    before, after = state.hook.before, state.hook.after
    assert before is not None and after is not None

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        state.calls += 1
        token = FAILED
        if state.live:
            try:
                token = before(args, kwargs)
            except Exception:
                state.fail()
        result = original(*args, **kwargs)
        if token is not FAILED:
            try:
                after(token, result, args, kwargs)
            except Exception:
                state.fail()
        return result

    return wrapper


def ahead(original: Callable[..., Any], state: HookState) -> Callable[..., Any]:
    """Run `before`, then the original."""
    before = state.hook.before
    assert before is not None

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        state.calls += 1
        if state.live:
            try:
                before(args, kwargs)
            except Exception:
                state.fail()
        return original(*args, **kwargs)

    return wrapper


def following(original: Callable[..., Any], state: HookState) -> Callable[..., Any]:
    """Run the original, then `after`.

    The two variants below repeat this shape instead of taking a predicate: a call more per block or per request and step
    is what they are there to save.
    """
    after = state.hook.after
    assert after is not None

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        state.calls += 1
        result = original(*args, **kwargs)
        if state.live:
            try:
                after(None, result, args, kwargs)
            except Exception:
                state.fail()
        return result

    return wrapper


def following_true(original: Callable[..., Any], state: HookState) -> Callable[..., Any]:
    """Run the original, then `after` if its result is true: for targets called once per block."""
    after = state.hook.after
    assert after is not None

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        state.calls += 1
        result = original(*args, **kwargs)
        if result and state.live:
            try:
                after(None, result, args, kwargs)
            except Exception:
                state.fail()
        return result

    return wrapper


def following_none(original: Callable[..., Any], state: HookState) -> Callable[..., Any]:
    """Run the original, then `after` if its result is None: for targets called once per request and step."""
    after = state.hook.after
    assert after is not None

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        state.calls += 1
        result = original(*args, **kwargs)
        if result is None and state.live:
            try:
                after(None, result, args, kwargs)
            except Exception:
                state.fail()
        return result

    return wrapper


class _Scope:
    """Runs `after` when the original returns or raises; an exception passes through untouched."""

    __slots__ = ("kwargs_args", "state", "token")

    def __init__(self, state: HookState, token: Any, kwargs_args: tuple[Any, Any]) -> None:
        self.state = state
        self.token = token
        self.kwargs_args = kwargs_args

    def __enter__(self) -> None:
        return None

    def __exit__(self, *exception: object) -> None:
        after = self.state.hook.after
        assert after is not None
        try:
            after(self.token, None, *self.kwargs_args)
        except Exception:
            self.state.fail()


def scope(original: Callable[..., Any], state: HookState) -> Callable[..., Any]:
    """Run `before`, the original, and `after` even if the original raises: for phases that must end as they began."""
    before = state.hook.before
    assert before is not None

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        state.calls += 1
        token = FAILED
        if state.live:
            try:
                token = before(args, kwargs)
            except Exception:
                state.fail()
        if token is FAILED:
            return original(*args, **kwargs)
        with _Scope(state, token, (args, kwargs)):
            return original(*args, **kwargs)

    return wrapper


def around_iterable(original: Callable[..., Any], state: HookState) -> Callable[..., Any]:
    """As `around`, for a method whose first argument may be a one-shot iterator.

    It becomes a list, outside our `try`, and that list is what the original gets and what `before` and `after` see.
    """
    before, after = state.hook.before, state.hook.after
    argument = state.hook.arguments[0]
    assert before is not None and after is not None

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        state.calls += 1
        if len(args) > argument.index:
            items = list(args[argument.index])
            args = (*args[: argument.index], items, *args[argument.index + 1 :])
        elif argument.name in kwargs:
            items = kwargs[argument.name] = list(kwargs[argument.name])
        else:
            return original(*args, **kwargs)
        token = FAILED
        if state.live:
            try:
                token = before(args, items)
            except Exception:
                state.fail()
        result = original(*args, **kwargs)
        if token is not FAILED:
            try:
                after(token, result, args, items)
            except Exception:
                state.fail()
        return result

    return wrapper


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
    if not hook.arguments:
        return ""
    signature = inspect.signature(found)
    missing = [argument.name for argument in hook.arguments if not argument.bind(signature)]
    return f"does not fit: {hook.target} has no parameter {', '.join(missing)}" if missing else ""


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
    if getattr(original, "profilemate_hook", None) == hook.name:
        return
    wrapper = hook.wrap(original, state)
    disguise(wrapper, original, hook.name)
    setattr(owner, name, wrapper)
    state.undo = (owner, name, original)
    state.state, state.reason, state.live = "put_in", "", True


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
    state.live = False
    if state.undo is None:
        return
    owner, name, original = state.undo
    if getattr(vars(owner).get(name), "profilemate_hook", None) == state.hook.name:
        setattr(owner, name, original)
        state.undo = None
    state.state = "taken_out"
