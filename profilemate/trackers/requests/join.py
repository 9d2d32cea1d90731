"""Rows of front ends and schedulers -> one Life per request, in bounded memory: what is over is handed on."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from operator import itemgetter
from typing import NamedTuple

from profilemate.schema.step_table import BASE
from profilemate.schema.table import Table
from profilemate.session.records import ProcessInfo
from profilemate.session.session import Session
from profilemate.session.stream import Row
from profilemate.session.views import engine_spans
from profilemate.trackers.requests import events
from profilemate.trackers.requests.life import Life, Preemption

REMEMBERED = 1 << 14
"""Requests that are over and whose rows may still come a second time: a request that its engine's death ends is aborted too."""


class Source(NamedTuple):
    """One row, when it was made (since the session began), its table, its process, and of which engine it is."""

    time_ns: int
    table: str
    process: ProcessInfo
    engine: int
    row: Row


@dataclass(frozen=True)
class Halves:
    """Which halves the session has at all: without one, nobody waits for it."""

    front_end: bool
    scheduler: bool


def halves_of(session: Session) -> Halves:
    """Whether any front end, and any scheduler, wrote rows about requests."""

    def has(*tables: Table) -> bool:
        return any(session.has_rows(process, table) for process in session.processes for table in tables)

    return Halves(has(events.ARRIVALS, events.ENDS), has(events.IN_ENGINE))


def lives(session: Session) -> Iterator[Life]:
    """Every request once, in the order in which they were over; those that were not come last."""
    halves = halves_of(session)
    known: dict[str, Life] = {}
    over: dict[str, None] = {}
    for source in _sources(session):
        request = source.row[REQUEST_AT[source.table]]
        life = known.get(request)
        if life is not None and source.table == events.ARRIVALS.name and (life.reason or life.status):
            yield known.pop(request)  # vLLM before 0.14 leaves the client's ids, which may come again
            life = None
        if life is None:
            if request in over and source.table != events.ARRIVALS.name:
                continue
            over.pop(request, None)
            life = known[request] = Life(request)
        READERS[source.table](life, source)
        if (life.reason or not halves.front_end) and (life.status or not halves.scheduler):
            yield known.pop(request)
            over[request] = None
            if len(over) > REMEMBERED:
                del over[next(iter(over))]
    yield from known.values()


def _sources(session: Session) -> Iterator[Source]:
    numbers = {
        (span.process.name, span.local_engine): span.engine for span in engine_spans(session, BASE, events.IN_ENGINE)
    }
    return heapq.merge(
        *(_rows(session, process, table, numbers) for process in session.processes for table in IN_ORDER),
        key=itemgetter(0),
    )


def _rows(
    session: Session, process: ProcessInfo, table: Table, numbers: dict[tuple[str, int], int]
) -> Iterator[Source]:
    has_engine, request_at = "engine" in table.columns, REQUEST_AT[table.name]
    name, offset_ns, table_name = process.name, process.offset_ns, table.name
    for row in session.rows(process, table):
        if row[0] is not None and row[request_at]:
            engine = numbers.get((name, row[1] if has_engine else 0), 0)
            yield Source(row[0] + offset_ns, table_name, process, engine, row)


def _arrived(life: Life, source: Source) -> None:
    _, _, external, arrival_ns, prompt_tokens, priority = source.row
    if life.arrival_ns is None and arrival_ns is not None:
        life.arrival_ns = source.process.at(arrival_ns)
    life.external, life.prompt_tokens, life.priority = external, prompt_tokens, priority


def _ended(life: Life, source: Source) -> None:
    if life.reason:
        return
    (_, _, life.reason, is_counted, end_ns, life.vllm_e2e_ns, life.vllm_ttft_ns, *moments,
     prompt_tokens, cached_tokens, output_tokens, preemptions) = source.row  # fmt: skip
    life.is_counted = bool(is_counted)
    life.end_ns = source.time_ns if end_ns is None else source.process.at(end_ns)
    offset_ns = source.process.offset_ns if life.engine_offset_ns is None else life.engine_offset_ns
    for name, moment in zip(MOMENTS, moments, strict=True):
        if moment is not None:
            setattr(life, name, moment + offset_ns)
            life.has_statistics = True
    life.prompt_tokens = first_known(prompt_tokens, life.prompt_tokens)
    life.cached_tokens = first_known(cached_tokens, life.cached_tokens)
    life.output_tokens = first_known(output_tokens, life.output_tokens)
    life.counted_preemptions = max(preemptions or 0, life.counted_preemptions or 0)
    _fill_last_token(life)


MOMENTS = ("queued_ns", "scheduled_ns", "first_token_ns", "last_token_ns")


def first_known(first: int | None, second: int | None) -> int | None:
    """The first that is not None."""
    return second if first is None else first


def _in_engine(life: Life, source: Source) -> None:
    (_, _, _, _, event, *moments, prompt_tokens, cached_tokens, steps, output_tokens, preemptions, priority,
     status) = source.row  # fmt: skip
    life.engine = source.engine
    life.engine_offset_ns = source.process.offset_ns
    for name, moment in zip(MOMENTS, moments, strict=False):
        if moment is not None and getattr(life, name) is None:
            setattr(life, name, source.process.at(moment))
    if steps is not None:
        life.prefill_steps = (life.prefill_steps or 0) + steps
    life.prompt_tokens = first_known(life.prompt_tokens, prompt_tokens)
    life.cached_tokens = first_known(life.cached_tokens, cached_tokens)
    if life.preempted and life.preempted[0].started_ns is None:
        life.preempted[0].started_ns = life.scheduled_ns
    if event == "finished":
        life.status = status or "?"
        life.freed_ns = source.time_ns
        life.priority = first_known(life.priority, priority)
        life.output_tokens = first_known(life.output_tokens, output_tokens)
        life.counted_preemptions = max(preemptions or 0, life.counted_preemptions or 0)
        for one in life.preempted[-1:]:
            if one.resumed_ns is None:
                one.outcome = "ended while preempted"
        _fill_last_token(life)


def _fill_last_token(life: Life) -> None:
    """A request that vLLM keeps no statistics of, and that was not aborted, is freed in the step of its last token."""
    if (
        life.last_token_ns is None
        and life.first_token_ns is not None
        and life.status not in ("", "?", "ABORTED", "ERROR")
    ):
        life.last_token_ns = life.freed_ns


def _preempted(life: Life, source: Source) -> None:
    (_, _, step, _, event, number, reason, for_request, asked, lost, free, kept, recomputed) = source.row
    if life.engine is None:
        life.engine, life.engine_offset_ns = source.engine, source.process.offset_ns
    if event == "preempted":
        started_ns = life.preempted[-1].resumed_ns if life.preempted else life.scheduled_ns
        life.preempted.append(
            Preemption(source.time_ns, life.request, source.engine, step, number or 0, reason, for_request, asked, lost,
                       free, started_ns)
        )  # fmt: skip
        return
    one = next((one for one in reversed(life.preempted) if one.number == number), None)
    if one is None:
        return
    one.outcome = event
    if event == "resumed":
        one.resumed_ns, one.kept_tokens = source.time_ns, kept
    else:
        one.recomputed_tokens = recomputed
        one.recovered_ns = source.time_ns if event == "recovered" else None


IN_ORDER = (events.ARRIVALS, events.PREEMPTIONS, events.IN_ENGINE, events.ENDS)
"""Of rows of one moment: a request's end in the scheduler comes after what its last preemption came to."""

REQUEST_AT = {table.name: table.columns.index("request") for table in events.TABLES if "request" in table.columns}
READERS = {
    events.ARRIVALS.name: _arrived,
    events.ENDS.name: _ended,
    events.IN_ENGINE.name: _in_engine,
    events.PREEMPTIONS.name: _preempted,
}
