"""Sessions of any number of rows with the columns that the probe writes, made by polars in chunks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import BinaryIO

import polars as pl

from profilemate.schema import names
from profilemate.trackers.engine_steps import events as steps
from profilemate.trackers.kv_cache import events as kv

CHUNK_ROWS = 200_000
DISTINCT_ROWS = 1_000_000
"""After so many the same rows come again: what is measured does not depend on it, and they are made in a tenth of the time."""
COPY_BYTES = 4 << 20
STEP_NS = 12_000_000
PROCESS = "EngineCore.host.1.1"
CREATED_NS = 1_000_000_000_000


def make(folder: Path, table: str, rows: int) -> Path:
    """A session with one process that has `rows` rows of the table; returns the stream's file."""
    process = folder / "processes" / PROCESS
    process.mkdir(parents=True)
    clock = {"wall_ns": CREATED_NS, "monotonic_ns": CREATED_NS}
    created = {"created_wall_ns": CREATED_NS, "created_monotonic_ns": CREATED_NS, "boot_id": "b"}
    (folder / "session.json").write_text(json.dumps({"format": names.FORMAT, **created}))
    record = {"format": names.FORMAT, "roles": ["EngineCore"], "boot_id": "b", "clock": clock, "engine_index": 0}
    (process / "process.json").write_text(json.dumps(record))
    path = process / f"{table}.csv"
    with open(path, "wb") as file:
        _write(file, table, min(rows, DISTINCT_ROWS), header=True)
    _repeat(path, max(0, rows // DISTINCT_ROWS - 1))
    with open(path, "ab") as file:
        _write(file, table, rows % DISTINCT_ROWS if rows > DISTINCT_ROWS else 0, header=False)
    return path


def _write(file: BinaryIO, table: str, rows: int, header: bool) -> None:
    chunk = {"engine_steps": _steps, "kv_evictions": _evictions}[table]
    for first in range(0, rows, CHUNK_ROWS):
        numbers = pl.select(n=pl.int_range(first, min(first + CHUNK_ROWS, rows), dtype=pl.Int64))
        chunk(numbers).write_csv(file, include_header=header and first == 0)


def _repeat(path: Path, times: int) -> None:
    """Append the file's rows again so many times."""
    size = path.stat().st_size
    for _ in range(times):
        with open(path, "rb") as source, open(path, "ab") as target:
            source.readline()
            while source.tell() < size:
                target.write(source.read(min(COPY_BYTES, size - source.tell())))


def _noise(bound: int, seed: int) -> pl.Expr:
    """Integers from 0 to below the bound, the same ones each time."""
    return (pl.col("n").hash(seed) % bound).cast(pl.Int64)


def _steps(numbers: pl.DataFrame) -> pl.DataFrame:
    """A server's engine steps: times and cumulative counters grow, the rest is within its usual bounds."""
    names_ = list(dict.fromkeys((*steps.STEPS.columns, *kv.STEPS.columns)))
    time = CREATED_NS + pl.col("n") * STEP_NS
    cumulative = {field.name for field in kv.STEPS.fields} - {
        "total_blocks",
        "in_use",
        "cached_free",
        "empty",
        "step_peak",
    }
    columns = []
    for seed, name in enumerate(names_):
        if name in ("time_ns", "scheduled_ns", "peak_time_ns"):
            value = time - _noise(1_000_000, seed) * (name != "time_ns")
        elif name == "engine":
            value = pl.lit(0)
        elif name == "step":
            value = pl.col("n") + 1
        elif name == "limit":
            value = pl.lit(pl.Series(steps.LIMITS)).gather(_noise(len(steps.LIMITS), seed))
        elif name == "total_blocks":
            value = pl.lit(20_000)
        elif name in cumulative:
            value = pl.col("n") * (seed % 7 + 1) + _noise(5, seed)
        else:
            value = _noise(5_000_000 if name.endswith("_ns") else 20_000 if "block" in name else 300, seed)
        columns.append(value.alias(name))
    return numbers.select(columns)


def _evictions(numbers: pl.DataFrame) -> pl.DataFrame:
    time = CREATED_NS + pl.col("n") * (STEP_NS // 10)
    allocated = time - _noise(60_000_000_000, 1)
    return numbers.select(
        time_ns=time,
        engine=pl.lit(0),
        block_id=_noise(20_000, 2),
        allocated_ns=pl.when(_noise(1000, 3) > 0).then(allocated),
        used_ns=time - _noise(5_000_000_000, 4),
        cause=pl.when(_noise(100, 5) > 0).then(pl.lit("allocation")).otherwise(pl.lit("invalidation")),
    )
