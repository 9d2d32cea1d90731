"""Which phase this process is in: serving, or one of the runs that vLLM makes for itself."""

from __future__ import annotations

SERVING = "serving"
NESTED_PHASES = ("estimate", "capture")
"""Phases that count wherever they begin; any other inside a phase is part of the outer one."""

_stack: list[str] = []


def current() -> str:
    """The phase now; "serving" outside all of them."""
    return _stack[-1] if _stack else SERVING


def is_serving() -> bool:
    """Whether a forward pass now is one that a request asked for."""
    return not _stack


def enter(phase: str) -> int:
    """Begin a phase; returns the depth that `leave` restores.

    An outer estimate stays what it is: its captures are thrown away whatever vLLM calls inside.
    """
    depth = len(_stack)
    outer = _stack[-1] if _stack else ""
    keeps_outer = outer == "estimate" or (outer and phase not in NESTED_PHASES)
    _stack.append(outer if keeps_outer else phase)
    return depth


def leave(depth: int) -> None:
    """End a phase and whatever it left open."""
    del _stack[depth:]


def forget() -> None:
    """A forked child is in no phase."""
    _stack.clear()
