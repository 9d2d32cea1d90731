"""A request's life cut into parts: where it spent its time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from profilemate.trackers.requests.life import Life

SUBMIT, QUEUE, PREFILL, DECODE, PREEMPTED, REST = "submit", "queue", "prefill", "decode", "preempted", "rest"


class Segment(NamedTuple):
    """A part of a request's life, in nanoseconds since the session began."""

    part: str
    begin_ns: int
    end_ns: int


def segments(life: Life) -> list[Segment]:
    """Its life from arrival to end, in order and without overlap; time preempted is cut out of prefill and decode."""
    moments = (
        (SUBMIT, life.arrival_ns), (QUEUE, life.queued_ns), (PREFILL, life.scheduled_ns), (DECODE, life.first_token_ns),
        (REST, life.last_token_ns),
    )  # fmt: skip
    known = [(part, moment) for part, moment in moments if moment is not None]
    ends = [moment for _, moment in known[1:]] + [life.finished_ns]
    found = []
    for (part, begin), end in zip(known, ends, strict=True):
        if end is not None and end > begin:
            found += list(_cut(Segment(part, begin, end), life))
    return found


def _cut(whole: Segment, life: Life) -> Iterator[Segment]:
    at = whole.begin_ns
    for one in sorted(life.preempted, key=lambda one: one.time_ns):
        until = one.resumed_ns if one.resumed_ns is not None else life.finished_ns
        begin, end = max(at, one.time_ns), min(whole.end_ns, until if until is not None else whole.end_ns)
        if whole.part in (PREFILL, DECODE, REST) and begin < end:
            if at < begin:
                yield Segment(whole.part, at, begin)
            yield Segment(PREEMPTED, begin, end)
            at = end
    if at < whole.end_ns:
        yield Segment(whole.part, at, whole.end_ns)


def took_ns(life: Life) -> int | None:
    """From its first known moment to its end; None of one that did not end while it was recorded."""
    if life.e2e_ns is not None:
        return life.e2e_ns
    cut = segments(life)
    return cut[-1].end_ns - cut[0].begin_ns if cut and life.finished_ns is not None else None
