"""What is done in processes of their own, since it needs polars and memory: making sessions and checking what was written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
from scale_sessions import make, steps_of_engines
from scale_truth import AGES_NS, E2E_NS, SCHEDULE_NS, Truth, differences

HOSTS = 2
TIMES = ("timestamp_sec", "capture_time_sec")


def run(task: str, folder: str, rows: str, processes: str) -> int:
    """`make` or `check`; the latter prints a line for each difference."""
    if task == "make":
        make(Path(folder), int(rows), int(processes), HOSTS)
    else:
        for line in wrong(Path(folder), Truth(tuple(steps_of_engines(int(rows), int(processes))))):
            print(line)
    return 0


def wrong(session: Path, truth: Truth) -> list[str]:
    """Differences of the summary, of the numbers of rows, and of what the files themselves add up to."""
    record = json.loads((session / "metadata.json").read_text())
    files = {name.removesuffix(".csv"): rows for name, rows in record["files"].items()}
    found = differences(truth.summary(), record["summary"])
    found += differences({name.removesuffix(".csv"): rows for name, rows in truth.files().items()}, files)
    found += [f"fault: {fault}" for fault in record["faults"]]
    for name, rows in truth.files().items():
        found += _wrong_file(session / name, rows, truth)
    return found


def _wrong_file(path: Path, rows: int, truth: Truth) -> list[str]:
    """Rows of the file as they are on disk: how many, whether in order of time, and the sum of a column."""
    file = pl.scan_csv(path, infer_schema_length=100_000)
    time = next((name for name in TIMES if name in file.collect_schema().names()), None)
    sums = {name: pl.col(name).sum() for name in _sums(path.name, truth)}
    count = file.select(pl.len(), **sums).collect(engine="streaming").row(0, named=True)
    found = [] if count["len"] == rows else [f"{path.name}: {count['len']} rows, not {rows}"]
    for name, expected in _sums(path.name, truth).items():
        if abs(count[name] - expected) > 1e-9 * abs(expected):
            found.append(f"{path.name}: {name} adds up to {count[name]}, not {expected}")
    if time and path.name in IN_ORDER and not _is_sorted(file, time):
        found.append(f"{path.name}: not in order of {time}")
    return found


IN_ORDER = ("kv_cache_usage.csv", "kv_cache_evictions.csv", "cuda_graph_timeline.csv", "preemption_events.csv")


def _is_sorted(file: pl.LazyFrame, time: str) -> bool:
    return bool(file.select((pl.col(time).diff() >= 0).all()).collect(engine="streaming").item())


def _sums(name: str, truth: Truth) -> dict[str, Any]:
    """Columns whose sum is known, in the file's own units."""
    sums: dict[str, dict[str, Any]] = {
        "kv_cache_evictions.csv": {"lifetime_sec": truth.sum(AGES_NS) / 1e9},
        "batch_utilization.csv": {"scheduling_sec": truth.sum(SCHEDULE_NS) / 1e9},
        "request_lifecycle.csv": {"e2e_latency_sec": truth.rows * E2E_NS / 1e9},
        "cuda_graph_usage.csv": {"replay_count": sum(truth.replays().values())},
    }
    return sums.get(name, {})
