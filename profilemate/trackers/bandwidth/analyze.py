"""Passes with their work and their rates, and the totals by phase."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field

from profilemate.session.session import Session
from profilemate.session.views import GraphWorker, graph_workers
from profilemate.trackers.bandwidth import events
from profilemate.trackers.bandwidth.devices import Peak, peak_of
from profilemate.trackers.bandwidth.formulas import Batch, Work, work_of
from profilemate.trackers.bandwidth.model import Model, model_of
from profilemate.trackers.bandwidth.routing import measured_shares
from profilemate.trackers.bandwidth.spread import Spread
from profilemate.trackers.bandwidth.vllm_counters import VllmCounters, is_covered
from profilemate.trackers.forward_passes.device_times import DeviceTimes, has_device
from profilemate.trackers.forward_passes.events import LATENCIES

COLUMNS = (
    "time_ns", "step", "forward", "host_ns", "clock", "phase", "tokens", "requests", "kv_tokens", "prompt_kv_tokens",
    "attention_pairs", "attention_products", "window_kv_tokens", "window_pairs", "output_rows",
)  # fmt: skip
HOST, DEVICE = "monotonic", "cuda_event"


@dataclass(frozen=True)
class Pass:
    """One forward pass of one worker. `forward_ns` is None where only the launch was timed, `work` where no model is known.

    `time_ns` since the session began.
    """

    time_ns: int
    engine: int
    step: int
    forward: int
    phase: str
    batch: Batch
    forward_ns: int | None
    clock: str
    work: Work | None
    peak: Peak

    @property
    def read_gb_per_second(self) -> float | None:
        """Weights and KV cache read, over the pass's time."""
        return self.work.read_bytes / self.forward_ns if self.work and self.forward_ns else None

    @property
    def tflops(self) -> float | None:
        """10^12 operations per second of the pass's time."""
        return self.work.flops / self.forward_ns / 1e3 if self.work and self.forward_ns else None


@dataclass
class Rates:
    """Passes of one phase. Sums of the timed ones apart: a share of all passes is sampled on a GPU."""

    passes: int = 0
    timed: int = 0
    timed_ns: int = 0
    timed_read_bytes: float = 0.0
    timed_flops: float = 0.0
    read_bytes: float = 0.0
    write_bytes: float = 0.0
    flops: float = 0.0
    gb_per_second: Spread = field(default_factory=Spread)
    tflops: Spread = field(default_factory=Spread)

    def add(self, one: Pass) -> None:
        """Count a pass."""
        self.passes += 1
        if one.work is None:
            return
        self.read_bytes += one.work.read_bytes
        self.write_bytes += one.work.kv_write_bytes
        self.flops += one.work.flops
        rate, tflops = one.read_gb_per_second, one.tflops
        if rate is not None and tflops is not None and one.forward_ns:
            self.timed += 1
            self.timed_ns += one.forward_ns
            self.timed_read_bytes += one.work.read_bytes
            self.timed_flops += one.work.flops
            self.gb_per_second.add(rate)
            self.tflops.add(tflops)


@dataclass
class CountedByVllm:
    """Sums of what `--enable-mfu-metrics` would have counted for the same passes, per GPU."""

    flops: float = 0.0
    read_bytes: float = 0.0
    write_bytes: float = 0.0


@dataclass(frozen=True)
class Worker:
    """One whose passes are shown."""

    shown: GraphWorker
    model: Model | None
    peak: Peak


@dataclass(frozen=True)
class Bandwidth:
    """The session. `as_vllm_counts` is None for models that vLLM's counters and these formulas take differently."""

    workers: tuple[Worker, ...]
    phases: dict[str, Rates]
    as_vllm_counts: CountedByVllm | None
    missing_passes: int = 0
    """Passes before the first row of each worker: the size cap removed their rows."""


def workers_of(session: Session) -> tuple[Worker, ...]:
    """One worker for each engine, as in the files about graphs and forward passes."""
    shares = measured_shares(session)
    return tuple(
        Worker(
            shown,
            model := model_of(shown.process, shares.get(shown.process.name, ())),
            peak_of(shown.process.engine_config, model.dimensions if model else {}),
        )
        for shown in graph_workers(session)
    )


def analyze(session: Session) -> Bandwidth:
    """Go through every pass once."""
    workers = workers_of(session)
    phases: dict[str, Rates] = {}
    counted = CountedByVllm()
    missing = 0
    for worker in workers:
        counters = VllmCounters.of(worker.model.dimensions) if worker.model else None
        first = None
        for one in passes_of(session, worker):
            first = first or one.forward
            phases.setdefault(one.phase or "unknown phase", Rates()).add(one)
            if counters is not None:
                more = counters.count(one.batch)
                counted.flops += more.flops
                counted.read_bytes += more.read_bytes
                counted.write_bytes += more.write_bytes
        missing += (first or 1) - 1
    is_comparable = bool(workers) and all(worker.model and is_covered(worker.model.dimensions) for worker in workers)
    return Bandwidth(workers, phases, counted if is_comparable else None, missing)


def passes(session: Session, workers: tuple[Worker, ...]) -> Iterator[Pass]:
    """Every pass of these workers in order of time."""
    return heapq.merge(*(passes_of(session, worker) for worker in workers), key=lambda one: one.time_ns)


def passes_of(session: Session, worker: Worker) -> Iterator[Pass]:
    """Every pass of one worker that has our cells."""
    process = worker.shown.process
    device_times = DeviceTimes(session.rows(process, LATENCIES))
    is_launch = has_device(session, process)
    for row in session.rows(process, events.READ, *COLUMNS):
        time_ns, step, forward, host_ns, clock, phase, *counts = row
        if None in counts[:5] or counts[8] is None:
            continue
        batch = Batch(*counts)
        device_ns = device_times.of(forward) if clock == DEVICE else None
        yield Pass(
            process.at(time_ns), worker.shown.engine, step, forward, phase or "", batch,
            device_ns if is_launch else host_ns, DEVICE if device_ns is not None else "" if is_launch else HOST,
            work_of(worker.model, batch) if worker.model else None, worker.peak,
        )  # fmt: skip
