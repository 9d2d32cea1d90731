"""Makes sessions of several sizes and runs the commands that read one: is time linear, memory bounded, every total true?

A session is that of a data-parallel server on two hosts. Each table has so many rows: engine steps, block usage, evictions,
forward passes (once for each of two workers of an engine), device times, and requests as the front ends and the schedulers
know them; a tenth of the requests was preempted. What they add up to is known from arithmetic (tests/support/scale_truth.py).

The commands run one after another as processes of their own: `merge` joins the two hosts' sessions, the others read the joined
one. Some 0.9 GB of disk are needed for a million rows, and half as much again for the exported files.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from scale.measure import COMMANDS, Result, measure_size
from scale.table import table

MOST_BYTES = 1 << 30
BOUNDED = ("merge", "export")
PROCESSES = 64
ROWS = (100_000, 300_000, 1_000_000)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; exit code 1 where a total is not the truth, or merging or exporting took over 1 GiB of memory."""
    options = _parser().parse_args(arguments)
    if options.child:
        from scale.child import run

        return run(*options.child)
    results: list[Result] = []
    complaints: list[str] = []
    for rows in options.rows:
        with tempfile.TemporaryDirectory(prefix="scale-", dir=options.folder) as folder:
            found, wrong = measure_size(Path(folder), rows, options.processes, options.commands)
        results += found
        complaints += [f"{rows:,} rows: {one}" for one in wrong]
        _write(options, results)
    complaints += [
        f"{one.rows:,} rows: {one.command} took {one.peak_bytes / 2**20:,.0f} MiB"
        for one in results
        if one.command in BOUNDED and one.peak_bytes > MOST_BYTES
    ]
    print(table(results))
    for complaint in complaints:
        print(complaint, file=sys.stderr)
    return 1 if complaints else 0


def _write(options: argparse.Namespace, results: list[Result]) -> None:
    """After each size, so that what was measured is not lost."""
    if options.json:
        record = {
            "command": "python " + " ".join(sys.argv), "cores": os.cpu_count(), "python": platform.python_version(),
            "processes": options.processes, "results": [asdict(one) for one in results],
        }  # fmt: skip
        Path(options.json).write_text(json.dumps(record, indent=1) + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="benchmarks/scale", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=list(ROWS), help="rows of each table, several sizes")
    parser.add_argument("--processes", type=_processes, default=PROCESSES, help="a multiple of four, eight at least")
    parser.add_argument("--commands", nargs="+", choices=COMMANDS, default=list(COMMANDS), help="besides merge")
    parser.add_argument("--json", metavar="FILE", help="write all measurements there")
    parser.add_argument("--folder", default=None, help="where sessions are made, the temporary folder by default")
    parser.add_argument("--child", nargs=4, metavar=("TASK", "FOLDER", "ROWS", "PROCESSES"), help=argparse.SUPPRESS)
    return parser


def _processes(text: str) -> int:
    count = int(text)
    if count < 8 or count % 4:
        raise argparse.ArgumentTypeError(f"{text} is not a multiple of four, eight at least")
    return count
