"""Which phase this process is in: serving, or one of the runs that vLLM makes for itself."""

from __future__ import annotations

SERVING = "serving"
NESTED_PHASES = ("estimate", "capture")
"""Phases that count wherever they begin; any other inside a phase is part of the outer one."""

STACK: list[str] = []
"""Phases that are open now, the innermost last. Empty while serving."""


def current() -> str:
    """The phase now; "serving" outside all of them."""
    return STACK[-1] if STACK else SERVING


def is_serving() -> bool:
    """Whether a forward pass now is one that a request asked for."""
    return not STACK


def enter(phase: str) -> int:
    """Begin a phase; returns the depth that `leave` restores.

    An outer estimate stays what it is: its captures are thrown away whatever vLLM calls inside.
    """
    depth = len(STACK)
    outer = STACK[-1] if STACK else ""
    keeps_outer = outer == "estimate" or (outer and phase not in NESTED_PHASES)
    STACK.append(outer if keeps_outer else phase)
    return depth


def leave(depth: int) -> None:
    """End a phase and whatever it left open."""
    del STACK[depth:]


def forget() -> None:
    """A forked child is in no phase."""
    STACK.clear()
