"""Session -> what the KV cache did: exact totals of every engine, peak, hit rate, and usage over time."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, NamedTuple

from profilemate.session.order import nearly_sorted
from profilemate.session.session import Session
from profilemate.session.stream import Row
from profilemate.session.views import EngineSpan, by_process, engine_spans
from profilemate.trackers.kv_cache import events


class UsagePoint(NamedTuple):
    """Blocks in use at a moment since the session began, over all engines; `engine` is the one it is from."""

    time_ns: int
    engine: int
    kind: str
    in_use: int
    total_blocks: int


class Eviction(NamedTuple):
    """One eviction; lifetime and idle time are None for a block from before ProfileMate came."""

    time_ns: int
    engine: int
    block_id: int | None
    lifetime_ns: int | None
    idle_ns: int | None
    cause: str


@dataclass(frozen=True)
class KvTotals:
    """Exact counters summed over engines, named as in events.STEPS; times in nanoseconds."""

    step: int = 0
    allocated: int = 0
    touched: int = 0
    touched_free: int = 0
    released: int = 0
    freed: int = 0
    evicted: int = 0
    lifetime_ns: int = 0
    idle_ns: int = 0
    timed_evictions: int = 0
    failed_allocations: int = 0
    preemptions: int | None = 0
    resets: int = 0
    query_requests: int = 0
    query_tokens: int = 0
    hit_tokens: int = 0
    preempted_query_tokens: int = 0
    preempted_hit_tokens: int = 0
    operations: int = 0
    busy_steps: int = 0
    output_steps: int = 0
    scheduled_tokens: int = 0
    prompt_tokens: int = 0

    @property
    def hit_rate(self) -> float | None:
        """Found among looked-up tokens, as vLLM's metric; None where nothing was looked up."""
        return self.hit_tokens / self.query_tokens if self.query_tokens else None

    @property
    def mean_lifetime_seconds(self) -> float | None:
        """Allocation to eviction, over evictions with a known birth."""
        return self.lifetime_ns / self.timed_evictions / 1e9 if self.timed_evictions else None

    @property
    def mean_idle_seconds(self) -> float | None:
        """Last use to eviction, over the same evictions."""
        return self.idle_ns / self.timed_evictions / 1e9 if self.timed_evictions else None


@dataclass(frozen=True)
class KvEngine:
    """Last known state of one engine. Times in nanoseconds since the session began."""

    engine: int
    process: str
    as_of_ns: int
    total_blocks: int
    in_use: int
    cached_free: int | None
    peak: int
    peak_time_ns: int | None
    totals: KvTotals


@dataclass(frozen=True)
class KvSummary:
    """All engines. The peak is exact for one engine; for several it is that of the sum of their last known states."""

    engines: tuple[KvEngine, ...]
    totals: KvTotals
    peak: UsagePoint | None
    last: UsagePoint | None
    peak_is_exact: bool
    spans: tuple[EngineSpan, ...] = ()

    @property
    def as_of_ns(self) -> int | None:
        """When the last engine step was recorded."""
        return max((engine.as_of_ns for engine in self.engines), default=None)


MAY_BE_UNKNOWN = {"preemptions"}
BEGUN = "begun"
COLUMN = {name: index for index, name in enumerate(events.STEPS.columns)}


def spans_of(session: Session) -> tuple[EngineSpan, ...]:
    """The engines of a session; one killed before its first step's end still has rows of usage or evictions."""
    return engine_spans(session, events.STEPS, events.USAGE, events.EVICTIONS)


def analyze(session: Session) -> KvSummary:
    """Read the KV streams of every engine core."""
    spans = spans_of(session)
    engines = tuple(_engine(span) for span in spans if span.table == events.STEPS.name)
    peak = last = None
    for last in usage_points(session, spans):
        if peak is None or last.in_use > peak.in_use:
            peak = last
    alone = len({span.engine for span in spans}) < 2
    return KvSummary(engines, _summed(engine.totals for engine in engines), peak, last, alone, spans)


def _engine(span: EngineSpan) -> KvEngine:
    row = span.last_row
    peak_time_ns = row[COLUMN["peak_time_ns"]]
    return KvEngine(
        engine=span.engine,
        process=span.process.name,
        as_of_ns=span.last_ns,
        total_blocks=row[COLUMN["total_blocks"]],
        in_use=row[COLUMN["in_use"]],
        cached_free=row[COLUMN["cached_free"]],
        peak=row[COLUMN["peak"]] or 0,
        peak_time_ns=span.process.at(peak_time_ns) if peak_time_ns else None,
        totals=_totals(row),
    )


def _totals(row: Row) -> KvTotals:
    """What a version does not tell stays unknown."""
    cells = {name: row[COLUMN[name]] for name in KvTotals.__dataclass_fields__}
    return KvTotals(**{name: cell if cell is not None or name in MAY_BE_UNKNOWN else 0 for name, cell in cells.items()})


def _summed(totals: Iterable[KvTotals]) -> KvTotals:
    sums: dict[str, Any] = dict.fromkeys(KvTotals.__dataclass_fields__, 0)
    for one in totals:
        for name in sums:
            more = getattr(one, name)
            sums[name] = None if None in (sums[name], more) else sums[name] + more
    return KvTotals(**sums)


def usage_points(session: Session, spans: tuple[EngineSpan, ...]) -> Iterator[UsagePoint]:
    """Rows of kv_cache_usage.csv in order of time.

    Every interval row, one row at the peak of each engine number, and the last state of each engine; the blocks are the
    sum of what was last known of every engine. One that runs and has not written a row yet has its cache, all of it free.
    """
    best = _peak_spans(spans)
    sources = [
        _usage_of(session, span, span in best) if span.table == events.STEPS.name else _usage_alone(session, span)
        for span in spans
    ]
    states: dict[int, tuple[int, int]] = {}
    all_in_use = all_total = 0
    for time_ns, engine, kind, in_use, total in heapq.merge(_begun(spans), *sources, key=_order):
        if kind == BEGUN and engine in states:
            continue
        in_use_before, total_before = states.get(engine, (0, 0))
        states[engine] = (in_use, total)
        all_in_use += in_use - in_use_before
        all_total += total - total_before
        if kind == BEGUN:
            continue
        yield UsagePoint(time_ns, engine, kind, all_in_use, all_total)


def _begun(spans: tuple[EngineSpan, ...]) -> list[tuple[int, int, str, int, int]]:
    """When the process of each engine began: of several engines in one process only the first was there from then on."""
    total = COLUMN["total_blocks"]
    points = [
        (span.process.at(span.process.began_ns), span.engine, BEGUN, 0, span.last_row[total] or 0)
        for group in by_process(spans)
        for span in group[:1]
        if span.table == events.STEPS.name and span.process.began_ns
    ]
    return sorted(points)


def _order(point: tuple[int, int, str, int, int]) -> tuple[int, bool, int]:
    """By time; what else happened at the moment of a last state came before it."""
    return point[0], point[2] == "last", point[1]


def _peak_spans(spans: tuple[EngineSpan, ...]) -> list[EngineSpan]:
    best: dict[int, EngineSpan] = {}
    for span in spans:
        row = span.last_row
        if span.table != events.STEPS.name:
            continue
        if row[COLUMN["peak"]] and row[COLUMN["peak_time_ns"]]:
            known = best.get(span.engine)
            if known is None or row[COLUMN["peak"]] > known.last_row[COLUMN["peak"]]:
                best[span.engine] = span
    return list(best.values())


def _usage_rows(session: Session, span: EngineSpan) -> Iterator[tuple[int, int, str, int, int]]:
    columns = ("time_ns", "engine", "kind", "in_use", "total_blocks")
    for time_ns, local_engine, kind, in_use, total in session.rows(span.process, events.USAGE, *columns):
        if local_engine == span.local_engine:
            yield span.process.at(time_ns), span.engine, kind, in_use, total


def _usage_of(session: Session, span: EngineSpan, with_peak: bool) -> Iterator[tuple[int, int, str, int, int]]:
    row = span.last_row
    total = row[COLUMN["total_blocks"]]
    intervals = (point for point in _usage_rows(session, span) if point[2] == "interval")
    extra = [(span.last_ns, span.engine, "last", row[COLUMN["in_use"]], total)]
    if with_peak:
        extra.append((span.process.at(row[COLUMN["peak_time_ns"]]), span.engine, "peak", row[COLUMN["peak"]], total))
    return heapq.merge(intervals, sorted(extra, key=_order), key=_order)


def _usage_alone(session: Session, span: EngineSpan) -> Iterator[tuple[int, int, str, int, int]]:
    """Intervals and the highest peak of an engine that left no engine_steps row, its last row being the last state."""
    highest: tuple[int, int, str, int, int] | None = None
    if span.table != events.USAGE.name:
        return iter(())
    for point in _usage_rows(session, span):
        if point[2] == "peak" and (highest is None or point[3] > highest[3]):
            highest = point
    intervals = (point for point in _usage_rows(session, span) if point[2] == "interval")
    return heapq.merge(intervals, [highest] if highest else [], key=_order)


def evictions(session: Session, spans: tuple[EngineSpan, ...]) -> Iterator[Eviction]:
    """Every recorded eviction of every engine, in order of time."""
    sources = (_evictions_of(session, group) for group in by_process(spans))
    return heapq.merge(*sources, key=itemgetter(0, 1))


def _evictions_of(session: Session, spans: tuple[EngineSpan, ...]) -> Iterator[Eviction]:
    """Those of one process, whose file is read once; engines that take turns write them nearly in order."""
    by_engine = {span.local_engine: span for span in spans}
    rows = session.rows(spans[0].process, events.EVICTIONS)
    found = (_eviction(by_engine[row[1]], row) for row in rows if row[1] in by_engine)
    return found if len(spans) == 1 else nearly_sorted(found, lambda eviction: eviction.time_ns)


def _eviction(span: EngineSpan, row: Row) -> Eviction:
    time_ns, _, block_id, allocated_ns, used_ns, cause = row
    is_timed = allocated_ns is not None and used_ns is not None
    return Eviction(
        span.process.at(time_ns),
        span.engine,
        block_id,
        time_ns - allocated_ns if is_timed else None,
        time_ns - used_ns if is_timed else None,
        cause,
    )
