"""A comparison as plain data for `--json`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from profilemate.compare.catalogue import NUMBERS
from profilemate.compare.change import FALSE_ALARMS, Change
from profilemate.compare.comparison import Comparison, Side
from profilemate.compare.conditions import Outcome
from profilemate.compare.ladder import ladders
from profilemate.compare.noise import Estimate
from profilemate.compare.shown import unit_of


def comparison_record(comparison: Comparison, outcomes: Sequence[Outcome] = ()) -> dict[str, Any]:
    """Seconds, tokens, requests; shares of one. `numbers` has each number once, with one change per later session."""
    labels = [side.label for side in comparison.sides]
    return {
        "sessions": [_side(side) for side in comparison.sides],
        "settings": [
            {"area": one.area, "name": one.name, "values": dict(zip(labels, one.values, strict=True))}
            for one in comparison.settings
        ],
        "same_load": not comparison.load,
        "load": list(comparison.load),
        "load_doubts": list(comparison.load_doubts),
        "false_alarms": FALSE_ALARMS,
        "least_change": comparison.least,
        "verdicts": {
            side.label: dict(Counter(change.verdict for change in changes if change.before.value is not None))
            for side, changes in zip(comparison.sides[1:], comparison.changes, strict=True)
        },
        "totals": {
            total.name: dict(zip(labels, (side.totals[n].value for side in comparison.sides), strict=True))
            for n, total in enumerate(comparison.sides[0].totals)
        },
        "numbers": [_number(comparison, n) for n in range(len(NUMBERS))],
        "graphs": [
            {
                "mode": step.mode,
                "num_tokens": step.size,
                "sessions": {
                    label: None if rung is None else {"captured": rung.is_captured, "replays": rung.replays,
                                                      "share": rung.share, "padding_tokens": rung.padding}
                    for label, rung in zip(labels, step.rungs, strict=True)
                },
            }
            for step in ladders([side.material for side in comparison.sides])
        ],
        "conditions": [{"condition": one.condition.text, "state": one.state, "says": one.says} for one in outcomes],
    }  # fmt: skip


def _side(side: Side) -> dict[str, Any]:
    steady = None if side.steady is None else {"begin_sec": side.steady.begin, "end_sec": side.steady.end}
    return {"label": side.label, "session": side.name, "path": side.path, "steady": steady, "notes": list(side.notes)}


def _number(comparison: Comparison, place: int) -> dict[str, Any]:
    number = NUMBERS[place]
    return {
        "name": number.name,
        "title": number.title,
        "unit": unit_of(number),
        "better": number.better,
        "values": {side.label: _value(side, number.name) for side in comparison.sides},
        "changes": {
            side.label: _change(changes[place])
            for side, changes in zip(comparison.sides[1:], comparison.changes, strict=True)
        },
    }


def _value(side: Side, name: str) -> dict[str, Any]:
    estimate: Estimate = side.estimates[name]
    return {**asdict(estimate), "whole_session": side.whole[name]}


def _change(change: Change) -> dict[str, Any]:
    return {
        "verdict": change.verdict,
        "relative": change.relative,
        "difference": change.points,
        "interval": None if change.low is None else [change.low, change.high],
        "interval_of": "difference" if change.in_points else "relative",
        "p": change.p,
        "adjusted_p": change.adjusted,
        "why": change.why,
    }
