"""Is a target met, and is a figure so far from it that the gate closes?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from overhead.samples import Target

GATE_FACTOR = 1.5
RATIO_GATE = 0.99
MET, NOT_MET, BEYOND_GATE, INFORMATION = "met", "not met", "beyond the gate", "for information"


class Rule(NamedTuple):
    """When a target is met, from its limit and the estimate; where its gate is, and when that is passed."""

    met: Callable[[float, float], bool]
    gate: Callable[[float], float]
    beyond: Callable[[float, float, float], bool]
    words: str
    gate_words: str


RULES = {
    "at_most": Rule(
        met=lambda limit, estimate: estimate <= limit,
        gate=lambda limit: GATE_FACTOR * limit,
        beyond=lambda gate, estimate, high: estimate > gate,
        words="at most",
        gate_words="1.5 times the target",
    ),
    "ratio": Rule(
        met=lambda limit, estimate: estimate >= limit,
        gate=lambda limit: RATIO_GATE,
        beyond=lambda gate, estimate, high: high < gate,
        words="at least",
        gate_words="an interval that lies wholly below it",
    ),
}


def gate_of(target: Target) -> float:
    """Where the gate closes."""
    return target.held_at or RULES[target.rule].gate(target.limit)


def judge(target: Target | None, estimate: float, high: float) -> str:
    """One of the four words above."""
    if target is None:
        return INFORMATION
    rule = RULES[target.rule]
    if rule.beyond(gate_of(target), estimate, high):
        return BEYOND_GATE
    return MET if rule.met(target.limit, estimate) else NOT_MET


def beyond_gate(results: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The benchmark, and a sentence, for every figure of a results file that closes the gate."""
    for name, benchmark in results["benchmarks"].items():
        for figure in benchmark["figures"]:
            if figure["verdict"] == BEYOND_GATE:
                yield name, sentence(name, figure)


def sentence(name: str, figure: dict[str, Any]) -> str:
    """What is too much, in numbers."""
    target, effect = figure["target"], figure["effect"]
    rule = RULES[target["rule"]]
    unit = effect["unit"]
    gate_words = "where CI holds it" if target.get("held_at") else rule.gate_words
    return (
        f"{name}, {figure['name']}: {effect['estimate']:.4g} {unit} ({effect['low']:.4g} to {effect['high']:.4g})"
        f"{speed_words(figure)} where {rule.words} {target['limit']:g} {unit} is the target, and the gate is at "
        f"{target['gate']:g}: {gate_words}"
    )


def slowness(figure: dict[str, Any]) -> float | None:
    """How many times as long as the targets' machine the one of the run took; None where that was not measured."""
    yardstick = figure.get("yardstick")
    return yardstick and float(yardstick["slowness"])


def speed_words(figure: dict[str, Any]) -> str:
    """The effect at the speed of the targets' machine."""
    times, effect = slowness(figure), figure["effect"]
    if times is None:
        return ""
    at_speed = effect["estimate"] / times
    return f", {at_speed:.4g} {effect['unit']} at the targets' speed, of which this machine takes {times:.3g} times as long,"
