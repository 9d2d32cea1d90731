"""Session -> how long each operation took, and which share of an engine step is Python."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from math import sqrt
from typing import NamedTuple

from profilemate.session.order import nearly_sorted
from profilemate.session.records import ProcessInfo
from profilemate.session.session import Session
from profilemate.session.stream import Row
from profilemate.session.views import graph_workers
from profilemate.trackers.cpu_operations import events
from profilemate.trackers.cpu_operations.histogram import added, from_text, percentile_ns
from profilemate.trackers.cpu_operations.operations import BY_NAME, OPERATIONS, SERIALISE, STEP, Operation

SERIALISE_OUTPUTS, SERIALISE_REQUESTS = "serialise_outputs", "serialise_requests"
"""The same method in an engine core and in a front end."""


@dataclass(frozen=True)
class Times:
    """Calls of one operation. `own_ns` is their time without what is nested in them and timed as well."""

    calls: int = 0
    total_ns: int = 0
    own_ns: int = 0
    squares_us2: int = 0
    min_ns: int | None = None
    max_ns: int | None = None
    counts: Mapping[int, int] = field(default_factory=dict)

    @property
    def mean_ns(self) -> float | None:
        """None of no calls."""
        return self.total_ns / self.calls if self.calls else None

    @property
    def std_ns(self) -> float | None:
        """Standard deviation over the calls, divided by their number."""
        mean_ns = self.mean_ns
        return None if mean_ns is None else sqrt(max(0.0, self.squares_us2 * 1e6 / self.calls - mean_ns**2))

    def percentile_ns(self, share: float) -> float | None:
        """Within 0.8 %, and never beyond the extremes, which are exact."""
        found = percentile_ns(self.counts, share)
        if found is None or self.min_ns is None or self.max_ns is None:
            return found
        return min(max(found, self.min_ns), self.max_ns)


@dataclass(frozen=True)
class ProcessTimes:
    """Operations of one process by name, as of a moment since the session began. `is_shown`: the sums have it."""

    process: ProcessInfo
    as_of_ns: int
    is_shown: bool
    times: Mapping[str, Times]


@dataclass(frozen=True)
class OperationTimes:
    """One operation over the processes that are shown, and each process that ran it."""

    key: str
    operation: Operation
    within: str
    times: Times
    processes: tuple[ProcessTimes, ...]


@dataclass(frozen=True)
class CpuSummary:
    """All operations that were called. `part_ns` is the Python of each part of a step."""

    operations: tuple[OperationTimes, ...]
    processes: tuple[ProcessTimes, ...]
    part_ns: Mapping[str, int]
    step: Times
    is_async: bool
    rows_every: tuple[int, ...]

    @property
    def as_of_ns(self) -> int | None:
        """When the process that told its totals longest ago did so."""
        return min((process.as_of_ns for process in self.processes if process.is_shown), default=None)


class Call(NamedTuple):
    """One call that has a row."""

    time_ns: int
    operation: str
    duration_ns: int
    call: int | None
    amount: int | None
    process: ProcessInfo


def analyze(session: Session) -> CpuSummary:
    """Read the last totals of every process."""
    workers = {worker.process.name for worker in graph_workers(session)}
    processes = tuple(
        told
        for process in session.processes
        if (told := _process_times(session, process, "Worker" not in process.roles or process.name in workers))
    )
    operations = tuple(_operations(processes))
    part_ns: dict[str, int] = {}
    for one in operations:
        if one.operation.part:
            part_ns[one.operation.part] = part_ns.get(one.operation.part, 0) + one.times.total_ns
    step = next((one.times for one in operations if one.key == STEP), Times())
    every = {process.settings.get("cpu_operation_rows_every") for process in session.processes}
    return CpuSummary(
        operations, processes, part_ns, step,
        any(process.engine_config.get("async_scheduling") is True for process in session.processes),
        tuple(sorted(one for one in every if isinstance(one, int))),
    )  # fmt: skip


def _process_times(session: Session, process: ProcessInfo, is_shown: bool) -> ProcessTimes | None:
    last = session.first_and_last(process, events.TOTALS, "operation")
    rows = {name: row for name, (_, row) in last.items() if name in BY_NAME}
    times = {name: told for name, row in rows.items() if (told := _times(row)) is not None}
    if not times:
        return None
    nested_ns: dict[str, int] = {}
    for name, one in times.items():
        holder = _holder(BY_NAME[name], times)
        nested_ns[holder] = nested_ns.get(holder, 0) + one.total_ns
    return ProcessTimes(
        process,
        max(process.at(rows[name][0]) for name in times),
        is_shown,
        {name: _with_own(one, one.total_ns - nested_ns.get(name, 0)) for name, one in times.items()},
    )


def _times(row: Row) -> Times | None:
    """None of a row that makes no sense."""
    _, _, calls, total_ns, squares_us2, min_ns, max_ns, histogram = row
    try:
        counts = from_text(histogram or "")
    except ValueError:
        return None
    if not calls or calls < 0 or total_ns is None or sum(counts.values()) != calls:
        return None
    return Times(calls, total_ns, total_ns, squares_us2 or 0, min_ns, max_ns, counts)


def _with_own(times: Times, own_ns: int) -> Times:
    return Times(
        times.calls, times.total_ns, max(0, own_ns), times.squares_us2, times.min_ns, times.max_ns, times.counts
    )


def _holder(operation: Operation, times: Mapping[str, Times]) -> str:
    """The operation that holds this one in a process; empty where none does."""
    return next((name for name in operation.within if name in times), "")


def key_of(operation: str, process: ProcessInfo) -> str:
    """How the files call an operation of a process."""
    if operation != SERIALISE:
        return operation
    return SERIALISE_OUTPUTS if "EngineCore" in process.roles else SERIALISE_REQUESTS


def _operations(processes: tuple[ProcessTimes, ...]) -> Iterator[OperationTimes]:
    for operation in OPERATIONS:
        having = [process for process in processes if operation.name in process.times]
        for key in dict.fromkeys(key_of(operation.name, process.process) for process in having):
            mine = tuple(process for process in having if key_of(operation.name, process.process) == key)
            shown = [process for process in mine if process.is_shown]
            holders = [_holder(operation, process.times) for process in mine]
            yield OperationTimes(key, operation, holders[0], _sum(one.times[operation.name] for one in shown), mine)


def _sum(several: Iterable[Times]) -> Times:
    times = list(several)
    return Times(
        sum(one.calls for one in times),
        sum(one.total_ns for one in times),
        sum(one.own_ns for one in times),
        sum(one.squares_us2 for one in times),
        min((one.min_ns for one in times if one.min_ns is not None), default=None),
        max((one.max_ns for one in times if one.max_ns is not None), default=None),
        added(one.counts for one in times),
    )


def calls_with_rows(session: Session, summary: CpuSummary) -> Iterator[Call]:
    """Every call that has a row, of the processes that are shown, in order of when it began."""
    workers = {worker.process.name for worker in graph_workers(session)}
    shown = [one for one in session.processes if "Worker" not in one.roles or one.name in workers]
    return heapq.merge(*(_calls(session, process) for process in shown), key=lambda call: call.time_ns)


def _calls(session: Session, process: ProcessInfo) -> Iterator[Call]:
    calls = (
        Call(process.at(time_ns), key_of(operation, process), duration_ns, call, amount, process)
        for time_ns, operation, duration_ns, call, amount in session.rows(process, events.ROWS)
        if duration_ns is not None
    )
    return nearly_sorted(calls, lambda call: call.time_ns)
