"""Check whether ProfileMate can work here, and why not.

Exit code 1 if something would make a session empty. No GPU is needed; the last check imports vLLM, which takes a while.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, wait

from profilemate.cli.check import FAILURE, OK, Check
from profilemate.cli.checks import CHECKS
from profilemate.cli.progress import Progress

EPILOG = """examples:
  profilemate doctor
  profilemate doctor --json"""

SHOW_EVERY_SECONDS = 0.2
MARKS = {OK: "ok      ", "warning": "warning ", FAILURE: "FAILURE "}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("--json", action="store_true", help="print the checks as JSON")
    parser.add_argument("--dir", metavar="FOLDER", help="check this folder instead of the one in the settings")


def run(arguments: argparse.Namespace) -> int:
    """Run all checks and print them; 1 if one of them is a failure."""
    environment = dict(os.environ)
    if arguments.dir:
        environment["PROFILEMATE_DIR"] = arguments.dir
    checks: list[Check] = []
    for check in CHECKS:
        found = with_progress(check, environment)
        checks += found
        if not arguments.json:
            sys.stdout.write("".join(map(as_text, found)))
            sys.stdout.flush()
    if arguments.json:
        sys.stdout.write(json.dumps([check._asdict() for check in checks], indent=1) + "\n")
    return 1 if any(check.status == FAILURE for check in checks) else 0


def with_progress(check: Callable[[Mapping[str, str]], list[Check]], environment: Mapping[str, str]) -> list[Check]:
    """Run one check while a line on a terminal says which; importing vLLM takes some 20 seconds."""
    began = time.monotonic()
    doing = check.__name__.replace("_", " ")
    with Progress("checking") as progress, ThreadPoolExecutor(1) as pool:
        running = pool.submit(check, environment)
        while wait([running], SHOW_EVERY_SECONDS).not_done:
            progress.show(f"{doing}, {time.monotonic() - began:.0f} s")
    return running.result()


def as_text(check: Check) -> str:
    """One line, and the remedy below it."""
    remedy = f"         -> {check.remedy}\n" if check.remedy else ""
    return f"{MARKS[check.status]} {check.name}: {check.text}\n{remedy}"
