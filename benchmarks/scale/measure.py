"""One size: the sessions are made, each command is run and measured, and what it wrote is checked."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = ("export", "summary", "report")
JOINED = "joined"
PAGE = "report.html"
MILLION = 1_000_000


@dataclass(frozen=True)
class Result:
    """What one command took. `peak_bytes` is resident memory; `load_average` is that of the machine when it ended."""

    rows: int
    command: str
    cpu_seconds: float
    wall_seconds: float
    peak_bytes: int
    session_bytes: int
    load_average: float

    @property
    def cpu_seconds_per_million(self) -> float:
        """For a million rows in each table."""
        return self.cpu_seconds * MILLION / self.rows


def measure_size(folder: Path, rows: int, processes: int, commands: Sequence[str]) -> tuple[list[Result], list[str]]:
    """Results of all commands, and sentences about totals that are not the truth."""
    _say(f"{rows:,} rows, {processes} processes: making the sessions")
    _child("make", folder, rows, processes)
    parts = sorted(path for host in folder.glob("host*") for path in host.iterdir())
    joined = folder / JOINED
    size = sum(path.stat().st_size for part in parts for path in part.rglob("*.csv"))
    results = []
    for name, arguments in _commands(joined, parts, folder):
        if name in ("merge", *commands):
            results.append(_measure(name, arguments, rows, size))
    wrong = _child("check", joined, rows, processes).splitlines() if "export" in commands else []
    return results, wrong


def _commands(joined: Path, parts: list[Path], folder: Path) -> list[tuple[str, list[str]]]:
    return [
        ("merge", ["merge", *map(str, parts), "--output", str(joined)]),
        ("export", ["export", str(joined)]),
        ("summary", ["summary", str(joined)]),
        ("report", ["report", str(joined), "--output", str(folder / PAGE)]),
    ]


def _measure(name: str, arguments: list[str], rows: int, size: int) -> Result:
    """The process's own account. It begins with the memory of the one that starts it, so this one has to stay small."""
    _say(f"{rows:,} rows: {name}")
    command = [sys.executable, "-m", "profilemate", *arguments]
    began = time.perf_counter()
    started = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    said = started.stderr.read() if started.stderr else ""
    _, status, used = os.wait4(started.pid, 0)
    wall = time.perf_counter() - began
    started.returncode = os.waitstatus_to_exitcode(status)
    if started.returncode:
        raise SystemExit(f"profilemate {' '.join(arguments)}: exit code {started.returncode}\n{said}")
    return Result(
        rows, name, used.ru_utime + used.ru_stime, wall, used.ru_maxrss * 1024, size, round(os.getloadavg()[0], 1)
    )


def _child(task: str, folder: Path, rows: int, processes: int) -> str:
    """What needs polars is done elsewhere."""
    command = [sys.executable, str(Path(__file__).parent), "--child", task, str(folder), str(rows), str(processes)]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
