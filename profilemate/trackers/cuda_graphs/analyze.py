"""Session -> what the CUDA graphs did: replays, captures and padding by descriptor, and what was not explained."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from profilemate.session import views
from profilemate.session.records import ProcessInfo
from profilemate.session.session import Session
from profilemate.trackers.cuda_graphs import events
from profilemate.trackers.cuda_graphs.graph import Descriptor
from profilemate.trackers.cuda_graphs.tally import MAIN, Counts, Tally, compare_ranks, count_forwards, count_others

ENCODER = "encoder"
THROWN_AWAY = "estimate"


@dataclass(frozen=True)
class Source:
    """A worker that tells about an engine's graphs: the last pipeline stage, and the first one for encoders."""

    process: ProcessInfo
    engine: int
    is_last: bool
    is_first: bool

    def shows(self, owner: str) -> bool:
        """Whether the rows of this owner count here."""
        return self.is_first if owner == ENCODER else self.is_last


@dataclass(frozen=True)
class Capture:
    """One captured descriptor of one engine. `time_ns` counts from the beginning of the session."""

    engine: int
    time_ns: int
    purpose: str
    owner: str
    descriptor: Descriptor
    duration_ns: int | None
    graphs: int | None
    memory_bytes: int | None
    site: str


@dataclass(frozen=True)
class GraphUsage:
    """One graph, summed over engines. Token and time sums are over the forward passes that replayed it."""

    owner: str
    descriptor: Descriptor
    replays: int
    pieces: int
    captures: int
    serving_captures: int
    unpadded_tokens: int
    padded_tokens: int
    host_ns: int


@dataclass(frozen=True)
class PhaseReplays:
    """Replays in one phase; `actual` is None unless the check mode counted them at torch."""

    phase: str
    explained: int
    actual: int | None

    @property
    def unexplained(self) -> int | None:
        """Replays that no site of the tracker saw."""
        return None if self.actual is None else self.actual - self.explained


@dataclass(frozen=True)
class Coverage:
    """Serving forward passes of the main model by how they ran; `faults` are passes that were not plain."""

    full: int
    piecewise: int
    none: int
    faults: tuple[tuple[str, int], ...]

    @property
    def forwards(self) -> int:
        """All of them."""
        return self.full + self.piecewise + self.none


@dataclass(frozen=True)
class GraphSummary:
    """All of it. `usages` holds the main model's graphs, most replayed first; `others` those of drafter and encoder."""

    usages: tuple[GraphUsage, ...]
    others: tuple[GraphUsage, ...]
    captures: tuple[Capture, ...]
    coverage: Coverage
    phases: tuple[PhaseReplays, ...]
    findings: tuple[str, ...]
    capped: bool

    @property
    def replays(self) -> int:
        """Forward passes that replayed a graph of the main model."""
        return sum(usage.replays for usage in self.usages)

    @property
    def padded_tokens(self) -> int:
        """Tokens computed in these."""
        return sum(usage.padded_tokens for usage in self.usages)

    @property
    def padding_tokens(self) -> int:
        """Of these, tokens that nobody had scheduled."""
        return self.padded_tokens - sum(usage.unpadded_tokens for usage in self.usages)

    @property
    def padding_fraction(self) -> float | None:
        """Padding among the tokens of replayed passes; None where there was no such pass."""
        return self.padding_tokens / self.padded_tokens if self.padded_tokens else None

    @property
    def never_replayed(self) -> tuple[GraphUsage, ...]:
        """Graphs captured for serving that no forward pass replayed."""
        return tuple(usage for usage in self.usages if usage.serving_captures and not usage.replays)


def analyze(session: Session) -> GraphSummary:
    """Read the graph streams of every worker; sums are over those that stand for their engines."""
    counted = {process.name: count_forwards(session, process) for process in session.with_role("Worker")}
    captures = read_captures(session)
    main, others = Counts(), Counts()
    for source in sources(session):
        if source.is_last:
            main.add(counted[source.process.name])
        others.add(count_others(session, source.process, source.shows))
    return GraphSummary(
        usages=_usages(
            {(MAIN, *key): tally for key, tally in main.tallies.items()},
            [capture for capture in captures if capture.owner == MAIN],
        ),
        others=_usages(others.tallies, [capture for capture in captures if capture.owner != MAIN]),
        captures=captures,
        coverage=_coverage(main),
        phases=_phases(session),
        findings=(*views.missing_ranks(session), *_disagreements(session, counted), *_unexplained(session)),
        capped=main.capped,
    )


def sources(session: Session) -> tuple[Source, ...]:
    """Whose graph rows are shown."""
    last = {worker.process.name: worker for worker in views.graph_workers(session)}
    first = {worker.process.name: worker for worker in views.graph_workers(session, last_stage=False)}
    return tuple(
        Source(worker.process, worker.engine, name in last, name in first) for name, worker in {**last, **first}.items()
    )


def read_captures(session: Session) -> tuple[Capture, ...]:
    """Captures that vLLM kept, in order of time; those of the memory estimate are thrown away by vLLM and left out."""
    found = [
        Capture(source.engine, source.process.at(row[0]), row[1], row[2], Descriptor.of(row[3:12]), *row[12:])
        for source in sources(session)
        for row in session.rows(source.process, events.CAPTURES)
        if row[1] != THROWN_AWAY and source.shows(row[2])
    ]
    return tuple(sorted(found, key=lambda capture: (capture.time_ns, capture.engine, capture.descriptor.order)))


def _usages(tallies: dict[tuple[object, ...], Tally], captures: Iterable[Capture]) -> tuple[GraphUsage, ...]:
    captured: dict[tuple[object, ...], list[Capture]] = {}
    for capture in captures:
        captured.setdefault((capture.owner, *capture.descriptor), []).append(capture)
    replayed = [key for key, tally in tallies.items() if tally.replays]
    usages = [
        _usage(key, tallies.get(key) or Tally(), captured.get(key, [])) for key in dict.fromkeys([*replayed, *captured])
    ]
    return tuple(sorted(usages, key=lambda usage: (-usage.replays, usage.owner, usage.descriptor.order)))


def _usage(key: tuple[object, ...], tally: Tally, captures: list[Capture]) -> GraphUsage:
    return GraphUsage(
        owner=str(key[0]),
        descriptor=Descriptor.of(key[1:]),
        replays=tally.replays,
        pieces=tally.graphs,
        captures=len(captures),
        serving_captures=sum(1 for capture in captures if capture.purpose == "serving"),
        unpadded_tokens=tally.unpadded_tokens,
        padded_tokens=tally.padded_tokens,
        host_ns=tally.host_ns,
    )


def _coverage(main: Counts) -> Coverage:
    by_mode = {"FULL": 0, "PIECEWISE": 0}
    forwards = 0
    for key, tally in main.tallies.items():
        forwards += tally.forwards
        if key[0] in by_mode:
            by_mode[key[0]] += tally.replays
    full, piecewise = by_mode["FULL"], by_mode["PIECEWISE"]
    return Coverage(full, piecewise, forwards - full - piecewise, tuple(sorted(main.faults.items())))


def _last_phases(session: Session, process: ProcessInfo) -> dict[str, tuple[int, int | None]]:
    latest = {}
    for phase, explained, actual in session.rows(process, events.PHASES, "phase", "explained", "actual"):
        latest[phase] = (explained or 0, actual)
    return latest


def _phases(session: Session) -> tuple[PhaseReplays, ...]:
    sums: dict[str, PhaseReplays] = {}
    for worker in views.graph_workers(session):
        for phase, (explained, actual) in _last_phases(session, worker.process).items():
            before = sums.get(phase)
            known = actual if before is None or actual is None else _sum(before.actual, actual)
            sums[phase] = PhaseReplays(phase, explained + (before.explained if before else 0), known)
    return tuple(sums[phase] for phase in sorted(sums))


def _sum(first: int | None, second: int) -> int | None:
    return None if first is None else first + second


def _disagreements(session: Session, counted: dict[str, Counts]) -> list[str]:
    findings = []
    for group in views.tensor_parallel_groups(session):
        ranks = sorted(group)
        for rank in ranks[1:]:
            for mine, theirs in zip(group[ranks[0]], group[rank], strict=False):
                difference = compare_ranks(counted[mine.name], counted[theirs.name])
                if difference:
                    findings.append(
                        f"tensor-parallel ranks {ranks[0]} and {rank} of engine {mine.rank('dp')} disagree: "
                        f"{difference}"
                    )
    return findings


def _unexplained(session: Session) -> list[str]:
    findings = []
    for process in session.with_role("Worker"):
        for phase, (explained, actual) in sorted(_last_phases(session, process).items()):
            if actual is not None and actual != explained:
                findings.append(
                    f"{process.role}: {actual} graph replays counted at torch in phase {phase}, {explained} explained"
                )
    return findings
