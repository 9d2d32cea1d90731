"""Read what a torch profiler trace (kineto's Chrome format) says about CUDA graph launches and synchronisations.

Shares nothing with ProfileMate. All kernels of one graph launch carry the launch's `correlation`. What cannot be used is
counted by reason and never guessed.
"""

from __future__ import annotations

import gzip
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

RUNTIME, DRIVER = "cuda_runtime", "cuda_driver"
DEVICE_WORK = ("kernel", "gpu_memcpy", "gpu_memset")
GRAPH_LAUNCH = {RUNTIME: re.compile(r"cudaGraphLaunch(_\w+)?"), DRIVER: re.compile(r"cuGraphLaunch(_\w+)?")}
SYNCHRONISATION = re.compile(
    r"cuda(Stream|Device|Event|Thread)Synchronize(_\w+)?|cu(Stream|Ctx|Event)Synchronize(_\w+)?"
)
NS_PER_US = 1000


class TraceError(Exception):
    """The file is not a trace; the message is a sentence."""


@dataclass
class Launch:
    """One call that launches a CUDA graph, and the device work that came of it. Times in nanoseconds of the trace."""

    start_ns: int
    correlation: int | None
    kernels: int = 0
    first_start_ns: int = 0
    last_end_ns: int = 0

    def add(self, start_ns: int, end_ns: int) -> None:
        """Device work of this launch."""
        self.first_start_ns = min(self.first_start_ns, start_ns) if self.kernels else start_ns
        self.last_end_ns = max(self.last_end_ns, end_ns)
        self.kernels += 1


@dataclass
class Trace:
    """What the check needs of a trace."""

    base_ns: int = 0
    """Add it to a time of the trace to get wall-clock nanoseconds; 0 in traces of older profilers, which need none."""
    launches: list[Launch] = field(default_factory=list)
    synchronisations: Counter[str] = field(default_factory=Counter)
    device_events: int = 0
    unusable: Counter[str] = field(default_factory=Counter)

    @property
    def launched_kernels(self) -> int:
        """Kernels, copies and fills that belong to a graph launch."""
        return sum(launch.kernels for launch in self.launches)


def read(path: Path) -> Trace:
    """Read a trace file, plain or gzip. Raises TraceError where it is none."""
    try:
        opener = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rt", encoding="utf-8", errors="replace") as file:
            document = json.load(file, parse_float=Decimal, strict=False)
    except (OSError, EOFError, ValueError) as error:
        raise TraceError(f"{path.name} cannot be read as a trace: {error}") from error
    events = document.get("traceEvents") if isinstance(document, dict) else document
    if not isinstance(events, list):
        raise TraceError(f"{path.name} has no traceEvents")
    trace = summarise(events)
    trace.base_ns = _integer(document.get("baseTimeNanoseconds")) or 0 if isinstance(document, dict) else 0
    return trace


def summarise(events: list[Any]) -> Trace:
    """Launches in the order of their calls, each with its device work, and the synchronising calls by name."""
    trace = Trace()
    calls: dict[str, list[Launch]] = {RUNTIME: [], DRIVER: []}
    work: list[tuple[int, int, int | None]] = []
    for category, name, start_ns, end_ns, correlation in _complete(events, trace.unusable):
        if category in DEVICE_WORK:
            trace.device_events += 1
            work.append((start_ns, end_ns, correlation))
        elif GRAPH_LAUNCH[category].fullmatch(name):
            calls[category].append(Launch(start_ns, correlation))
        elif SYNCHRONISATION.fullmatch(name):
            trace.synchronisations[name] += 1
    trace.launches = sorted(calls[RUNTIME] or calls[DRIVER], key=lambda launch: launch.start_ns)
    _give_work_to_launches(trace, work)
    return trace


def _complete(events: list[Any], unusable: Counter[str]) -> Iterator[tuple[str, str, int, int, int | None]]:
    """Usable events of the categories of interest: category, name, start, end, correlation."""
    for event in events:
        if not isinstance(event, dict) or event.get("cat") not in (RUNTIME, DRIVER, *DEVICE_WORK):
            continue
        start, duration = _nanoseconds(event.get("ts")), _nanoseconds(event.get("dur"))
        if event.get("ph") != "X":
            unusable["not a complete event"] += 1
        elif start is None or duration is None:
            unusable["without a time"] += 1
        elif duration < 0:
            unusable["negative duration"] += 1
        else:
            arguments = event.get("args")
            correlation = _integer(arguments.get("correlation")) if isinstance(arguments, dict) else None
            yield event["cat"], str(event.get("name", "")), start, start + duration, correlation


def _give_work_to_launches(trace: Trace, work: list[tuple[int, int, int | None]]) -> None:
    times_seen = Counter(launch.correlation for launch in trace.launches)
    by_correlation = {launch.correlation: launch for launch in trace.launches if launch.correlation is not None}
    trace.unusable["graph launch without correlation"] += times_seen.pop(None, 0)
    for correlation, times in times_seen.items():
        if correlation is not None and times > 1:  # two processes in one trace, or a counter that wrapped
            del by_correlation[correlation]
            trace.unusable["graph launches with one correlation"] += times
    for start_ns, end_ns, correlation in work:
        if correlation is None:
            trace.unusable["device work without correlation"] += 1
        elif correlation in by_correlation:
            by_correlation[correlation].add(start_ns, end_ns)
    trace.unusable = +trace.unusable


def _nanoseconds(microseconds: Any) -> int | None:
    """A time of the trace, which is in microseconds with or without decimals; None where it is no finite number."""
    if isinstance(microseconds, bool) or not isinstance(microseconds, (int, float, Decimal)):
        return None
    number = Decimal(microseconds)
    return int(number * NS_PER_US) if number.is_finite() else None


def _integer(value: Any) -> int | None:
    """A whole number, also one that was written as text or with decimals."""
    if isinstance(value, bool) or value is None:
        return None
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        return None
