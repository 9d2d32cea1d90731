"""Run commands over sessions of tests/support/hostile_sessions.py with little memory, one line of JSON for each.

    PYTHONPATH=tests/support:. python tests/hostile/run_cases.py CASE...

A process of its own: what eats its memory ends it, and the last line names the case before.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import sys
import tempfile
import time
from pathlib import Path

import golden
import hostile_commands as commands
from hostile_sessions import BASES, MAKERS

MORE_BYTES = 1 << 30
NAME = "session_20260101_000000"


def world_of(name: str, directory: Path) -> Path:
    """A folder with one session in a folder."""
    (directory / "in").mkdir()
    session = golden.copy(BASES.get(name, "server"), directory / "in", NAME)
    MAKERS[name](session)
    return session


def faults_of(name: str) -> list[str]:
    """What is wrong with the commands on one case."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        return commands.faults_on(world_of(name, Path(folder)))


def limit_memory() -> None:
    """So much more than now: with everything imported, and every thread that a pool has."""
    used = int(re.findall(r"VmSize:\s+(\d+)", Path("/proc/self/status").read_text())[0]) << 10
    resource.setrlimit(resource.RLIMIT_AS, (used + MORE_BYTES,) * 2)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("cases", nargs="*", default=list(MAKERS))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "in").mkdir()
        commands.faults_on(golden.copy("server", Path(folder) / "in", NAME))
    limit_memory()
    for name in options.cases:
        began = time.process_time()
        print(json.dumps({"begins": name}), flush=True)
        found = faults_of(name)
        print(
            json.dumps({"case": name, "faults": found, "cpu_seconds": round(time.process_time() - began, 2)}),
            flush=True,
        )
    return 0


if __name__ == "__main__":
    os.environ |= {"COLUMNS": "160", "POLARS_MAX_THREADS": "2"}
    sys.exit(main())
