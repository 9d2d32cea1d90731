"""Engine steps as a data frame: one row per step, in order, of every engine of a session."""

from __future__ import annotations

from typing import TYPE_CHECKING

from profilemate.frames.packages import load
from profilemate.schema.table import Table
from profilemate.trackers.engine_steps import events as step_events
from profilemate.trackers.kv_cache import events as kv_events

if TYPE_CHECKING:
    import polars as pl

    from profilemate.frames.session import Session

WORKING = ("schedule_ns", "blocked_ns", "update_ns", "between_ns")
"""What adds up to the wall time of an engine's thread while its scheduler holds requests."""

ENGINE = ("process", "engine")
TABLE = step_events.STEPS.name


def steps(session: Session, *columns: str) -> pl.DataFrame:
    """Rows of the step tracker: `process`, `engine`, `step`, `time_ns`, `columns`, `working_ns` and `period_ns`.

    `working_ns` is what the row adds to the time in which the engine held requests; `period_ns` the time since the row
    before of the same engine, what passed without requests taken off: null for the first row, and after rows that are lost.
    Times are in nanoseconds since the session began. Steps whose scheduling was not seen are left out of the frame, but end
    a period. Columns of the KV cache tracker are null where that was off.
    """
    polars = load("polars")
    wanted = list(dict.fromkeys(["step", "schedule_ns", "no_requests_ns", *WORKING, *columns]))
    frame = _rows(session, step_events.STEPS, [*wanted])
    since = polars.col("time_ns").diff().over(ENGINE) - polars.col("no_requests_ns").fill_null(0)
    follows = polars.col("step").diff().over(ENGINE) == 1
    return frame.with_columns(
        working_ns=polars.sum_horizontal(*(polars.col(name).fill_null(0) for name in WORKING)),
        period_ns=polars.when(follows).then(since),
    ).filter(polars.col("schedule_ns").is_not_null())


def kv_steps(session: Session, *columns: str) -> pl.DataFrame:
    """Rows of the KV cache tracker: `process`, `engine`, `step`, `time_ns`, `in_use`, `step_peak`, `total_blocks`, `columns`.

    The time since the row before of the same engine is split: for `busy_ns` of it requests held `step_peak` blocks (vLLM
    allocates when a step is scheduled and frees when its output is processed), for `idle_ns` the scheduler held no request,
    and the blocks were `before`, those in use at the end of the step before. Without the step tracker all is idle: then
    what a step takes counts from its end on. Both are 0 in the first row of an engine.
    """
    polars = load("polars")
    wanted = list(
        dict.fromkeys(["step", "in_use", "step_peak", "total_blocks", "schedule_ns", "no_requests_ns", *columns])
    )
    frame = _rows(session, kv_events.STEPS, wanted).filter(polars.col("in_use").is_not_null())
    since = polars.col("time_ns").diff().over(ENGINE).fill_null(0)
    known = polars.col("schedule_ns").is_not_null()
    idle = (
        polars.when(known)
        .then(polars.min_horizontal(polars.col("no_requests_ns").fill_null(0), since))
        .otherwise(since)
    )
    return frame.with_columns(
        before=polars.col("in_use").shift().over(ENGINE).fill_null(0),
        idle_ns=idle,
        busy_ns=since - idle,
    )


def _rows(session: Session, table: Table, columns: list[str]) -> pl.DataFrame:
    polars = load("polars")
    offsets = {process.name: process.offset_ns for process in session.processes}
    shifted = polars.col("time_ns") + polars.col("process").replace_strict(
        offsets, default=0, return_dtype=polars.Int64
    )
    frame: pl.DataFrame = (
        session.scan(table.name)
        .select("process", "engine", shifted.alias("time_ns"), *columns)
        .filter(polars.col("time_ns").is_not_null())
        .collect(engine="streaming")
    )
    return frame.sort(*ENGINE, "time_ns", maintain_order=True)
