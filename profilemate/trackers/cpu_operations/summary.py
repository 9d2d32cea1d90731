"""What the summary says about CPU operations: as plain data for metadata.json, as lines for people, and as a file."""

from __future__ import annotations

import json
from typing import Any

from profilemate.export.values import in_seconds, rounded
from profilemate.export.words import count_text, seconds_text, share_text
from profilemate.session.records import table_of, text
from profilemate.trackers.cpu_operations.analyze import CpuSummary, OperationTimes, Times
from profilemate.trackers.cpu_operations.operations import STEP
from profilemate.trackers.view import Record

NS_PER_MS = 1e6
PERCENTILES = (50, 95, 99)
COSTLIEST = 5


def milliseconds(ns: float | None) -> float | None:
    """To the nanosecond."""
    return None if ns is None else round(ns / NS_PER_MS, 6)


def cpu_record(cpu: CpuSummary) -> Record:
    """The share of a step that is Python, and each operation by its name."""
    step_ns = cpu.step.total_ns
    return {
        "as_of_sec": in_seconds(cpu.as_of_ns),
        "steps": cpu.step.calls,
        "step_total_ms": milliseconds(step_ns),
        "python_share": rounded(sum(cpu.part_ns.values()) / step_ns) if step_ns else None,
        "python_share_by_part": {part: rounded(ns / step_ns) if step_ns else None for part, ns in cpu.part_ns.items()},
        "async_scheduling": cpu.is_async,
        "operations": {one.key: _operation_record(one, step_ns) for one in cpu.operations},
    }


def _operation_record(one: OperationTimes, step_ns: int) -> Record:
    return {
        **_times_record(one.times),
        "own_total_ms": milliseconds(one.times.own_ns),
        "share_of_step": rounded(one.times.total_ns / step_ns) if step_ns else None,
        "within": one.within,
        "what": one.operation.doc,
        "role": _role(one),
        "processes": {
            process.process.name: {
                "as_of_sec": in_seconds(process.as_of_ns),
                "is_in_sums": process.is_shown,
                **_times_record(process.times[one.operation.name]),
            }
            for process in one.processes
        },
    }


def _role(one: OperationTimes) -> str:
    return "+".join(dict.fromkeys(process.process.role.split("_")[0] for process in one.processes))


def _times_record(times: Times) -> Record:
    """Users know count, mean, std, min, max and p95."""
    return {
        "count": times.calls,
        "total_ms": milliseconds(times.total_ns),
        "mean_ms": milliseconds(times.mean_ns),
        "std_ms": milliseconds(times.std_ns),
        "min_ms": milliseconds(times.min_ns),
        "max_ms": milliseconds(times.max_ns),
        **{f"p{percent}_ms": milliseconds(times.percentile_ns(percent / 100)) for percent in PERCENTILES},
    }


def cpu_lines(cpu: Record) -> list[str]:
    """The share of Python, the step itself, and the operations that took most by themselves."""
    operations = {name: table_of(one) for name, one in table_of(cpu.get("operations")).items()}
    if not operations:
        return ["no operation was called"]
    return [_share_line(cpu), *_step_lines(operations), *_costliest_lines(operations)]


def _share_line(cpu: Record) -> str:
    if not cpu.get("step_total_ms"):
        return f"no engine step was timed; as of {seconds_text(cpu.get('as_of_sec'))}"
    parts = ", ".join(
        f"{part} {share_text(share, 1)}" for part, share in table_of(cpu.get("python_share_by_part")).items()
    )
    overlap = " (with async scheduling these overlap the model)" if cpu.get("async_scheduling") else ""
    return f"Python is {share_text(cpu.get('python_share'), 1)} of the engine steps' time{overlap}: {parts}"


def _step_lines(operations: dict[str, Record]) -> list[str]:
    step = operations.get(STEP)
    if step is None:
        return []
    return [
        f"engine steps {count_text(step.get('count'))}, {_seconds(step.get('total_ms'))} on the clock: {_spread(step)}"
    ]


def _costliest_lines(operations: dict[str, Record]) -> list[str]:
    others = [(name, one) for name, one in operations.items() if name != STEP]
    costliest = sorted(others, key=lambda item: -(item[1].get("own_total_ms") or 0))[:COSTLIEST]
    return [
        f"{text(name)} ({text(one.get('role'))}): {count_text(one.get('count'))} calls, {_seconds(one.get('total_ms'))}, "
        f"{_seconds(one.get('own_total_ms'))} of it its own, {_spread(one)}"
        for name, one in costliest
    ]


def _spread(one: Record) -> str:
    return ", ".join(f"{key} {_ms(one.get(f'{key}_ms'))}" for key in ("mean", "p50", "p95", "p99"))


def _seconds(milliseconds: Any) -> str:
    return seconds_text(milliseconds / 1e3 if isinstance(milliseconds, (int, float)) else None)


def _ms(value: Any) -> str:
    return f"{value:.3f} ms" if isinstance(value, (int, float)) else "unknown"


def summary_file(record: Record) -> str:
    """cpu_timing_summary.json: the operations by name."""
    cpu = table_of(table_of(record.get("summary")).get("cpu_operations"))
    return json.dumps(table_of(cpu.get("operations")), indent=1) + "\n"
