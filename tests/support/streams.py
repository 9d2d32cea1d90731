"""Read a session's streams in a test with nothing of ProfileMate's own reader."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import environment

README_FILES = (
    "metadata.json", "cuda_graph_captures.csv", "cuda_graph_usage.csv", "cuda_graph_timeline.csv",
    "kv_cache_usage.csv", "kv_cache_evictions.csv", "kv_cache_summary.txt", "forward_pass_timing.csv",
    "forward_pass_summary.json", "encoder_decoder_timing.csv", "encoder_decoder_summary.json",
    "batch_utilization.csv", "batch_utilization_summary.json",
    "request_lifecycle.csv", "preemption_events.csv", "preemption_summary.json",
)  # fmt: skip
DESCRIPTOR = (
    "runtime_mode", "num_tokens", "num_reqs", "uniform", "has_lora", "num_active_loras", "uniform_token_count",
    "max_query_len", "num_ubatches",
)  # fmt: skip


def only_session(folder: Path) -> Path:
    """The one session below a folder."""
    sessions = sorted(folder.glob("session_*"))
    assert len(sessions) == 1, f"one session expected in {folder}, found {sessions}"
    return sessions[0]


def processes(session: Path, role: str = "") -> list[Path]:
    """Process folders whose name begins with a role."""
    return sorted((session / "processes").glob(f"{role}*"))


def rows(process: Path, table: str) -> list[dict[str, str]]:
    """Complete rows of one table of one process, older segments first; a torn last line is left out."""
    older = sorted(process.glob(f"{table}.*.csv"), key=lambda path: int(path.name.split(".")[-2]))
    current = process / f"{table}.csv"
    found = []
    for path in [*older, *([current] if current.exists() else [])]:
        text = path.read_text()
        whole = text[: text.rfind("\n") + 1]
        found += list(csv.DictReader(whole.splitlines()))
    return found


def all_rows(session: Path, table: str, role: str = "") -> list[dict[str, str]]:
    """Rows of one table over the processes of a role."""
    return [row for process in processes(session, role) for row in rows(process, table)]


def record(process: Path) -> dict[str, Any]:
    """process.json."""
    return dict(json.loads((process / "process.json").read_text()))


def descriptor(row: dict[str, str]) -> tuple[str, ...]:
    """The graph's key in a row of any graph table."""
    return tuple(row[name] for name in DESCRIPTOR)


def export(session: Path) -> None:
    """`profilemate export`, which is what a user runs where nobody could."""
    done = subprocess.run(
        [sys.executable, "-m", "profilemate", "export", str(session)],
        cwd=environment.ROOT,
        env=environment.clean(),
        capture_output=True,
        text=True,
        timeout=environment.HANGS_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def wait_for_files(session: Path) -> list[str]:
    """Wait for the export that a server leaves behind when it ends. Returns the README's files that never came."""
    deadline = time.monotonic() + environment.HANGS_SECONDS
    while time.monotonic() < deadline and missing_files(session):
        time.sleep(0.2)
    return missing_files(session)


def missing_files(session: Path) -> list[str]:
    """The README's files that are not there."""
    return [name for name in README_FILES if not (session / name).exists()]
