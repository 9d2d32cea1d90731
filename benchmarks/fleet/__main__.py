"""Peak memory and time of `profilemate fleet export` and `fleet query`, at several sizes of one session.

    python benchmarks/fleet --rows 1000000 10000000

Each runs in a process of its own over a session of so many rows of engine_steps, the widest stream; prints the table that
stands in docs/fleet.md. The folder is removed again.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2])]

from read_speed.make_session import make  # noqa: E402

MEASURED = """
import resource, sys
from profilemate.cli.main import main
code = main(sys.argv[1:])
used = resource.getrusage(resource.RUSAGE_SELF)
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print("measured", peak.split()[1], used.ru_utime + used.ru_stime, file=sys.stderr)
sys.exit(code)
"""
TABLE = "engine_steps"
QUERIES = ("kv_usage", "hit_rates")


class Cost(NamedTuple):
    """Of one command."""

    peak_mib: float
    cpu_seconds: float


def measure(*words: str) -> Cost:
    """Run a command and see what it took."""
    done = subprocess.run([sys.executable, "-c", MEASURED, *words], capture_output=True, text=True, check=True)
    _, peak_kib, seconds = done.stderr.strip().splitlines()[-1].split()
    return Cost(int(peak_kib) / 1024, float(seconds))


def lines(folder: Path, rows: int) -> list[str]:
    """Rows of the table for one size."""
    shutil.rmtree(folder, ignore_errors=True)
    session, dataset = folder / "session", folder / "dataset"
    stream = make(session, TABLE, rows)
    told = []
    for words in (("export", str(session), "-o", str(dataset)), *(("query", name, str(dataset)) for name in QUERIES)):
        cost = measure("fleet", *words)
        name = words[0] if words[0] == "export" else f"query {words[1]}"
        size = stream.stat().st_size / 1e6
        told.append(f"| {name} | {rows:,} | {size:,.0f} MB | {cost.peak_mib:,.0f} MiB | {cost.cpu_seconds:,.1f} |")
    written = sum(path.stat().st_size for path in dataset.rglob("*.parquet")) / 1e6
    shutil.rmtree(folder)
    return [*told, f"| (the data set) | {rows:,} | {written:,.0f} MB | | |"]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir(), "fleet-benchmark"))
    options = parser.parse_args()
    print("| command | rows | size | peak memory | CPU seconds |\n| --- | --- | --- | --- | --- |")
    for rows in options.rows:
        print("\n".join(lines(options.folder, rows)), flush=True)
    print(f"\nload average {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
