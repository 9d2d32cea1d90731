"""Every case of chaos for one kind of work: each handler of each hook that is called, alone and all together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import one_case
import sabotage

ALL = "all"


def change(action: str, target: str, told: Counter[str]) -> Callable[[Any], Any]:
    """What becomes of each hook in a case; `told` counts how often a handler was called that was changed."""

    def note(name: str) -> None:
        told[name] += 1

    def changed(hook: Any) -> Any:
        if target not in (ALL, hook.name):
            return hook
        if action in sabotage.HANDLERS:
            return sabotage.break_hook(hook, action, note)
        return sabotage.estrange_hook(hook, action, note) if action in sabotage.STRANGERS else hook

    return changed


def run_case(action: str, target: str, work: Callable[[], Any]) -> dict[str, Any]:
    """One case, with how often each changed handler was called."""
    told: Counter[str] = Counter()
    return {**one_case.run(change(action, target, told), work), "told": dict(told)}


def run_with_strange_attributes(kind: str, work: Callable[[], Any]) -> dict[str, Any]:
    """The case in which vLLM's attributes are strange to ProfileMate alone, once its hooks are in."""

    def estranged_work() -> Any:
        restore = sabotage.estrange_attributes(kind)
        try:
            return work()
        finally:
            restore()

    return run_case("", ALL, estranged_work)


def run_all(work: Callable[[], Any]) -> dict[str, dict[str, Any]]:
    """Results by case: `` is the work without ProfileMate, `none` with it; the others are `what was done:to which hook`."""
    results = {"": {"worked": work()}, "none": run_case("", ALL, work)}
    called = [name for name, state in results["none"]["states"].items() if state["calls"]]
    for action in (*sabotage.HANDLERS, *sabotage.STRANGERS):
        for target in [*called, ALL]:
            result = run_case(action, target, work)
            if result["told"]:
                results[f"{action}:{target}"] = result
    for kind in ("removed", "raising", "rubbish"):
        results[f"{kind} attributes:{ALL}"] = run_with_strange_attributes(kind, work)
    return results
