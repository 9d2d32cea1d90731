"""Session -> how many requests ended how, how long they took, and every preemption."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass
from operator import attrgetter

from profilemate.schema.probe_tables import GAPS
from profilemate.session.durations import Durations
from profilemate.session.session import Session
from profilemate.session.spool import SortedSpool
from profilemate.trackers.requests import events
from profilemate.trackers.requests.join import lives
from profilemate.trackers.requests.life import UNFINISHED, Life, Preemption

END_NOT_KEPT = "end not kept"
"""In the place of a reason: each row of an end that the size cap took, or that did not reach the disk, is of one request."""

LATENCIES = ("ttft", "tpot", "queue", "whole_queue", "prefill", "decode", "e2e")
"""Attributes of Life without their `_ns`. Time per output token is over requests with two tokens at least."""

VALUE_OF = {name: attrgetter(f"{name}_ns") for name in LATENCIES}


@dataclass(frozen=True)
class RequestSummary:
    """All of a session. `preemptions` are in order of time."""

    requests: int
    by_reason: Counter[str]
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    latencies: dict[str, Durations]
    preemptions: SortedSpool[Preemption]
    preempted_requests: int
    counted_preemptions: int
    """What the requests themselves say; more where the hook of preemptions was not there."""
    without_statistics: int
    without_front_end: int
    without_scheduler: int
    backwards: int
    """Requests with a latency below 0: a wall clock was set back, or those of two hosts differ."""
    removed_requests: int
    removed_preemptions: int
    """Of those counted, whose rows the size cap took."""

    @property
    def unfinished(self) -> int:
        """Requests whose end was not seen."""
        return self.by_reason[UNFINISHED]

    @property
    def end_not_kept(self) -> int:
        """Requests that ended, and the rows of their ends are not there."""
        return self.by_reason[END_NOT_KEPT]


class _Tally:
    """What is added up over the requests."""

    def __init__(self) -> None:
        self.by_reason: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()
        self.latencies = {name: Durations() for name in LATENCIES}
        self.preemptions: SortedSpool[Preemption] = SortedSpool(attrgetter("time_ns", "engine", "request"))
        self.preempted = 0

    def add(self, life: Life) -> None:
        counts = self.counts
        self.by_reason[life.finish_reason] += 1
        counts["prompt"] += life.prompt_tokens or 0
        counts["cached"] += life.cached_tokens or 0
        counts["output"] += life.output_tokens or 0
        counts["preemptions"] += life.preemptions
        counts["front_end"] += life.arrival_ns is not None or bool(life.reason)
        counts["scheduler"] += life.engine is not None
        counts["without_statistics"] += bool(life.reason and life.output_tokens and not life.has_statistics)
        self.preemptions.extend(life.preempted)
        self.preempted += bool(life.preempted)
        backwards = False
        for name, latency in self.latencies.items():
            value = VALUE_OF[name](life)
            if value is None:
                continue
            backwards = backwards or value < 0
            if name != "tpot" or (life.output_tokens or 0) > 1:
                latency.add(max(0, value))
        counts["backwards"] += backwards


def analyze(session: Session) -> RequestSummary:
    """Join the rows of front ends and schedulers and add up."""
    tally = _Tally()
    for life in lives(session):
        tally.add(life)
    requests = tally.by_reason.total()
    totals = _totals(session)
    removed = max(0, max(totals["arrived"], totals["freed"]) - requests)
    _set_apart(tally.by_reason, _lost_ends(session) - removed)
    return RequestSummary(
        requests=requests,
        by_reason=tally.by_reason,
        prompt_tokens=tally.counts["prompt"],
        cached_tokens=tally.counts["cached"],
        output_tokens=tally.counts["output"],
        latencies=tally.latencies,
        preemptions=tally.preemptions,
        preempted_requests=tally.preempted,
        counted_preemptions=tally.counts["preemptions"],
        without_statistics=tally.counts["without_statistics"],
        without_front_end=requests - tally.counts["front_end"],
        without_scheduler=requests - tally.counts["scheduler"],
        backwards=tally.counts["backwards"],
        removed_requests=removed,
        removed_preemptions=max(0, totals["preempted"] - len(tally.preemptions)),
    )


def _lost_ends(session: Session) -> int:
    """Rows of requests' ends that are gone, of all front ends."""
    gaps = (session.rows(process, GAPS, "table", "rows") for process in session.processes)
    return sum(rows or 0 for found in gaps for table, rows in found if table == events.ENDS.name)


def _set_apart(by_reason: Counter[str], lost_ends: int) -> None:
    """Of the requests without an end, those did end whose rows were lost; those without any row are not among them."""
    ended = min(by_reason[UNFINISHED], max(0, lost_ends))
    by_reason.update({END_NOT_KEPT: ended, UNFINISHED: -ended})
    for reason in (END_NOT_KEPT, UNFINISHED):
        if not by_reason[reason]:
            del by_reason[reason]


def _totals(session: Session) -> Counter[str]:
    """Counts of all processes; only where rows were removed does a process have any."""
    sums: Counter[str] = Counter()
    names = events.TOTALS.columns[1:]
    for process in session.processes:
        for last in deque(session.rows(process, events.TOTALS, *names), maxlen=1):
            sums.update({name: value or 0 for name, value in zip(names, last, strict=True)})
    return sums
