"""The function that stands in a target's place: it runs the handlers of a hook around the original.

It is made from source text with the target's own parameters, as the standard library makes the methods of data classes.
Passing `*args, **kwargs` on costs a call a tuple and a dict that passing the parameters by name does not, and vLLM 0.32
calls `allocate_slots` for every request of every step. A target that takes `*args` or `**kwargs` gets them as they came.

The original is called exactly once, outside every `try` of ours, with the arguments that it was given; its result and its
exception are the caller's.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

FAILED = object()
"""Token of a `before` that raised: its `after` is left out."""

SELF = "self"
"""Name by which a hook asks for the first parameter of its target, whatever that is called."""


class Kind(NamedTuple):
    """When handlers run. `body` is the source between the count of the call and the return; see the constants below."""

    body: str
    listed: bool = False
    """The first argument that the hook asks for may be a one-shot iterator: it becomes a list that all see."""


_BEFORE = """
pm_token = pm_failed
if pm_live:
    try:
        pm_token = pm_before({picks})
    except Exception:
        pm_fail()
"""

_AFTER = """
pm_result = pm_original({forward})
if {condition}:
    try:
        pm_after({head}pm_result, {picks})
    except Exception:
        pm_fail()
return pm_result
"""


def _after(condition: str, head: str = "") -> str:
    return _AFTER.replace("{condition}", condition).replace("{head}", head)


AHEAD = Kind(
    """
if pm_live:
    try:
        pm_before({picks})
    except Exception:
        pm_fail()
return pm_original({forward})
"""
)
"""`before(*arguments)`, then the original."""

FOLLOWING = Kind(_after("pm_live"))
"""The original, then `after(result, *arguments)`."""

FOLLOWING_TRUE = Kind(_after("pm_result and pm_live"))
"""The same where the result is true."""

NOTING_TRUE = Kind(_after("pm_result and pm_live").replace("pm_result, {picks}", "{picks}"))
"""`after(*arguments)` where the result is true: for targets called once per block, whose `after` may be a list's append."""

FOLLOWING_NONE = Kind(_after("pm_result is None and pm_live"))
"""The same where the result is None: for targets called once per request and step."""

AROUND = Kind(_BEFORE + _after("pm_token is not pm_failed", "pm_token, "))
"""`token = before(*arguments)`, the original, `after(token, result, *arguments)`."""

AROUND_LISTED = Kind(AROUND.body, listed=True)
"""The same for a method whose first argument may be a one-shot iterator."""

SCOPE = Kind(
    _BEFORE
    + """
if pm_token is pm_failed:
    return pm_original({forward})
with pm_scope(pm_after, pm_fail, pm_token, ({picks})):
    return pm_original({forward})
"""
)
"""`token = before(*arguments)`, the original, `after(token, *arguments)` even if it raises: for phases."""

_SOURCE = """
def make(pm_original, pm_before, pm_after, pm_fail, pm_failed, pm_scope):
    pm_calls = 0
    pm_live = True

    def wrapper({parameters}):
        nonlocal pm_calls
        pm_calls += 1
{body}

    def use(before, after):
        nonlocal pm_before, pm_after
        pm_before, pm_after = before, after

    def set_live(live):
        nonlocal pm_live
        pm_live = live

    def calls():
        return pm_calls

    def forget_calls():
        nonlocal pm_calls
        pm_calls = 0

    return wrapper, use, set_live, calls, forget_calls
"""


class Wrapper(NamedTuple):
    """The function, and what changes or reads the variables that it closes over."""

    function: Callable[..., Any]
    use: Callable[[Any, Any], None]
    """Put other handlers in the place of `before` and `after`."""
    set_live: Callable[[bool], None]
    calls: Callable[[], int]
    forget_calls: Callable[[], None]


class _Scope:
    """Runs `after` when the original returns or raises; an exception passes through untouched."""

    __slots__ = ("after", "arguments", "fail", "token")

    def __init__(self, after: Any, fail: Any, token: Any, arguments: tuple[Any, ...]) -> None:
        self.after = after
        self.fail = fail
        self.token = token
        self.arguments = arguments

    def __enter__(self) -> None:
        return None

    def __exit__(self, *exception: object) -> None:
        try:
            self.after(self.token, *self.arguments)
        except Exception:
            self.fail()


class Parameters(NamedTuple):
    """What a function really takes, told by its code: decorators keep the signature of what they wrap."""

    positional: tuple[str, ...]
    num_positional_only: int
    keyword_only: tuple[str, ...]
    varargs: str
    varkeywords: str

    @classmethod
    def of(cls, function: Any) -> Parameters:
        """Read them."""
        code = function.__code__
        named = code.co_argcount + code.co_kwonlyargcount
        rest = list(code.co_varnames[named:])
        varargs = rest.pop(0) if code.co_flags & inspect.CO_VARARGS else ""
        varkeywords = rest.pop(0) if code.co_flags & inspect.CO_VARKEYWORDS else ""
        names = code.co_varnames
        return cls(
            names[: code.co_argcount], code.co_posonlyargcount, names[code.co_argcount : named], varargs, varkeywords
        )

    @property
    def declaration(self) -> str:
        """As they stand in a `def`, without defaults."""
        parts = list(self.positional)
        if self.num_positional_only:
            parts.insert(self.num_positional_only, "/")
        if self.varargs or self.keyword_only:
            parts.append(f"*{self.varargs}")
        parts += self.keyword_only
        if self.varkeywords:
            parts.append(f"**{self.varkeywords}")
        return ", ".join(parts)

    @property
    def forward(self) -> str:
        """As they stand in a call that passes them on."""
        parts = list(self.positional)
        if self.varargs:
            parts.append(f"*{self.varargs}")
        parts += [f"{name}={name}" for name in self.keyword_only]
        if self.varkeywords:
            parts.append(f"**{self.varkeywords}")
        return ", ".join(parts)


class Picker:
    """Source text that reads one parameter by name, whatever way the caller passed it."""

    def __init__(self, function: Any) -> None:
        """Know what the function takes, and what it says that it takes."""
        self.parameters = Parameters.of(function)
        self._told = list(inspect.signature(function).parameters.values())

    def place(self, name: str) -> int | None:
        """Its index in `*args` of a function that does not name it itself; None if it can only come by keyword."""
        for index, parameter in enumerate(self._told):
            if parameter.name == name and parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
                return index - len(self.parameters.positional)
        return None

    def has(self, name: str) -> bool:
        """Whether there is such a parameter."""
        if name == SELF:
            return bool(self.parameters.positional or self.parameters.varargs)
        own = name in self.parameters.positional or name in self.parameters.keyword_only
        return own or (self._passes_on() and any(parameter.name == name for parameter in self._told))

    def text(self, name: str) -> str:
        """An expression whose value is the argument of one call."""
        own = self.parameters
        if name == SELF:
            return own.positional[0] if own.positional else f"{own.varargs}[0]"
        if name in own.positional or name in own.keyword_only:
            return name
        default = f"{own.varkeywords or '{}'}.get({name!r}, {self._default(name)})"
        place = self.place(name)
        if not own.varargs or place is None:
            return default
        return f"({own.varargs}[{place}] if len({own.varargs}) > {place} else {default})"

    def listed(self, name: str) -> str:
        """Statements that replace the argument by a list of it, unless it is one already."""
        own = self.parameters
        if name in own.positional or name in own.keyword_only:
            return f"if type({name}) is not list:\n    {name} = list({name})\n"
        place = self.place(name)
        return (
            f"if len({own.varargs}) > {place}:\n"
            f"    {own.varargs} = (*{own.varargs}[:{place}], list({own.varargs}[{place}]), *{own.varargs}[{place} + 1:])\n"
            f"elif {name!r} in {own.varkeywords}:\n"
            f"    {own.varkeywords}[{name!r}] = list({own.varkeywords}[{name!r}])\n"
        )

    def _passes_on(self) -> bool:
        return bool(self.parameters.varargs or self.parameters.varkeywords)

    def _default(self, name: str) -> str:
        """Only a default that can be written down; an object of vLLM's own is told as None."""
        value = next((told.default for told in self._told if told.name == name), None)
        return repr(value) if isinstance(value, (bool, int, float, str)) else "None"


def missing(function: Any, arguments: tuple[str, ...]) -> list[str]:
    """Which of the arguments that a hook asks for the function does not have."""
    picker = Picker(function)
    return [name for name in arguments if not picker.has(name)]


def source(function: Any, kind: Kind, arguments: tuple[str, ...]) -> str:
    """The text of `make`."""
    picker = Picker(function)
    body = kind.body.format(
        picks="".join(f"{picker.text(name)}, " for name in arguments), forward=picker.parameters.forward
    )
    if kind.listed:
        name = next(name for name in arguments if name != SELF)
        body = picker.listed(name) + body
    indented = "\n".join(" " * 8 + line for line in body.splitlines() if line)
    return _SOURCE.format(parameters=picker.parameters.declaration, body=indented)


def source_name(hook_name: str) -> str:
    """The file that a traceback names for the wrapper of a hook."""
    return f"<profilemate {hook_name}>"


def wrap(
    function: Any, kind: Kind, arguments: tuple[str, ...], before: Any, after: Any, fail: Any, name: str
) -> Wrapper:
    """Make the wrapper of a function. `fail` is called inside the `except` clause of a handler that raised."""
    names: dict[str, Any] = {}
    exec(compile(source(function, kind, arguments), source_name(name), "exec"), names)
    made = Wrapper(*names["make"](function, before, after, fail, FAILED, _Scope))
    made.function.__defaults__ = function.__defaults__
    made.function.__kwdefaults__ = function.__kwdefaults__
    return made
