"""What the cases of chaos must have in common, from the results of tests/chaos/all_cases.py."""

from __future__ import annotations

from typing import Any

FAILURES_BEFORE_OFF = 5
NESTED_CALLS = 1
"""A wrapper of a whole graph calls wrappers of pieces: one call may be under way when the fifth failure comes."""

Case = dict[str, Any]


def that_differ(results: dict[str, Case]) -> list[str]:
    """Cases in which vLLM did something else than without ProfileMate."""
    return [name for name, case in results.items() if case["worked"] != results[""]["worked"]]


def of_broken_handlers(results: dict[str, Case]) -> dict[str, Case]:
    """Those in which handlers were made to raise."""
    return {name: case for name, case in results.items() if name.partition(":")[0] in ("before", "after")}


def switched_off(case: Case) -> set[str]:
    """Hooks that are off."""
    return {name for name, state in case["states"].items() if state["state"] == "switched_off"}


def faults(name: str, case: Case) -> str:
    """What a case of broken handlers says wrongly of its hooks; empty if all is right."""
    failed = {hook: state["failures"] for hook, state in case["states"].items() if state["failures"]}
    if failed != case["told"]:
        return f"{name}: {failed} named, {case['told']} failed"
    if max(failed.values(), default=0) > FAILURES_BEFORE_OFF + NESTED_CALLS:
        return f"{name}: {failed}, called after it was off"
    if switched_off(case) != {hook for hook, failures in failed.items() if failures >= FAILURES_BEFORE_OFF}:
        return f"{name}: {failed} but off are {switched_off(case)}"
    unexplained = [hook for hook in failed if "explode" not in case["states"][hook]["reason"]]
    return f"{name}: no reason for {unexplained}" if unexplained else ""
