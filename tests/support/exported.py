"""The README's files of a session, read as a user reads them and held against the streams they are made from."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pandas
import streams

GRAPH = ["runtime_mode", "num_tokens", "num_reqs", "uniform", "has_lora"]
KNOWN_COLUMNS = {
    "cuda_graph_captures.csv": [*GRAPH, "capture_time_sec"],
    "cuda_graph_usage.csv": [*GRAPH, "replay_count"],
    "cuda_graph_timeline.csv": ["timestamp_sec", *GRAPH],
    "kv_cache_usage.csv": ["timestamp_sec", "usage_pct", "num_blocks", "total_blocks"],
    "request_lifecycle.csv": [
        "request_id",
        "started_sec",
        "preempted_sec",
        "resumed_sec",
        "finished_sec",
        "total_time_sec",
        "preemption_delay_sec",
    ],
    "preemption_events.csv": ["timestamp_sec", "request_id", "event", "reason", "running_time_sec", "extra_info"],
    "kv_cache_evictions.csv": ["timestamp_sec", "lifetime_sec", "idle_sec"],
    "forward_pass_timing.csv": [
        "timestamp_sec",
        "phase",
        "batch_size",
        "num_tokens",
        "forward_time_ms",
        "throughput_tokens_per_sec",
    ],
    "batch_utilization.csv": [
        "timestamp_sec",
        "num_seqs",
        "max_num_seqs",
        "seq_utilization_pct",
        "num_tokens",
        "max_tokens",
        "token_utilization_pct",
        "phase",
        "running_queue_len",
        "waiting_queue_len",
    ],
    "encoder_decoder_timing.csv": ["timestamp_sec", "component", "duration_ms", "context"],
    "cpu_operations_timing.csv": ["timestamp_sec", "operation", "duration_ms", "context"],
}
"""The columns that users know: these, in this order, before any other."""

NUMBERS = {"capture_time_sec", "replay_count", "timestamp_sec", "usage_pct", "num_blocks", "total_blocks", "idle_sec"}
TORN_TAIL = "last row torn"
SUMMED = ("allocated", "freed", "evicted", "preemptions", "query_tokens", "hit_tokens", "scheduled_tokens")


def read(session: Path, name: str) -> pandas.DataFrame:
    """One of the CSV files, by pandas."""
    return pandas.read_csv(session / name, keep_default_na=False, na_values=["nan"])


def unreadable(session: Path) -> list[str]:
    """What is wrong with the files at the top of a session: absent, other columns, rows of another width, no JSON."""
    found = [f"{name} is not there" for name in streams.missing_files(session)]
    for name, known in KNOWN_COLUMNS.items():
        if (session / name).exists():
            found += [f"{name}: {fault}" for fault in _csv_faults(session / name, known)]
    left_over = [path.name for path in session.glob(".*.new") if not Path("/proc", path.name.split(".")[-2]).exists()]
    return found + [f"{name} was left behind" for name in left_over] + _json_faults(session)


def _csv_faults(path: Path, known: list[str]) -> list[str]:
    with path.open(newline="") as file:
        widths = {len(row) for row in csv.reader(file)}
    table = read(path.parent, path.name)
    faults = [] if len(widths) == 1 else [f"rows of {widths} cells"]
    if list(table.columns[: len(known)]) != known or len(set(table.columns)) != len(table.columns):
        faults.append(f"columns {list(table.columns)}")
    numbers = [column for column in table.columns if column in NUMBERS and len(table)]
    return faults + [f"{column} is no number" for column in numbers if table[column].dtype.kind not in "if"]


def _json_faults(session: Path) -> list[str]:
    try:
        return [] if isinstance(metadata(session)["processes"], list) else ["metadata.json names no processes"]
    except (OSError, ValueError, KeyError) as error:
        return [f"metadata.json: {error!r}"]


def metadata(session: Path) -> dict[str, Any]:
    """metadata.json."""
    return dict(json.loads((session / "metadata.json").read_text()))


def broken_streams(session: Path) -> list[str]:
    """Streams with anything but whole rows below a header. A last row that a kill cut off is allowed to a process."""
    found = []
    for process in streams.processes(session):
        torn = 0
        for path in sorted(process.glob("*.csv")):
            text = path.read_text()
            whole, _, tail = text.rpartition("\n")
            torn += bool(tail)
            widths = {len(row) for row in csv.reader(whole.splitlines())}
            if len(widths) != 1:
                found.append(f"{process.name}/{path.name}: rows of {sorted(widths)} cells")
        if torn > 1:
            found.append(f"{process.name}: {torn} torn rows")
    return found


def differing_counts(session: Path) -> list[str]:
    """Counts of the README's files that are not those of the streams."""
    return [
        f"{what}: {ours} in the file, {theirs} in the streams"
        for what, ours, theirs in [*_graph_counts(session), *_kv_counts(session)]
        if ours != theirs
    ]


def _graph_counts(session: Path) -> list[tuple[str, Any, Any]]:
    passes = [row for row in streams.all_rows(session, "forward_passes") if row["graphs"] != "0"]
    usage, timeline = read(session, "cuda_graph_usage.csv"), read(session, "cuda_graph_timeline.csv")
    captures = [
        row
        for row in streams.all_rows(session, "graph_captures")
        if row["owner"] == "main" and row["purpose"] != "estimate"
    ]
    replays = {
        (str(row["runtime_mode"]), int(row["num_tokens"]), str(row["num_reqs"])): int(row["replay_count"])
        for row in usage.to_dict("records")
        if row["replay_count"]
    }
    counted = Counter((row["runtime_mode"], int(row["num_tokens"]), row["num_reqs"] or "None") for row in passes)
    return [
        ("replays by graph", replays, dict(counted)),
        ("rows of the timeline", len(timeline), len(passes)),
        (
            "forward passes",
            len(read(session, "forward_pass_timing.csv")),
            len(streams.all_rows(session, "forward_passes")),
        ),
        ("captures", len(read(session, "cuda_graph_captures.csv")), len(captures)),
    ]


def _kv_counts(session: Path) -> list[tuple[str, Any, Any]]:
    steps = streams.all_rows(session, "engine_steps")
    seen = [row for row in steps if row.get("update_ns")]
    usage, evictions = read(session, "kv_cache_usage.csv"), read(session, "kv_cache_evictions.csv")
    intervals = [row for row in streams.all_rows(session, "kv_usage") if row["kind"] == "interval"]
    counts: list[tuple[str, Any, Any]] = [
        ("engine steps", len(read(session, "batch_utilization.csv")), len(seen)),
        ("evictions", len(evictions), len(streams.all_rows(session, "kv_evictions"))),
        ("rows of usage", int((usage["kind"] == "interval").sum()) if len(usage) else 0, len(intervals)),
    ]
    if not steps:
        return counts
    summary = (session / "kv_cache_summary.txt").read_text().splitlines()
    told = dict(line.split(": ", 1) for line in summary if ": " in line)
    last = steps[-1]
    counts += [(name, told[name], last[name]) for name in SUMMED]
    counts.append(("steps", told["steps"], last["step"]))
    counted = [row for row in streams.all_rows(session, "kv_evictions") if int(row["time_ns"]) <= int(last["time_ns"])]
    counts.append(("evictions of finished steps", len(counted), int(last["evicted"])))
    by_kind = usage.groupby("kind")["num_blocks"].apply(list).to_dict()
    counts.append(("peak", by_kind.get("peak", [0]), [int(last["peak"])]))
    counts.append(("last state", by_kind["last"], [int(last["in_use"])]))
    return counts
