"""Session -> what the encoder did beside the forward passes of the same workers: passes, items, tokens and times."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from profilemate.session.durations import Durations
from profilemate.session.session import Session
from profilemate.session.views import GraphWorker, graph_workers
from profilemate.trackers.encoder_decoder import events
from profilemate.trackers.forward_passes import events as forward_passes
from profilemate.trackers.forward_passes.device_times import DeviceTimes, has_device

ENCODER, DECODER = "encoder", "decoder"
CELLS = (
    "time_ns", "step", "number", "items", "tokens", "requests", "modality", "host_ns", "graph_hits", "graph_misses",
)  # fmt: skip
ROWS_OF_PASSES = forward_passes.PASSES._replace(present="")
"""The row of a forward pass whichever trackers contributed to it."""


class Pass(NamedTuple):
    """One encoder pass or forward pass. `duration_ns` is on the device where there is one, else on the host.

    Times since the session began; what is not known is None.
    """

    time_ns: int
    engine: int
    component: str
    number: int
    context: str
    duration_ns: int | None
    clock: str
    host_ns: int | None
    step: int | None
    items: int | None
    tokens: int | None
    requests: int | None
    graph_hits: int | None = None
    graph_misses: int | None = None


@dataclass(frozen=True)
class Component:
    """All passes of one kind. `passes` counts also those whose rows the size cap removed; `durations` has those that were
    timed, of which there are fewer where the device's time was sampled.
    """

    passes: int
    rows: int
    durations: Durations

    @property
    def total_ns(self) -> float:
        """Of all passes; where not all were timed, the mean of those that were, times the number of passes."""
        return (self.durations.mean_ns or 0.0) * self.passes


@dataclass(frozen=True)
class EncoderTotals:
    """Exact sums over the encoder passes, named as in events.PASSES."""

    number: int = 0
    items: int = 0
    tokens: int = 0
    requests: int = 0
    graph_hits: int = 0
    graph_misses: int = 0


@dataclass(frozen=True)
class EncoderSummary:
    """Sums over the workers that stand for their engines. Without an encoder pass there is no decoder to compare with."""

    model_type: str
    totals: EncoderTotals
    encoder: Component
    decoder: Component
    workers: tuple[GraphWorker, ...]

    @property
    def encoder_share(self) -> float | None:
        """Of the time in encoder and forward passes, the encoder's; None where either has no time."""
        both = self.encoder.total_ns + self.decoder.total_ns
        return self.encoder.total_ns / both if self.encoder.total_ns and self.decoder.total_ns else None


CUMULATIVE = ("number", *(f"{name}_so_far" for name in ("items", "tokens", "requests", "graph_hits", "graph_misses")))


def analyze(session: Session) -> EncoderSummary:
    """Read the encoder's streams of one worker per engine, and the forward passes of those that had an encoder pass."""
    workers = tuple(
        worker for worker in graph_workers(session, last_stage=False) if session.has_rows(worker.process, events.PASSES)
    )
    totals = EncoderTotals(*map(sum, zip(*(_last_totals(session, worker) for worker in workers), strict=True)))
    rows = {ENCODER: 0, DECODER: 0}
    durations = {ENCODER: Durations(), DECODER: Durations()}
    num_forwards = 0
    for worker in workers:
        number = 0
        for one in passes_of(session, worker):
            rows[one.component] += 1
            number = one.number if one.component == DECODER else number
            if one.duration_ns is not None:
                durations[one.component].add(one.duration_ns)
        num_forwards += number
    return EncoderSummary(
        _model_type(workers),
        totals,
        Component(totals.number, rows[ENCODER], durations[ENCODER]),
        Component(num_forwards, rows[DECODER], durations[DECODER]),
        workers,
    )


def _last_totals(session: Session, worker: GraphWorker) -> list[int]:
    """The cumulative cells of the last row."""
    last = deque(session.rows(worker.process, events.PASSES, *CUMULATIVE), maxlen=1)
    return [cell or 0 for cell in last[0]] if last else [0] * len(CUMULATIVE)


def _model_type(workers: tuple[GraphWorker, ...]) -> str:
    types = (worker.process.engine_config.get("model_type") for worker in workers)
    return next((str(one) for one in types if one), "unknown")


def passes(session: Session, summary: EncoderSummary) -> Iterator[Pass]:
    """Encoder and forward passes of every engine that has an encoder, in order of time."""
    return heapq.merge(*(passes_of(session, worker) for worker in summary.workers), key=lambda one: one.time_ns)


def passes_of(session: Session, worker: GraphWorker) -> Iterator[Pass]:
    """Those of one worker: in a step the encoder comes first."""
    on_device = has_device(session, worker.process) or session.has_rows(worker.process, events.LATENCIES)
    encoder = _encoder_passes(session, worker, on_device)
    return heapq.merge(encoder, _forward_passes(session, worker, on_device), key=lambda one: one.time_ns)


def _encoder_passes(session: Session, worker: GraphWorker, on_device: bool) -> Iterator[Pass]:
    process = worker.process
    rows = session.rows(process, events.PASSES, *CELLS)
    device_times = DeviceTimes(session.rows(process, events.LATENCIES))
    for time_ns, step, number, items, tokens, requests, modality, host_ns, hits, misses in rows:
        if number is not None:
            duration_ns = device_times.of(number) if on_device else host_ns
            yield Pass(
                process.at(time_ns), worker.engine, ENCODER, number, modality, duration_ns,
                clock_of(duration_ns, on_device), host_ns, step, items, tokens, requests, hits, misses,
            )  # fmt: skip


def _forward_passes(session: Session, worker: GraphWorker, on_device: bool) -> Iterator[Pass]:
    process = worker.process
    columns = ("time_ns", "step", "forward", "host_ns", "phase", "requests", "tokens")
    rows = session.rows(process, ROWS_OF_PASSES, *columns)
    device_times = DeviceTimes(session.rows(process, forward_passes.LATENCIES))
    for time_ns, step, forward, host_ns, phase, requests, tokens in rows:
        duration_ns = device_times.of(forward) if on_device else host_ns
        yield Pass(
            process.at(time_ns), worker.engine, DECODER, forward, phase or "", duration_ns,
            clock_of(duration_ns, on_device), host_ns, step, None, tokens, requests,
        )  # fmt: skip


def clock_of(duration_ns: int | None, on_device: bool) -> str:
    """Which clock a duration is from; empty where there is none."""
    return "" if duration_ns is None else "cuda_event" if on_device else "monotonic"
