"""Session -> what was found in the prefix cache and why the rest was missed, exact over the session."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from profilemate.schema.step_table import BASE
from profilemate.session.records import ProcessInfo
from profilemate.session.session import Session
from profilemate.session.stream import Row
from profilemate.session.views import EngineSpan, engine_spans
from profilemate.trackers.prefix_lookups import events

REASONS = tuple(name for name, _, _ in events.MISSED)
SUMS = tuple(name for name, _, _ in events.TOKENS)
COLUMN = {name: index for index, name in enumerate(events.LOOKUPS.columns)}

EVICTIONS = ("prefix_lookups.remove_cached_block_hashes", "prefix_lookups.maybe_evict_cached_block")
LOSSES = (*EVICTIONS, "prefix_lookups.reset_prefix_cache")
"""Hooks that see what leaves the cache; of the first two, each vLLM version has one."""

BROKEN = ("switched_off", "does_not_fit")
ABSENT = ("absent", "not_in_this_version")


class LookupRow(NamedTuple):
    """One row of prefix_lookups. Times are nanoseconds since the session began, `tokens` by the names of events.TOKENS."""

    time_ns: int
    engine: int
    request: str
    resumed: bool
    cache_off: str
    prompt_tokens: int | None
    blocks: int | None
    tokens: dict[str, int]
    newest_ns: int | None
    median_ns: int | None
    oldest_ns: int | None
    reach_ns: int | None
    every: int

    @property
    def missed(self) -> int:
        """Tokens that had to be computed."""
        return sum(self.tokens[name] for name in REASONS)

    def age_ns(self, moment_ns: int | None) -> int | None:
        """How long before the look-up something was."""
        return None if moment_ns is None else self.time_ns - moment_ns


@dataclass
class LookupTotals:
    """Sums over look-ups, by the names of events.TOKENS."""

    lookups: int = 0
    tokens: Counter[str] = field(default_factory=Counter)

    def add(self, lookups: int, tokens: dict[str, int]) -> None:
        """Take more look-ups in."""
        self.lookups += lookups
        self.tokens.update(tokens)

    @property
    def missed(self) -> int:
        """Tokens that had to be computed."""
        return sum(self.tokens[name] for name in REASONS)


@dataclass
class LookupSummary:
    """All engines: requests that were admitted for the first time, and those that came back from a preemption.

    `ages` are evicted tokens by how many seconds before the look-up, those of a row at the median of its blocks; `capped`
    says that old rows were removed, whose ages are not among them. `sampled` look-ups did not look at every missed block.
    `blind` hooks on what leaves the cache did not always work, so that gone blocks may be told as new.
    """

    spans: tuple[EngineSpan, ...]
    first: LookupTotals = field(default_factory=LookupTotals)
    resumed: LookupTotals = field(default_factory=LookupTotals)
    ages: Counter[float] = field(default_factory=Counter)
    capped: bool = False
    sampled: int = 0
    shortest_reach_ns: int | None = None
    blind: tuple[str, ...] = ()

    def of(self, resumed: bool) -> LookupTotals:
        """Those of resumed requests, or of the others."""
        return self.resumed if resumed else self.first

    def age_seconds(self, share: float) -> float | None:
        """The age that this share of the evicted tokens did not exceed; None where there are none."""
        left = share * sum(self.ages.values())
        for age, tokens in sorted(self.ages.items()):
            left -= tokens
            if left <= 0:
                return age
        return None


def analyze(session: Session) -> LookupSummary:
    """Read the look-ups of every engine core."""
    summary = LookupSummary(engine_spans(session, BASE, events.LOOKUPS))
    for span in summary.spans:
        _add(session, span, summary)
    summary.blind = tuple(name for process in session.processes for name in _blind(process))
    return summary


def _blind(process: ProcessInfo) -> list[str]:
    """Hooks of a process that did not see everything that left the cache; where vLLM has neither place for evictions, both."""
    hooks = [hook for hook in process.hooks if hook.name in LOSSES]
    evictions = [hook for hook in hooks if hook.name in EVICTIONS]
    is_unseen = bool(evictions) and all(hook.state in ABSENT for hook in evictions)
    return [
        f"{process.role}: {hook.name}"
        for hook in hooks
        if hook.failures or hook.state in BROKEN or (is_unseen and hook in evictions)
    ]


def lookups(session: Session, spans: tuple[EngineSpan, ...]) -> Iterator[LookupRow]:
    """Every recorded look-up in order of time."""
    return heapq.merge(*(_rows_of(session, span) for span in spans), key=lambda row: row[:2])


def _rows_of(session: Session, span: EngineSpan) -> Iterator[LookupRow]:
    for row in session.rows(span.process, events.LOOKUPS):
        if row[COLUMN["engine"]] == span.local_engine:
            yield _lookup(span, row)


def _lookup(span: EngineSpan, row: Row) -> LookupRow:
    def moment(name: str) -> int | None:
        value = row[COLUMN[name]]
        return None if value is None else span.process.at(value)

    return LookupRow(
        span.process.at(row[COLUMN["time_ns"]]),
        span.engine,
        row[COLUMN["request"]],
        bool(row[COLUMN["resumed"]]),
        row[COLUMN["cache_off"]],
        row[COLUMN["prompt_tokens"]],
        row[COLUMN["blocks"]],
        {name: row[COLUMN[name]] or 0 for name in SUMS},
        moment("newest_ns"),
        moment("median_ns"),
        moment("oldest_ns"),
        moment("reach_ns"),
        row[COLUMN["every"]] or 1,
    )


def _add(session: Session, span: EngineSpan, summary: LookupSummary) -> None:
    """Sums of one engine: those that outlive their rows, and the rows that came later. The rows are opened first."""
    rows = session.rows(span.process, events.LOOKUPS)
    newest = {bool(row[2]): row for row in session.rows(span.process, events.TOTALS) if row[1] == span.local_engine}
    for resumed, row in newest.items():
        summary.capped = True
        summary.of(resumed).add(row[4] or 0, {name: value or 0 for name, value in zip(SUMS, row[5:], strict=True)})
    through = {resumed: row[3] or 0 for resumed, row in newest.items()}
    for row in rows:
        if row[COLUMN["engine"]] != span.local_engine:
            continue
        one = _lookup(span, row)
        _note_details(summary, one)
        if (row[COLUMN["lookup"]] or 0) > through.get(one.resumed, 0):
            summary.of(one.resumed).add(1, one.tokens)


def _note_details(summary: LookupSummary, one: LookupRow) -> None:
    age_ns = one.age_ns(one.median_ns)
    if age_ns is not None:
        summary.ages[float(f"{age_ns / 1e9:.3g}")] += one.tokens["evicted_tokens"]
    summary.sampled += one.every > 1
    reach_ns = one.age_ns(one.reach_ns)
    if reach_ns is not None and (summary.shortest_reach_ns is None or reach_ns < summary.shortest_reach_ns):
        summary.shortest_reach_ns = reach_ns
