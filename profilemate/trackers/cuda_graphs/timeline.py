"""Rows of cuda_graph_timeline.csv: every forward pass that replayed a graph, with its device time if there is one."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator

from profilemate.export.cells import number, seconds, word
from profilemate.session.records import ProcessInfo
from profilemate.session.session import Session
from profilemate.session.stream import Row
from profilemate.session.views import GraphWorker, graph_workers
from profilemate.trackers.cuda_graphs import cells, events
from profilemate.trackers.cuda_graphs.graph import Descriptor

LARGEST_WINDOW = 10_000
HEADER = (
    "timestamp_sec", *cells.DESCRIPTOR_HEADER, "latency_sec", "latency_clock", "host_sec", "unpadded_tokens",
    "unpadded_reqs", "pieces", "step", "forward", "fault", *cells.FURTHER_HEADER, "engine",
)  # fmt: skip


class DeviceTimes:
    """Joins graph_latencies with dispatch rows; both ascend by forward pass, so a small window is enough."""

    def __init__(self, rows: Iterator[Row]) -> None:
        """Nothing is read before the first question."""
        self._rows = rows
        self._window: dict[int, int] = {}
        self._reached = -1

    def of(self, forward: int) -> int | None:
        """Nanoseconds on the device of a forward pass; None if it was not sampled or not read."""
        while self._reached < forward and (row := next(self._rows, None)) is not None:
            self._reached = row[0]
            self._window[row[0]] = row[1]
        if len(self._window) > LARGEST_WINDOW:
            self._window = {number: value for number, value in self._window.items() if number >= forward}
        return self._window.pop(forward, None)


def has_device(session: Session, process: ProcessInfo) -> bool:
    """Whether host time is only the launch: the process timed a device, or its configuration names one."""
    device = str(process.engine_config.get("device", "")).partition(":")[0]
    return device in ("cuda", "xpu", "hip") or session.has_rows(process, events.LATENCIES)


def rows(session: Session, counted: Counter[str]) -> Iterator[tuple[str, ...]]:
    """The file's rows, engines merged by time. `counted` gets how many there are and how many have a latency."""
    merged = heapq.merge(*(_dispatches(session, worker) for worker in graph_workers(session)), key=lambda row: row[:2])
    for time_ns, engine, row, latency_ns, clock in merged:
        counted["rows"] += 1
        counted[clock or "without latency"] += 1
        yield _cells(time_ns, engine, row, latency_ns, clock)


def _dispatches(session: Session, worker: GraphWorker) -> Iterator[tuple[int, int, Row, int | None, str]]:
    process = worker.process
    dispatches = session.rows(process, events.DISPATCHES)
    device_times = DeviceTimes(session.rows(process, events.LATENCIES))
    on_device = has_device(session, process)
    for row in dispatches:
        if row[15]:
            device_ns = device_times.of(row[2])
            latency_ns = device_ns if on_device else row[14]
            clock = "" if latency_ns is None else "cuda_event" if on_device else "monotonic"
            yield process.at(row[0]), worker.engine, row, latency_ns, clock


def _cells(time_ns: int, engine: int, row: Row, latency_ns: int | None, clock: str) -> tuple[str, ...]:
    descriptor = Descriptor.of(row[3:12])
    step, forward = row[1:3]
    unpadded_tokens, unpadded_reqs, host_ns, graphs, _, fault = row[12:]
    return (
        seconds(time_ns), *cells.descriptor_cells(descriptor), seconds(latency_ns), clock,
        seconds(host_ns), number(unpadded_tokens), number(unpadded_reqs), number(graphs),
        number(step), number(forward), word(fault), *cells.further_cells(descriptor), str(engine),
    )  # fmt: skip
