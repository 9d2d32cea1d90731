"""benchmarks/results.json: one entry for each benchmark, made from its samples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from overhead import machine, registry
from overhead.samples import Figure, Measurement
from overhead.summary import EFFECTS, Side, summarise
from overhead.verdict import gate_of, judge

FORMAT = 1
DIGITS = 5


def empty() -> dict[str, Any]:
    """Nothing measured yet, on this machine."""
    return {"format": FORMAT, "machine": machine.machine(), "versions": machine.versions(), "benchmarks": {}}


def load(path: Path) -> dict[str, Any]:
    """A results file, or an empty one where there is none."""
    return dict(json.loads(path.read_text())) if path.exists() else empty()


def save(path: Path, results: dict[str, Any]) -> None:
    """Write it in the order of the list of benchmarks."""
    order = [benchmark.name for benchmark in registry.BENCHMARKS if benchmark.name in results["benchmarks"]]
    results = {**results, "benchmarks": {name: results["benchmarks"][name] for name in order}}
    path.write_text(json.dumps(results, indent=1) + "\n")


def merge(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """New entries in the place of old ones. Raises ValueError where they come from another machine or other versions."""
    for key in ("format", "machine", "versions"):
        if old["benchmarks"] and old[key] != new[key]:
            raise ValueError(f"the file holds results of another {key}: {old[key]}, not {new[key]}; run all benchmarks")
    return {**new, "benchmarks": {**old["benchmarks"], **new["benchmarks"]}}


def entry(title: str, measurement: Measurement, about: dict[str, Any]) -> dict[str, Any]:
    """One benchmark."""
    return {
        "title": title,
        **about,
        "facts": measurement.facts,
        "figures": [figure_entry(figure) for figure in measurement.figures],
    }


def figure_entry(figure: Figure) -> dict[str, Any]:
    """One figure."""
    summary = summarise(figure)
    effect = EFFECTS[figure.effect]
    target, slowness = figure.target, figure.slowness
    return {
        "name": figure.name,
        "verdict": judge(target, summary.estimate / slowness, summary.high / slowness),
        "target": target and {**target._asdict(), "gate": gate_of(target)},
        "effect": {
            "kind": figure.effect,
            "unit": effect.unit or figure.unit,
            "estimate": _round(summary.estimate),
            "low": _round(summary.low),
            "high": _round(summary.high),
            "of_minima": _round(summary.of_minima),
        },
        "unit": figure.unit,
        "yardstick": figure.yardstick and {"what": figure.yardstick.what, "slowness": _round(slowness)},
        "sides": list(figure.sides),
        "with": _side(summary.profiled),
        "without": _side(summary.bare),
        "samples": summary.samples,
    }


def _side(side: Side | None) -> dict[str, float | None] | None:
    return side and {name: _round(value) for name, value in side._asdict().items()}


def _round(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.{DIGITS}g}")
