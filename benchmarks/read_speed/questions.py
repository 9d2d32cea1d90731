"""The two questions that every reader answers of a file, each written as the reader's users would."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

Answer = dict[str, list[float]]
"""By group: rows, then sums or means. Numbers, so that the answers of all readers can be held against each other."""

STEP_COLUMNS = ("limit", "step_tokens", "in_use", "waiting", "update_ns")
EVICTION_COLUMNS = ("time_ns", "allocated_ns", "used_ns", "cause")


def session(folder: Path, table: str) -> Answer:
    """`profilemate.open`, lazily, by the streaming engine."""
    import polars as pl

    import profilemate

    frame = profilemate.open(folder).scan(table)
    if table == "engine_steps":
        found = frame.group_by("limit").agg(
            pl.len(),
            pl.col("step_tokens").sum(),
            pl.col("in_use").mean(),
            pl.col("waiting").max(),
            pl.col("update_ns").sum(),
        )
    else:
        lifetime, idle = pl.col("time_ns") - pl.col("allocated_ns"), pl.col("time_ns") - pl.col("used_ns")
        found = frame.group_by("cause").agg(
            rows=pl.len(),
            lifetime=lifetime.mean(),
            idle=idle.mean(),
            most=idle.max(),
            short=(lifetime < 10_000_000_000).sum(),
        )
    return {str(row[0]): list(map(float, row[1:])) for row in found.collect(engine="streaming").rows()}


def pandas_columns(folder: Path, table: str) -> Answer:
    """`pandas.read_csv` of the columns that are needed."""
    return _pandas(folder, table, STEP_COLUMNS if table == "engine_steps" else EVICTION_COLUMNS)


def pandas_whole(folder: Path, table: str) -> Answer:
    """`pandas.read_csv` as it is mostly called."""
    return _pandas(folder, table, None)


def _pandas(folder: Path, table: str, columns: tuple[str, ...] | None) -> Answer:
    import pandas as pd

    frame = pd.read_csv(_file(folder, table), usecols=columns)
    if table == "engine_steps":
        found = frame.groupby("limit").agg(
            rows=("limit", "size"), tokens=("step_tokens", "sum"), used=("in_use", "mean"), most=("waiting", "max"),
            update=("update_ns", "sum"),
        )  # fmt: skip
    else:
        frame["lifetime"], frame["idle"] = frame.time_ns - frame.allocated_ns, frame.time_ns - frame.used_ns
        frame["short"] = frame.lifetime < 10_000_000_000
        found = frame.groupby("cause").agg(
            rows=("cause", "size"), lifetime=("lifetime", "mean"), idle=("idle", "mean"), most=("idle", "max"),
            short=("short", "sum"),
        )  # fmt: skip
    return {str(row[0]): list(map(float, row[1:])) for row in found.itertuples()}


def duckdb(folder: Path, table: str) -> Answer:
    """DuckDB's `read_csv` with types that it finds out."""
    import duckdb as duck

    if table == "engine_steps":
        what = '"limit", count(*), sum(step_tokens), avg(in_use), max(waiting), sum(update_ns)'
    else:
        what = (
            "cause, count(*), avg(time_ns - allocated_ns), avg(time_ns - used_ns), max(time_ns - used_ns), "
            "count(*) FILTER (time_ns - allocated_ns < 10000000000)"
        )
    rows = duck.sql(f"SELECT {what} FROM read_csv('{_file(folder, table)}') GROUP BY 1").fetchall()
    return {str(row[0]): list(map(float, row[1:])) for row in rows}


def pure_python(folder: Path, table: str) -> Answer:
    """The reader of the exports, `session.stream`, row by row."""
    from profilemate.session.session import Session
    from profilemate.trackers.engine_steps.events import STEPS
    from profilemate.trackers.kv_cache.events import EVICTIONS
    from profilemate.trackers.kv_cache.events import STEPS as KV_STEPS

    opened = Session(folder)
    process = opened.processes[0]
    groups: dict[str, list[float]] = {}
    if table == "engine_steps":
        both = STEPS._replace(fields=STEPS.fields + KV_STEPS.fields[3:])
        for limit, tokens, used, waiting, update_ns in opened.rows(process, both, *STEP_COLUMNS):
            sums = groups.setdefault(limit, [0, 0, 0, 0, 0])
            groups[limit] = [
                sums[0] + 1, sums[1] + tokens, sums[2] + used, max(sums[3], waiting), sums[4] + update_ns
            ]  # fmt: skip
        return {limit: [s[0], s[1], s[2] / s[0], s[3], s[4]] for limit, s in groups.items()}
    for time_ns, allocated_ns, used_ns, cause in opened.rows(process, EVICTIONS, *EVICTION_COLUMNS):
        sums = groups.setdefault(cause, [0, 0, 0, 0, 0, 0])
        lifetime, idle = None if allocated_ns is None else time_ns - allocated_ns, time_ns - used_ns
        groups[cause] = [
            sums[0] + 1, sums[1] + (lifetime or 0), sums[2] + idle, max(sums[3], idle),
            sums[4] + (lifetime is not None and lifetime < 10_000_000_000), sums[5] + (lifetime is not None),
        ]  # fmt: skip
    return {cause: [s[0], s[1] / s[5], s[2] / s[0], s[3], s[4]] for cause, s in groups.items()}


def _file(folder: Path, table: str) -> Path:
    return next(folder.glob(f"processes/*/{table}.csv"))


READERS: dict[str, Callable[[Path, str], Answer]] = {
    "profilemate.open": session,
    "pandas.read_csv, usecols": pandas_columns,
    "pandas.read_csv": pandas_whole,
    "DuckDB read_csv": duckdb,
    "pure Python": pure_python,
}
MODULES = {"profilemate.open": "polars", "DuckDB read_csv": "duckdb", "pure Python": "json"}
"""What is imported before the clock starts; pandas for the others."""
