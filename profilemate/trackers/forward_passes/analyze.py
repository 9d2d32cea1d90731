"""Session -> the serving forward passes by phase: how many, of what size, and how long they took."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import NamedTuple

from profilemate.session.durations import Durations
from profilemate.session.records import ProcessInfo
from profilemate.session.session import Session
from profilemate.session.stream import Row
from profilemate.session.totals import newest_block
from profilemate.session.views import GraphWorker, graph_workers, missing_ranks
from profilemate.trackers.forward_passes import events
from profilemate.trackers.forward_passes.device_times import DeviceTimes, has_device

UNKNOWN = "unknown"
"""Phase of the passes of a vLLM that does not tell which requests are in their context phase."""

PHASES = ("prefill", "decode", "mixed", UNKNOWN)
COLUMNS = (
    "time_ns", "step", "forward", "runtime_mode", "host_ns", "phase", "requests", "tokens", "context_requests",
    "context_tokens", "execute_ns", "sample_ns",
)  # fmt: skip


class ForwardPass(NamedTuple):
    """One serving pass. Times in nanoseconds, `time_ns` since the session began; None is "not known"."""

    time_ns: int
    engine: int
    forward: int
    step: int | None
    phase: str
    mode: str
    requests: int
    tokens: int
    context_requests: int | None
    context_tokens: int | None
    duration_ns: int | None
    clock: str
    """cuda_event, monotonic, or empty where the pass has no duration."""
    host_ns: int | None
    execute_ns: int | None
    sample_ns: int | None


@dataclass
class PhaseTimes:
    """Passes of one phase over all engines. `passes` and the sums are of the whole session, the durations of kept rows."""

    phase: str
    passes: int = 0
    requests: int = 0
    tokens: int = 0
    context_tokens: int = 0
    durations: Durations = field(default_factory=Durations)
    host: Durations = field(default_factory=Durations)
    execute: Durations = field(default_factory=Durations)
    sample: Durations = field(default_factory=Durations)
    timed_tokens: int = 0

    def count(self, passes: int, requests: int, tokens: int, context_tokens: int) -> None:
        """Take passes in, one or many."""
        self.passes += passes
        self.requests += requests
        self.tokens += tokens
        self.context_tokens += context_tokens

    def time(self, one: ForwardPass) -> None:
        """Take the times of a pass in."""
        for durations, ns in (
            (self.durations, one.duration_ns), (self.host, one.host_ns), (self.execute, one.execute_ns),
            (self.sample, one.sample_ns),
        ):  # fmt: skip
            if ns is not None:
                durations.add(ns)
        if one.duration_ns is not None:
            self.timed_tokens += one.tokens

    @property
    def tokens_per_second(self) -> float | None:
        """Tokens of the timed passes over the time of these."""
        spent_ns = self.durations.total_ns
        return self.timed_tokens * 1e9 / spent_ns if spent_ns else None


@dataclass(frozen=True)
class ForwardSummary:
    """All engines. `kept` is how many passes still have their row, `clocks` which clocks their durations are by."""

    phases: tuple[PhaseTimes, ...]
    engines: int
    kept: int
    clocks: tuple[str, ...]
    every: int | None
    findings: tuple[str, ...] = ()

    @property
    def passes(self) -> int:
        """Serving passes of the session."""
        return sum(phase.passes for phase in self.phases)

    @property
    def timed(self) -> int:
        """Kept passes that have a duration."""
        return sum(phase.durations.count for phase in self.phases)


def forward_passes(session: Session) -> Iterator[ForwardPass]:
    """Every kept serving pass, engines merged by time."""
    return heapq.merge(*(_passes(session, worker) for worker in graph_workers(session)), key=itemgetter(0, 1))


def _passes(session: Session, worker: GraphWorker) -> Iterator[ForwardPass]:
    """The kept passes of a worker; the files are opened now."""
    rows = session.rows(worker.process, events.PASSES, *COLUMNS)
    times = DeviceTimes(session.rows(worker.process, events.LATENCIES))
    return _joined(rows, times, worker, has_device(session, worker.process))


def _joined(rows: Iterator[Row], times: DeviceTimes, worker: GraphWorker, on_device: bool) -> Iterator[ForwardPass]:
    for row, following in _with_following(rows):
        device_ns = times.of(row[2])
        duration_ns = device_ns if on_device else row[4]
        clock = "" if duration_ns is None else "cuda_event" if on_device else "monotonic"
        sample_ns = following[11] if following is not None and following[2] == row[2] + 1 else None
        yield ForwardPass(
            worker.process.at(row[0]), worker.engine, row[2], row[1], row[5] if row[5] in PHASES else UNKNOWN, row[3],
            row[6] or 0, row[7] or 0, row[8], row[9], duration_ns, clock, row[4], row[10], sample_ns,
        )  # fmt: skip


def _with_following(rows: Iterable[Row]) -> Iterator[tuple[Row, Row | None]]:
    """Each row and the one after it, which has the time of `sample_tokens` after it."""
    before: Row | None = None
    for row in rows:
        if before is not None:
            yield before, row
        before = row
    if before is not None:
        yield before, None


def analyze(session: Session) -> ForwardSummary:
    """Read the passes of the workers that stand for their engines."""
    phases = {phase: PhaseTimes(phase) for phase in PHASES}
    workers = graph_workers(session)
    clocks: Counter[str] = Counter()
    for worker in workers:
        passes = _passes(session, worker)
        through = _add_totals(session, worker.process, phases)
        for one in passes:
            clocks[one.clock] += 1
            phases[one.phase].time(one)
            if one.forward > through:
                phases[one.phase].count(1, one.requests, one.tokens, one.context_tokens or 0)
    return ForwardSummary(
        phases=tuple(phase for phase in phases.values() if phase.passes),
        engines=len({worker.engine for worker in workers}),
        kept=sum(clocks.values()),
        clocks=tuple(sorted(clock for clock in clocks if clock)),
        every=_every(workers),
        findings=missing_ranks(session),
    )


def _add_totals(session: Session, process: ProcessInfo, phases: dict[str, PhaseTimes]) -> int:
    """Count the passes whose rows may be gone; returns the number of the last of them, 0 where none are."""
    block = newest_block(session, process, events.TOTALS)
    if block is None:
        return 0
    for _, _, phase, passes, requests, tokens, context_tokens in block.rows:
        phases[phase if phase in PHASES else UNKNOWN].count(
            passes or 0, requests or 0, tokens or 0, context_tokens or 0
        )
    return block.through_forward


def _every(workers: Sequence[GraphWorker]) -> int | None:
    """Each so manieth pass was to have a device time; None where no worker tells."""
    told = (worker.process.settings.get("device_timing_every") for worker in workers)
    return next((every for every in told if isinstance(every, int)), None)
