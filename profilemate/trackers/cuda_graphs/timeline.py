"""Rows of cuda_graph_timeline.csv: every forward pass that replayed a graph, with its device time if there is one."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator
from operator import itemgetter

from profilemate.export.cells import number, seconds, word
from profilemate.session.session import Session
from profilemate.session.stream import Row
from profilemate.session.views import GraphWorker, graph_workers
from profilemate.trackers.cuda_graphs import cells, events
from profilemate.trackers.cuda_graphs.graph import DESCRIPTOR_COLUMNS, Descriptor
from profilemate.trackers.forward_passes.device_times import DeviceTimes, has_device
from profilemate.trackers.forward_passes.events import LATENCIES

COLUMNS = (
    "time_ns",
    "step",
    "forward",
    *DESCRIPTOR_COLUMNS,
    "unpadded_tokens",
    "unpadded_reqs",
    "host_ns",
    "graphs",
    "fault",
)
HEADER = (
    "timestamp_sec", *cells.DESCRIPTOR_HEADER, "latency_sec", "latency_clock", "host_sec", "unpadded_tokens",
    "unpadded_reqs", "pieces", "step", "forward", "fault", *cells.FURTHER_HEADER, "engine",
)  # fmt: skip


def rows(session: Session, counted: Counter[str]) -> Iterator[tuple[str, ...]]:
    """The file's rows, engines merged by time. `counted` gets how many there are and how many have a latency."""
    merged = heapq.merge(*(_passes(session, worker) for worker in graph_workers(session)), key=itemgetter(0, 1))
    for time_ns, engine, row, latency_ns, clock in merged:
        counted["rows"] += 1
        counted[clock or "without latency"] += 1
        yield _cells(time_ns, engine, row, latency_ns, clock)


def _passes(session: Session, worker: GraphWorker) -> Iterator[tuple[int, int, Row, int | None, str]]:
    process = worker.process
    passes = session.rows(process, events.PASSES, *COLUMNS)
    device_times = DeviceTimes(session.rows(process, LATENCIES))
    on_device = has_device(session, process)
    for row in passes:
        if row[15]:
            device_ns = device_times.of(row[2])
            latency_ns = device_ns if on_device else row[14]
            clock = "" if latency_ns is None else "cuda_event" if on_device else "monotonic"
            yield process.at(row[0]), worker.engine, row, latency_ns, clock


def _cells(time_ns: int, engine: int, row: Row, latency_ns: int | None, clock: str) -> tuple[str, ...]:
    descriptor = Descriptor.of(row[3:12])
    step, forward = row[1:3]
    unpadded_tokens, unpadded_reqs, host_ns, graphs, fault = row[12:]
    return (
        seconds(time_ns), *cells.descriptor_cells(descriptor), seconds(latency_ns), clock,
        seconds(host_ns), number(unpadded_tokens), number(unpadded_reqs), number(graphs),
        number(step), number(forward), word(fault), *cells.further_cells(descriptor), str(engine),
    )  # fmt: skip
