"""Opens and aggregates streams of many rows with several readers, each in a process of its own, and shows a table.

The files are made with the columns that the probe writes, in a temporary folder that is removed at the end: 3.4 GB for ten
million engine steps. They are read once before each measurement, so that the page cache is as warm for everybody.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path
from typing import Any

from read_speed.questions import MODULES, READERS, Answer

TABLES = ("engine_steps", "kv_evictions")
WHOLE_FILE_ROWS = 2_000_000
"""pandas keeps every cell of a file that it reads without `usecols`: not tried with more rows than this."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command."""
    options = _parser().parse_args(arguments)
    if options.child:
        print(json.dumps(_measure(*options.child)))
        return 0
    if options.make:
        from read_speed.make_session import make

        make(Path(options.make[0]), options.make[1], int(options.make[2]))
        return 0
    results: list[dict[str, Any]] = []
    for rows in options.rows:
        for table in options.tables:
            results += _compare(table, rows, options)
    print(_table(results))
    if options.json:
        record = {"command": "python " + " ".join(sys.argv), "cores": os.cpu_count(), "results": results}
        Path(options.json).write_text(json.dumps(record, indent=1) + "\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="benchmarks/read_speed", description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000], help="rows of each file, several sizes")
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=TABLES, help="which streams")
    parser.add_argument("--readers", nargs="+", choices=list(READERS), default=list(READERS), help="which readers")
    parser.add_argument("--slow-rows", type=int, default=200_000, help="at most so many for the pure-Python reader")
    parser.add_argument("--repeats", type=int, default=3, help="measurements of each reader, by turns")
    parser.add_argument("--json", metavar="FILE", help="write all measurements there")
    parser.add_argument("--folder", default=None, help="where the files are made, the temporary folder by default")
    parser.add_argument("--child", nargs=3, metavar=("READER", "FOLDER", "TABLE"), help=argparse.SUPPRESS)
    parser.add_argument("--make", nargs=3, metavar=("FOLDER", "TABLE", "ROWS"), help=argparse.SUPPRESS)
    return parser


def _compare(table: str, rows: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory(prefix="read-speed-", dir=options.folder) as temporary:
        sessions = {count: Path(temporary) / f"session_{count}" for count in {rows, min(rows, options.slow_rows)}}
        for count, folder in sessions.items():
            _run("--make", str(folder), table, str(count))
        measured: dict[str, list[dict[str, Any]]] = {}
        for _ in range(options.repeats):
            for reader in options.readers:
                count = min(rows, options.slow_rows) if reader == "pure Python" else rows
                if reader == "pandas.read_csv" and count > WHOLE_FILE_ROWS:
                    continue
                _warm(sessions[count])
                measured.setdefault(reader, []).append(_run("--child", reader, str(sessions[count]), table))
        sizes = {count: sum(p.stat().st_size for p in folder.rglob("*.csv")) for count, folder in sessions.items()}
    _check(measured, rows)
    return [_result(table, reader, runs, sizes) for reader, runs in measured.items()]


def _run(*arguments: str) -> Any:
    command = [sys.executable, str(Path(__file__).parent), *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout) if done.stdout else None


def _warm(folder: Path) -> None:
    buffer = bytearray(1 << 20)
    for path in folder.rglob("*.csv"):
        with open(path, "rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def _measure(reader: str, folder: str, table: str) -> dict[str, Any]:
    import_module(MODULES.get(reader, "pandas"))
    used, began = _cpu_seconds(), time.perf_counter()
    answer = READERS[reader](Path(folder), table)
    seconds = time.perf_counter() - began
    return {
        "seconds": seconds, "cpu_seconds": _cpu_seconds() - used, "peak_bytes": _peak_bytes(), "answer": answer,
        "load_average": os.getloadavg()[0],
    }  # fmt: skip


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _peak_bytes() -> int:
    """Peak resident memory of this process alone; ru_maxrss would have that of the one that started it."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) * 1024


def _check(measured: dict[str, list[dict[str, Any]]], rows: int) -> None:
    """All readers of the same file must have answered alike."""
    expected: Answer | None = None
    for reader, runs in measured.items():
        for run in runs:
            answer = run["answer"]
            if sum(values[0] for values in answer.values()) != rows:
                continue
            expected = expected or answer
            if not _alike(answer, expected):
                raise SystemExit(f"{reader} gives another answer: {answer} instead of {expected}")


def _alike(one: Answer, other: Answer) -> bool:
    return one.keys() == other.keys() and all(
        math.isclose(a, b, rel_tol=1e-9) for key in one for a, b in zip(one[key], other[key], strict=True)
    )


def _result(table: str, reader: str, runs: list[dict[str, Any]], sizes: dict[int, int]) -> dict[str, Any]:
    rows = int(sum(values[0] for values in runs[0]["answer"].values()))
    seconds = [run["seconds"] for run in runs]
    return {
        "table": table, "reader": reader, "rows": rows, "file_bytes": sizes[rows], "seconds": statistics.median(seconds),
        "all_seconds": seconds, "cpu_seconds": statistics.median(run["cpu_seconds"] for run in runs),
        "rows_per_second": rows / statistics.median(seconds), "peak_bytes": max(run["peak_bytes"] for run in runs),
        "load_average": statistics.median(run["load_average"] for run in runs),
    }  # fmt: skip


def _table(results: list[dict[str, Any]]) -> str:
    lines = [
        "| table | rows | file | reader | seconds | rows per second | CPU seconds | rows per CPU second | peak memory | load |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for one in results:
        least, most = min(one["all_seconds"]), max(one["all_seconds"])
        spread = f" ({least:.2f} to {most:.2f})" if len(one["all_seconds"]) > 1 else ""
        lines.append(
            f"| {one['table']} | {one['rows']:,} | {one['file_bytes'] / 1e6:,.0f} MB | {one['reader']} | "
            f"{one['seconds']:.2f}{spread} | {one['rows_per_second']:,.0f} | {one['cpu_seconds']:.2f} | "
            f"{one['rows'] / max(one['cpu_seconds'], 1e-9):,.0f} | {one['peak_bytes'] / 2**20:,.0f} MiB | "
            f"{one['load_average']:.1f} |"
        )
    return "\n".join(lines)
