"""What the probe says about itself: hooks with their calls and failures, and rows that were lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from profilemate.schema.probe_tables import GAPS, HEALTH
from profilemate.session.records import HookRecord, ProcessInfo
from profilemate.session.session import Session
from profilemate.session.stream import Row

MISFIT_STATES = ("absent", "does_not_fit")
SIZE_CAP = "size_cap"


class Timed(NamedTuple):
    """What was timed of a hook's calls: all of the first ones, a sample of the later ones. Nanoseconds."""

    first_calls: int = 0
    first_ns: int = 0
    sampled_calls: int = 0
    sampled_ns: int = 0


NOTHING_TIMED = Timed()


@dataclass(frozen=True)
class ProcessHook:
    """One hook in one process; `as_of_ns` (since the session began) is when the calls were last counted."""

    process: str
    record: HookRecord
    state: str
    calls: int
    failures: int
    as_of_ns: int | None
    timed: Timed = NOTHING_TIMED


@dataclass(frozen=True)
class HookHealth:
    """One hook over all processes. `is_counted`: a process that has it in place also tells how often it was called."""

    name: str
    tracker: str
    state: str
    reason: str
    calls: int
    failures: int
    is_counted: bool

    @property
    def part(self) -> str:
        """The part of vLLM that the hook is on: what comes before the point in its name."""
        return self.name.partition(".")[0]


@dataclass(frozen=True)
class LostRows:
    """Rows of one table of one process that are not in its streams."""

    process: str
    table: str
    reason: str
    rows: int


@dataclass(frozen=True)
class Health:
    """All of it for a session."""

    by_process: tuple[ProcessHook, ...]
    hooks: tuple[HookHealth, ...]
    lost: tuple[LostRows, ...]
    as_of_ns: int | None

    def in_state(self, *states: str) -> tuple[HookHealth, ...]:
        """Hooks that are in one of these states wherever they were tried."""
        return tuple(hook for hook in self.hooks if hook.state in states)

    @property
    def misfits(self) -> tuple[HookHealth, ...]:
        """Hooks that went in nowhere, though this vLLM should have their target."""
        return self.in_state(*MISFIT_STATES)

    @property
    def never_called(self) -> tuple[HookHealth, ...]:
        """Hooks that are in place but saw nothing, though others on the same part of vLLM did."""
        return tuple(hook for hook in self._silent if hook.part not in self.not_in_use)

    @property
    def not_in_use(self) -> dict[str, int]:
        """Parts of vLLM none of whose hooks saw anything (the model runner that does not run), and how many these are."""
        called = {hook.part for hook in self.hooks if hook.calls}
        silent = Counter(hook.part for hook in self._silent)
        return {part: count for part, count in silent.items() if part not in called}

    @property
    def _silent(self) -> tuple[HookHealth, ...]:
        return tuple(hook for hook in self.in_state("put_in") if hook.is_counted and not hook.calls)

    @property
    def failed(self) -> tuple[HookHealth, ...]:
        """Hooks whose own code raised, switched off or not."""
        return tuple(hook for hook in self.hooks if hook.failures or hook.state == "switched_off")


def read_health(session: Session) -> Health:
    """Put process.json and the health and gaps streams of all processes together."""
    by_process = tuple(hook for process in session.processes for hook in _process_hooks(session, process))
    lost = tuple(row for process in session.processes for row in _lost_rows(session, process))
    moments = [hook.as_of_ns for hook in by_process if hook.as_of_ns is not None]
    return Health(by_process, _merged(by_process), lost, max(moments, default=None))


def _process_hooks(session: Session, process: ProcessInfo) -> list[ProcessHook]:
    latest: dict[str, Row] = {}
    for row in session.rows(process, HEALTH):
        latest[row[1]] = row
    as_of_ns = max((process.at(row[0]) for row in latest.values()), default=None)
    records = {record.name: record for record in process.hooks}
    for name in latest:
        records.setdefault(name, HookRecord(name, "", "", "", ""))
    return [_process_hook(process, record, latest.get(record.name), as_of_ns) for record in records.values()]


def _process_hook(process: ProcessInfo, record: HookRecord, row: Row | None, as_of_ns: int | None) -> ProcessHook:
    if row is None:
        return ProcessHook(process.name, record, record.state, 0, record.failures, as_of_ns)
    _, _, told, calls, failures, *timed = row
    state = told if told == "switched_off" else record.state or told
    timing = Timed(*(cell or 0 for cell in timed))
    failed = max(failures or 0, record.failures)
    return ProcessHook(process.name, record, state, calls or 0, failed, as_of_ns, timing)


STATE_ORDER = ("switched_off", "put_in", "does_not_fit", "absent", "waiting", "not_in_this_version", "tracker_off")
"""Of a hook's states in several processes, the first of these counts: where it went in it went in."""


def _merged(by_process: Iterable[ProcessHook]) -> tuple[HookHealth, ...]:
    groups: dict[str, list[ProcessHook]] = {}
    for hook in by_process:
        groups.setdefault(hook.record.name, []).append(hook)
    return tuple(_merge(name, hooks) for name, hooks in groups.items())


def _merge(name: str, hooks: list[ProcessHook]) -> HookHealth:
    first = min(hooks, key=lambda hook: _state_order(hook.state))
    return HookHealth(
        name,
        first.record.tracker,
        first.state,
        next((hook.record.reason for hook in [first, *hooks] if hook.record.reason), ""),
        sum(hook.calls for hook in hooks),
        sum(hook.failures for hook in hooks),
        any(hook.as_of_ns is not None and hook.state == "put_in" for hook in hooks),
    )


def _state_order(state: str) -> int:
    return STATE_ORDER.index(state) if state in STATE_ORDER else len(STATE_ORDER)


def _lost_rows(session: Session, process: ProcessInfo) -> list[LostRows]:
    counts: dict[tuple[str, str], int] = {}
    for table, rows, reason in session.rows(process, GAPS, "table", "rows", "reason"):
        counts[table, reason] = counts.get((table, reason), 0) + (rows or 0)
    return [LostRows(process.name, table, reason, rows) for (table, reason), rows in sorted(counts.items())]
