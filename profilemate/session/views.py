"""Whose rows the README's files show: one tensor-parallel replica of the last pipeline stage, every engine core."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from profilemate.schema.table import Table
from profilemate.session.records import ProcessInfo
from profilemate.session.session import Session
from profilemate.session.stream import Row


@dataclass(frozen=True)
class GraphWorker:
    """A worker whose graph rows stand for its engine; `engine` is its data-parallel rank."""

    process: ProcessInfo
    engine: int


@dataclass(frozen=True)
class EngineSpan:
    """The rows of one scheduler: where they are, and when the first and the last came (since the session began).

    `engine` numbers engines that run at the same time: one that begins when another of its index ended has its number.
    """

    process: ProcessInfo
    local_engine: int
    engine: int
    first_ns: int
    last_ns: int
    table: str
    last_row: Row


def engine_config(session: Session) -> Mapping[str, Any]:
    """The configuration of the first engine core, else of the first worker, else of the first process that has one.

    A front end's is last: it may hold no more than what was asked for on the command line.
    """
    processes = [*session.with_role("EngineCore"), *session.with_role("Worker"), *session.processes]
    return next((process.engine_config for process in processes if process.engine_config), {})


def graph_workers(session: Session, last_stage: bool = True) -> tuple[GraphWorker, ...]:
    """One worker per engine: tensor-parallel rank 0 of the last (or first) pipeline stage, else the nearest one."""
    by_engine: dict[int, list[ProcessInfo]] = {}
    for process in session.with_role("Worker"):
        by_engine.setdefault(process.rank("dp"), []).append(process)
    return tuple(
        GraphWorker(process, engine)
        for engine, workers in sorted(by_engine.items())
        for process in _representatives(workers, last_stage)
    )


def _representatives(workers: Sequence[ProcessInfo], last_stage: bool) -> list[ProcessInfo]:
    stages = [process.rank("pp") for process in workers]
    stage = max(stages) if last_stage else min(stages)
    on_stage = [process for process in workers if process.rank("pp") == stage]
    rank = min(process.rank("tp") for process in on_stage)
    return [process for process in on_stage if process.rank("tp") == rank]


def missing_ranks(session: Session) -> tuple[str, ...]:
    """Sentences about files that show another rank than they should, since that one was not recorded."""
    findings = []
    for worker in graph_workers(session):
        ranks, stages = worker.process.ranks, worker.process.ranks.get("pp_size", 1)
        if worker.process.rank("tp") or worker.process.rank("pp") < stages - 1:
            findings.append(
                f"engine {worker.engine}: tensor-parallel rank 0 of the last pipeline stage was not recorded; "
                f"its files show {worker.process.role} (tp {ranks.get('tp', 0)}, pp {ranks.get('pp', 0)})"
            )
    return tuple(findings)


def tensor_parallel_groups(session: Session) -> tuple[dict[int, list[ProcessInfo]], ...]:
    """Workers by tensor-parallel rank, one mapping per engine and stage that has several ranks."""
    groups: dict[tuple[int, int], dict[int, list[ProcessInfo]]] = {}
    for process in session.with_role("Worker"):
        group = groups.setdefault((process.rank("dp"), process.rank("pp")), {})
        group.setdefault(process.rank("tp"), []).append(process)
    return tuple(group for _, group in sorted(groups.items()) if len(group) > 1)


def engine_spans(session: Session, *tables: Table) -> tuple[EngineSpan, ...]:
    """Every scheduler with its last row, in order of beginning.

    The tables have `time_ns` and `engine`; of each process the first one that has rows tells.
    """
    spans: list[EngineSpan] = []
    for process in session.processes:
        found = (_spans_of(session, process, table) for table in tables)
        spans += next((some for some in found if some), [])
    return number_spans(spans)


def number_spans(spans: Iterable[EngineSpan]) -> tuple[EngineSpan, ...]:
    """The same spans with the number that each scheduler has in the session, in order of beginning."""
    return _numbered(sorted(spans, key=lambda span: (span.first_ns, span.process.name, span.local_engine)))


def by_process(spans: tuple[EngineSpan, ...]) -> list[tuple[EngineSpan, ...]]:
    """The engines of each process: their rows lie in one file, which is read once."""
    grouped: dict[str, list[EngineSpan]] = {}
    for span in spans:
        grouped.setdefault(span.process.name, []).append(span)
    return [tuple(group) for group in grouped.values()]


def _spans_of(session: Session, process: ProcessInfo, table: Table) -> list[EngineSpan]:
    time = table.columns.index("time_ns")
    return [
        EngineSpan(process, number, 0, process.at(first[time]), process.at(last[time]), table.name, last)
        for number, (first, last) in sorted(session.first_and_last(process, table, "engine").items())
    ]


def _numbered(spans: Iterable[EngineSpan]) -> tuple[EngineSpan, ...]:
    ends: dict[int, int] = {}
    indices: dict[int, int | None] = {}
    numbered = []
    pending = list(spans)
    reserved = {span.process.engine_index for span in pending}
    for span in pending:
        index = span.process.engine_index or 0
        free = (n for n, end in sorted(ends.items()) if indices[n] == index and end < span.first_ns)
        number = next(free, None)
        if number is None:
            number = index if index not in ends else _unused(ends, reserved)
        ends[number], indices[number] = span.last_ns, index
        numbered.append(replace(span, engine=number))
    return tuple(numbered)


def _unused(taken: dict[int, int], reserved: set[int | None]) -> int:
    number = 0
    while number in taken or number in reserved:
        number += 1
    return number
