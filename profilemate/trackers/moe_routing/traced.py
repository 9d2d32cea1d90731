"""Counting where torch.compile traces the router's Python: an operator of our own becomes part of the compiled graph.

Only with PROFILEMATE_MOE_TRACED=1, since the graph is then another one than without ProfileMate: it gets a compile cache
folder of its own.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

CACHE_ROOT = "VLLM_CACHE_ROOT"
OWN_FOLDER = "profilemate_moe"
LIBRARY = "profilemate"
OPERATOR = "count_experts"

Count = Callable[[Any, int], None]
_libraries: list[Any] = []
"""The operator is there for as long as its library is."""

_count: list[Count] = []


def use_own_compile_cache() -> None:
    """Before vLLM reads the variable, in the process that starts the others; once."""
    default = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "vllm")
    root = os.environ.get(CACHE_ROOT) or default
    if os.path.basename(root) != OWN_FOLDER:
        os.environ[CACHE_ROOT] = os.path.join(root, OWN_FOLDER)


def watch(router: Any, number: int, count: Count) -> bool:
    """Let a router call the operator with its logical ids and this number. False where something else watches it."""
    if getattr(router, "capture_fn", True) is not None:
        return False
    router.set_capture_fn(_caller(_operator(count), number))
    return True


def _caller(operator: Any, number: int) -> Callable[[Any], None]:
    def capture(topk_ids: Any) -> None:
        operator(topk_ids, number)

    return capture


def _operator(count: Count) -> Any:
    """The operator, which calls `count` whenever the compiled graph runs.

    It says that it changes the ids, which it does not: the compiler would leave out what changes nothing.
    """
    torch: Any = sys.modules["torch"]
    _count[:] = [count]
    if not _libraries:
        library = torch.library.Library(LIBRARY, "FRAGMENT")
        library.define(f"{OPERATOR}(Tensor(a!) topk_ids, int number) -> ()")
        library.impl(OPERATOR, _run, "CompositeExplicitAutograd")
        torch.library.register_fake(f"{LIBRARY}::{OPERATOR}", _fake, lib=library)
        _libraries.append(library)
    return getattr(getattr(torch.ops, LIBRARY), OPERATOR).default


def _run(topk_ids: Any, number: int) -> None:
    if _count:
        _count[0](topk_ids, number)


def _fake(topk_ids: Any, number: int) -> None:
    return None
