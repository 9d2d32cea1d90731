"""A second clock around vLLM's methods, outside of whatever stands there already. Shares no code with ProfileMate.

    clocks = watch({"schedule": ("vllm.v1.core.sched.scheduler", "Scheduler.schedule"), ...})

Each call of a method appends when it began and ended, in seconds of `time.perf_counter`.
"""

from __future__ import annotations

import functools
import importlib
import time
from collections.abc import Callable, Mapping
from typing import Any

Spans = list[tuple[float, float]]


def watch(targets: Mapping[str, tuple[str, str]]) -> dict[str, Spans]:
    """Put a clock around every target that there is."""
    spans: dict[str, Spans] = {}
    for name, (module, target) in targets.items():
        owner = importlib.import_module(module)
        *path, attribute = target.split(".")
        for part in path:
            owner = getattr(owner, part)
        original = vars(owner).get(attribute)
        if original is not None:
            spans[name] = []
            setattr(owner, attribute, _clocked(original, spans[name]))
    return spans


def _clocked(original: Callable[..., Any], spans: Spans) -> Callable[..., Any]:
    @functools.wraps(original)
    def clocked(*args: Any, **kwargs: Any) -> Any:
        began = time.perf_counter()
        result = original(*args, **kwargs)
        spans.append((began, time.perf_counter()))
        return result

    return clocked


def union(begins: list[float], ends: list[float]) -> float:
    """Seconds that are covered by spans, given in order of their begins and of their ends."""
    covered, until = 0.0, 0.0
    for begin, end in zip(begins, ends, strict=True):
        covered += max(0.0, end - max(begin, until))
        until = max(until, end)
    return covered
