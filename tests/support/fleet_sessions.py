"""Golden sessions as those of a fleet: each on a host of its own name, so that an answer by host is one by session."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import environment

SESSIONS = environment.ROOT / "tests" / "golden" / "sessions"
OWN_HOST = "script_names"
"""It keeps its host, whose name is the point of it."""


def fleet_of_golden(folder: Path) -> Path:
    """Copies of all golden sessions in a folder."""
    for session in SESSIONS.iterdir():
        one_host(Path(shutil.copytree(session, folder / session.name)), session.name)
    return folder


def one_host(session: Path, name: str, session_id: str = "") -> Path:
    """Give a copy of a session a host, also where only the folder's name tells it, and an id: the host's name by default."""
    for record in [session / "session.json", *session.glob("processes/*/process.json")]:
        try:
            content = json.loads(record.read_text())
        except (OSError, ValueError):
            continue
        content |= {} if name == OWN_HOST else {"host": name}
        content |= {"session_id": session_id or name} if record.name == "session.json" else {}
        record.write_text(json.dumps(content))
    for process in list(session.glob("processes/*.*.*.*")):
        role, _, pid, start = process.name.split(".")
        if name != OWN_HOST:
            process.rename(process.with_name(f"{role}.{name}.{pid}.{start}"))
    return session


def csv_rows(session: Path, stream: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Process folder and row of every row of a stream, by Python's csv module."""
    for process in sorted((session / "processes").iterdir()):
        segments = {path.name: path for path in process.glob(f"{stream}.*csv")}
        numbered = sorted((int(name.split(".")[1]), path) for name, path in segments.items() if name.count(".") == 2)
        for path in [path for _, path in numbered] + [path for name, path in segments.items() if name.count(".") == 1]:
            with open(path, newline="") as file:
                yield from ((process.name, row) for row in csv.DictReader(file))


def usage_over_time(sessions: list[Path]) -> list[tuple[Fraction, int]]:
    """How full the KV cache was and for how many whole microseconds, for every engine step but an engine's last."""
    levels = []
    for session in sessions:
        by_engine: dict[tuple[str, str], list[tuple[int, int, Fraction]]] = {}
        for process, row in csv_rows(session, "engine_steps"):
            if row["in_use"] and int(row["total_blocks"]):
                used = Fraction(int(row["in_use"]), int(row["total_blocks"]))
                by_engine.setdefault((process, row["engine"]), []).append((int(row["time_ns"]), int(row["step"]), used))
        for rows in by_engine.values():
            rows.sort()
            levels += [(row[2], (after[0] - row[0]) // 1000) for row, after in pairwise(rows)]
    return levels


def percentile(levels: list[tuple[Fraction, int]], percent: int) -> float | None:
    """The lowest level at or below which so many percent of the time were spent, going up level by level."""
    whole = sum(held for _, held in levels)
    below = 0
    for used, held in sorted(levels):
        below += held
        if whole and Fraction(below, whole) >= Fraction(percent, 100):
            return 100 * float(used)
    return None


def quiet(name: str, num_bytes: int) -> None:
    """Nobody looks at the progress."""
