"""Rows for figures: of the right processes, on the session's clock, as lazy polars frames; and why there are none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import polars as pl

from profilemate.export import retention
from profilemate.figures.kept import kept
from profilemate.figures.words import listed
from profilemate.frames.scan import scan
from profilemate.schema import pass_table, step_table
from profilemate.schema.table import Table
from profilemate.session.health import MISFIT_STATES, SIZE_CAP, Health, read_health
from profilemate.session.records import ProcessInfo
from profilemate.session.views import EngineSpan, engine_spans, graph_workers
from profilemate.trackers import BY_NAME, NAMES
from profilemate.trackers.cuda_graphs import events as cuda_graphs
from profilemate.trackers.engine_steps import events as engine_steps
from profilemate.trackers.forward_passes import events as forward_passes
from profilemate.trackers.kv_cache import events as kv_cache
from profilemate.trackers.view import tables_of, was_on

if TYPE_CHECKING:
    from profilemate.frames.session import Session


NAMED = 6


class Missing(Exception):
    """A figure cannot be drawn; the text says why, in a sentence."""


@dataclass(frozen=True)
class Drawn:
    """What a figure's function gives: an Altair chart, what is seen in it, and what was thinned or is missing."""

    chart: Any
    says: str
    note: str = ""


def require(session: Session, tracker: str) -> None:
    """Raise Missing where a tracker was off, with the setting that turns it on."""
    if not was_on(session, tracker):
        known = BY_NAME[tracker]
        words = "default" if known.on_by_default else f"default,{tracker}"
        how = f"record with PROFILEMATE_TRACKERS={words}, or with ProfilingConfig.{known.switch} = True"
        raise Missing(f"{known.title} was off: {how}")


def nothing(session: Session, happened: str, *tables: Table) -> Missing:
    """Why there are no rows: they were removed, the hooks that make them were not in place, or nothing happened."""
    if retention.is_trimmed(session.path):
        return Missing("the rows of this session were removed to keep the folder of sessions under its cap")
    lost = lost_rows(session, *tables)
    if lost:
        return Missing(f"{lost:,} rows of {tables[0].name} were lost, and none is left")
    hooks = _not_in_place(session, *tables)
    return Missing(f"{happened}; hooks that were not in place: {listed(hooks)}" if hooks else happened)


def _not_in_place(session: Session, *tables: Table) -> list[str]:
    """Hooks of the trackers of these tables that went in nowhere, though they should, or were switched off."""
    trackers = {tracker for tracker in NAMES for table in tables if table in tables_of(tracker)}
    hooks = health_of(session).in_state(*MISFIT_STATES, "switched_off")
    names = [hook.name for hook in hooks if hook.tracker in trackers]
    return [*names[:NAMED], f"{len(names) - NAMED} more"] if len(names) > NAMED else names


STEP_COLUMNS = (
    "time_ns", "engine", "step",
    "schedule_ns", "blocked_ns", "update_ns", "between_ns", "no_requests_ns", "running", "waiting", "skipped", "step_requests",
    "step_tokens", "context_requests", "context_tokens", "limit",
    "total_blocks", "in_use", "cached_free", "empty", "step_peak", "peak", "peak_time_ns", "evicted", "query_tokens",
    "hit_tokens",
)  # fmt: skip
"""What the figures read of an engine step's row."""
PASS_COLUMNS = (
    "time_ns", "forward", "runtime_mode", "host_ns", "num_tokens", "unpadded_tokens", "graphs", "phase", "requests",
)  # fmt: skip
"""What they read of a forward pass's row."""

_engines: WeakKeyDictionary[Any, dict[str, tuple[EngineSpan, ...]]] = WeakKeyDictionary()


def engines_of(session: Session, table: Table) -> tuple[EngineSpan, ...]:
    """The schedulers that have rows of engine steps, or else of a table, numbered as in the README's files."""
    known = _engines.setdefault(session, {})
    if table.name not in known:
        known[table.name] = engine_spans(session, step_table.BASE, table)
    return known[table.name]


def engine_rows(session: Session, table: Table) -> pl.LazyFrame:
    """Rows of the schedulers: `at_ns` since the session began, `engine` by its number in the session, `process`. May be empty.

    Of an engine step's row it has STEP_COLUMNS.
    """
    if table.name == step_table.BASE.name:
        rows = kept(session, table.name, lambda: _numbered(session, *SHARED[table.name]))
        return rows.filter(pl.col(table.present).is_not_null()) if table.present else rows
    return _numbered(session, table)


def _numbered(session: Session, *tables: Table) -> pl.LazyFrame:
    spans = engines_of(session, tables[0])
    if not spans:
        return _empty(*tables)
    numbers: dict[str, list[Any]] = {
        "process": [span.process.name for span in spans],
        "engine": [span.local_engine for span in spans],
        "number": [span.engine for span in spans],
        "offset_ns": [span.process.offset_ns for span in spans],
    }
    processes = {span.process.name: span.process for span in spans}
    return (
        _scan(session, [*processes.values()], *tables)
        .join(_lazy(numbers), on=["process", "engine"], maintain_order="left")
        .drop("engine")
        .rename({"number": "engine"})
        .with_columns((pl.col("time_ns") + pl.col("offset_ns")).alias("at_ns"))
    )


def _lazy(columns: dict[str, list[Any]]) -> pl.LazyFrame:
    """Names are text, all else integers."""
    return pl.LazyFrame(columns, schema={name: pl.String if name == "process" else pl.Int64 for name in columns})


def worker_rows(session: Session, table: Table, only: str = "") -> pl.LazyFrame:
    """Rows of the workers that stand for their engines, or of `only` one, with `at_ns`, `engine`, `worker` (its process).

    Of a forward pass's row it has PASS_COLUMNS.
    """
    if table.name == pass_table.BASE.name:
        rows = kept(session, table.name, lambda: _of_workers(session, *SHARED[table.name]))
        rows = rows.filter(pl.col(table.present).is_not_null()) if table.present else rows
    else:
        rows = _of_workers(session, table)
    return rows.filter(pl.col("worker") == only) if only else rows


def _of_workers(session: Session, *tables: Table) -> pl.LazyFrame:
    workers = graph_workers(session)
    if not workers:
        return _empty(*tables).with_columns(pl.lit("").alias("worker"))
    numbers: dict[str, list[Any]] = {
        "process": [worker.process.name for worker in workers],
        "engine": [worker.engine for worker in workers],
        "offset_ns": [worker.process.offset_ns for worker in workers],
    }
    at = pl.col("time_ns") + pl.col("offset_ns") if "time_ns" in tables[0].columns else pl.lit(None, pl.Int64)
    return (
        _scan(session, [worker.process for worker in workers], *tables)
        .drop("engine", strict=False)
        .join(_lazy(numbers), on="process", maintain_order="left")
        .with_columns(at.alias("at_ns"), pl.col("process").alias("worker"))
    )


SHARED: dict[str, tuple[Table, ...]] = {
    step_table.BASE.name: (engine_steps.STEPS, kv_cache.STEPS),
    pass_table.BASE.name: (cuda_graphs.PASSES, forward_passes.PASSES),
}
"""The tables of a file that several trackers share, of which the figures read both."""
READ = {step_table.BASE.name: STEP_COLUMNS, pass_table.BASE.name: PASS_COLUMNS}


def _scan(session: Session, processes: list[ProcessInfo], *tables: Table) -> pl.LazyFrame:
    """Rows of processes, with `process`, the name of each; of a shared file the columns that figures read.

    One scan: to put one for each of some thousand processes together took polars minutes (`thousands_of_processes` of
    `make fuzz`).
    """
    rows = scan(session, processes, tables, dict)
    return rows.select("process", *READ[tables[0].name]) if tables[0].name in READ else rows


def _empty(*tables: Table) -> pl.LazyFrame:
    kinds = {"int": pl.Int64, "str": pl.String, "bool": pl.Boolean}
    schema: dict[str, Any] = {field.name: kinds[field.kind] for table in tables for field in table.fields}
    return pl.LazyFrame(
        schema={**schema, "at_ns": pl.Int64, "engine": pl.Int64, "offset_ns": pl.Int64, "process": pl.String}
    )


_health: WeakKeyDictionary[Any, Health] = WeakKeyDictionary()


def health_of(session: Session) -> Health:
    """Read once for all figures."""
    if session not in _health:
        _health[session] = read_health(session)
    return _health[session]


def lost_rows(session: Session, *tables: Table) -> int:
    """Rows of these tables that never reached the disk or were removed again, whatever the reason."""
    names = {table.name for table in tables}
    return sum(lost.rows for lost in health_of(session).lost if lost.table in names)


def lost_note(session: Session, *tables: Table) -> str:
    """What is not in a figure that is drawn from rows; empty where all rows are there."""
    capped = other = 0
    names = {table.name for table in tables}
    for lost in health_of(session).lost:
        if lost.table in names:
            capped += lost.rows if lost.reason == SIZE_CAP else 0
            other += 0 if lost.reason == SIZE_CAP else lost.rows
    sentences = []
    if capped:
        sentences.append(f"The oldest {capped:,} rows were removed as the session reached its size cap.")
    if other:
        sentences.append(f"{other:,} rows were lost in between.")
    return " ".join(sentences)


def notes(*sentences: str) -> str:
    """Put those that are not empty together."""
    return " ".join(sentence for sentence in sentences if sentence)


def several_engines(session: Session, table: Table) -> str:
    """That engines were added up, where there are several."""
    count = len({span.engine for span in engines_of(session, table)})
    return f"{count} engines are added up." if count > 1 else ""
