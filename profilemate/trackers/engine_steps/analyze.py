"""Session -> the engine steps: exact sums, shares of time, which limits bound, and one row per step."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from operator import itemgetter
from typing import NamedTuple

from profilemate.session.durations import Durations
from profilemate.session.session import Session
from profilemate.session.stream import Row
from profilemate.session.totals import newest_block
from profilemate.session.views import EngineSpan, by_process, engine_spans
from profilemate.trackers.engine_steps import events

PREFILL, DECODE, MIXED, IDLE = "prefill", "decode", "mixed", "idle"
HALF = 0.5


class Step(NamedTuple):
    """One engine step; the fields are the columns of events.STEPS, which explain them. None is "not known"."""

    time_ns: int
    engine: int
    step: int | None
    scheduled_ns: int | None
    schedule_ns: int | None
    running: int | None
    waiting: int | None
    skipped: int | None
    step_requests: int | None
    step_tokens: int | None
    context_requests: int | None
    context_tokens: int | None
    recomputed_tokens: int | None
    step_preempted: int | None
    limit: str
    free_blocks: int | None
    max_requests: int | None
    max_step_tokens: int | None
    usable_blocks: int | None
    model_ns: int | None
    blocked_ns: int | None
    update_ns: int | None
    between_ns: int | None
    no_requests_ns: int | None
    step_finished: int | None
    drafted_tokens: int | None
    accepted_tokens: int | None
    in_flight: int | None

    @property
    def phase(self) -> str:
        """By vLLM's context and generation requests: prefill, decode or mixed; idle without tokens; empty if not known."""
        if self.step_tokens == 0:
            return IDLE
        if self.context_requests is None or self.step_requests is None:
            return ""
        if not self.context_requests:
            return DECODE
        return PREFILL if self.context_requests == self.step_requests else MIXED

    @property
    def decode_requests(self) -> int | None:
        """Generation requests."""
        return _rest(self.step_requests, self.context_requests)

    @property
    def decode_tokens(self) -> int | None:
        """Their tokens."""
        return _rest(self.step_tokens, self.context_tokens)


def _rest(whole: int | None, part: int | None) -> int | None:
    return None if whole is None or part is None else whole - part


@dataclass
class StepTotals:
    """Sums over the steps of all engines, exact also where the size cap removed rows. Named as in events.COUNTS."""

    busy_steps: int = 0
    step_tokens: int = 0
    step_requests: int = 0
    context_requests: int = 0
    context_tokens: int = 0
    recomputed_tokens: int = 0
    step_preempted: int = 0
    step_finished: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    schedule_ns: int = 0
    blocked_ns: int = 0
    update_ns: int = 0
    between_ns: int = 0
    no_requests_ns: int = 0
    no_work: int = 0
    token_budget: int = 0
    sequence_cap: int = 0
    kv_space: int = 0
    throttled: int = 0
    other: int = 0

    def add_row(self, row: Row) -> None:
        """A row of events.TOTALS."""
        for name, value in zip(events.COUNTS, row[-len(events.COUNTS) :], strict=True):
            setattr(self, name, getattr(self, name) + (value or 0))

    def add(self, other: StepTotals) -> None:
        """Another engine's."""
        for name in events.COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    @property
    def steps(self) -> int:
        """All of them, idle ones included."""
        return sum(getattr(self, limit) for limit in events.LIMITS)

    @property
    def working_ns(self) -> int:
        """Wall time of the engine's thread while its scheduler held requests, dummy batches apart."""
        return self.schedule_ns + self.blocked_ns + self.update_ns + self.between_ns


class Adder:
    """Adds steps up, a session having millions: some at a time, column by column."""

    ADDED = tuple(name for name in events.COUNTS if name in Step._fields)
    PLACES = tuple(Step._fields.index(name) for name in ADDED)
    LIMIT, TOKENS = Step._fields.index("limit"), Step._fields.index("step_tokens")
    WAITING = 1024

    def __init__(self) -> None:
        """Nothing added yet."""
        self.sums = [0] * len(self.ADDED)
        self.limits: Counter[str] = Counter()
        self.busy_steps = 0
        self._waiting: list[Row] = []

    def add(self, step: Step) -> None:
        """One step."""
        self._waiting.append(step)
        if len(self._waiting) >= self.WAITING:
            self._take_in()

    def _take_in(self) -> None:
        columns: list[Row] = list(zip(*self._waiting, strict=True))
        self._waiting.clear()
        if columns:
            self.sums = [
                total + sum(filter(None, columns[place])) for total, place in zip(self.sums, self.PLACES, strict=True)
            ]
            self.limits.update(columns[self.LIMIT])
            self.busy_steps += sum(map(bool, columns[self.TOKENS]))

    def totals(self) -> StepTotals:
        """The sums so far."""
        self._take_in()
        sums = StepTotals(**dict(zip(self.ADDED, self.sums, strict=True)), busy_steps=self.busy_steps)
        for limit in events.LIMITS:
            setattr(sums, limit, self.limits[limit])
        return sums


@dataclass
class StepSummary:
    """All engines. `phases`, the durations and what was under-used are over the rows that are there, all else over all."""

    spans: tuple[EngineSpan, ...] = ()
    totals: StepTotals = field(default_factory=StepTotals)
    schedule: Durations = field(default_factory=Durations)
    update: Durations = field(default_factory=Durations)
    phases: Counter[str] = field(default_factory=Counter)
    prefill_token_use: float = 0.0
    decode_request_use: float = 0.0
    under_used: int = 0
    rows: int = 0
    unpaired: int = 0
    is_capped: bool = False
    most_requests: int | None = None
    most_tokens: int | None = None
    request_room: int = 0
    token_room: int = 0
    dummy_steps: int = 0
    dummy_ns: int = 0
    unfinished: Counter[str] = field(default_factory=Counter)
    left_in_flight: int = 0


def analyze(session: Session) -> StepSummary:
    """Read the rows of every engine core once."""
    summary = StepSummary(engine_spans(session, events.STEPS))
    for spans in by_process(summary.spans):
        _add_process(summary, session, spans)
    for process in session.with_role("EngineCore"):
        for (reason,) in session.rows(process, events.UNFINISHED, "reason"):
            summary.unfinished[reason] += 1
        last: dict[int, int] = {}
        for engine, number, duration_ns in session.rows(
            process, events.DUMMY_STEPS, "engine", "dummy_step", "duration_ns"
        ):
            last[engine] = number or 0
            summary.dummy_ns += duration_ns or 0
        summary.dummy_steps += sum(last.values())
    return summary


class Counted:
    """What is counted of one engine while its rows go by. `through` is the last step that its totals stand for."""

    def __init__(self) -> None:
        """No row yet."""
        self.totals = StepTotals()
        self.adder = Adder()
        self.through = 0
        self.last: Step | None = None
        self.whole: Step | None = None
        """The last step whose batch is known."""

    def add(self, step: Step) -> None:
        """The next row."""
        self.last = step
        if step.max_requests is not None:
            self.whole = step
        if (step.step or 0) > self.through:
            self.adder.add(step)


def _add_process(summary: StepSummary, session: Session, spans: tuple[EngineSpan, ...]) -> None:
    engines = {span.local_engine: Counted() for span in spans}
    rows = _rows_of(session, spans)
    block = newest_block(session, spans[0].process, events.TOTALS)
    for row in block.rows if block else ():
        if row[1] in engines:
            engines[row[1]].totals.add_row(row)
            engines[row[1]].through, summary.is_capped = row[2] or 0, True
    for local_engine, step in rows:
        _add_step(summary, step)
        engines[local_engine].add(step)
    for counted in engines.values():
        _add_engine(summary, counted)


def _add_engine(summary: StepSummary, counted: Counted) -> None:
    totals = counted.totals
    totals.add(counted.adder.totals())
    if counted.last is not None:
        summary.left_in_flight += counted.last.in_flight or 0
    if counted.whole is not None:
        summary.most_requests, summary.most_tokens = counted.whole.max_requests, counted.whole.max_step_tokens
        summary.request_room += totals.busy_steps * (counted.whole.max_requests or 0)
        summary.token_room += totals.busy_steps * (counted.whole.max_step_tokens or 0)
    summary.totals.add(totals)


def _add_step(summary: StepSummary, step: Step) -> None:
    summary.rows += 1
    summary.update.add(step.update_ns or 0)
    if step.schedule_ns is None:
        summary.unpaired += 1
        return
    summary.schedule.add(step.schedule_ns)
    phase = step.phase
    summary.phases[phase] += 1
    if step.step_tokens and step.max_step_tokens and step.max_requests:
        tokens, requests = step.step_tokens / step.max_step_tokens, (step.step_requests or 0) / step.max_requests
        summary.under_used += tokens < HALF and requests < HALF
        if phase == DECODE:
            summary.decode_request_use += requests
        elif phase:
            summary.prefill_token_use += tokens


def _rows_of(session: Session, spans: tuple[EngineSpan, ...]) -> Iterator[tuple[int, Step]]:
    """Engines and steps of one process in order, its files opened now."""
    rows = session.rows(spans[0].process, events.STEPS)
    offset_ns, numbers = spans[0].process.offset_ns, {span.local_engine: span.engine for span in spans}
    return ((row[1], _step(offset_ns, numbers[row[1]], row)) for row in rows if row[1] in numbers)


def steps_of(session: Session, spans: tuple[EngineSpan, ...]) -> Iterator[Step]:
    """Steps of one process in order, its files opened now; `engine` is the number in the session, times are the session's."""
    return (step for _, step in _rows_of(session, spans))


def _step(offset_ns: int, engine: int, row: Row) -> Step:
    begun_ns = None if row[3] is None else row[3] + offset_ns
    return Step._make((row[0] + offset_ns, engine, row[2], begun_ns, *row[4:]))


def steps(session: Session, spans: tuple[EngineSpan, ...]) -> Iterator[Step]:
    """Steps of all engines in the order in which they ended."""
    return heapq.merge(*(steps_of(session, group) for group in by_process(spans)), key=itemgetter(0))
