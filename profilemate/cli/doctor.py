"""Check whether ProfileMate can work here, and why not.

Exit code 1 if something would make a session empty. No GPU is needed; the last check imports vLLM, which takes a while.
"""

from __future__ import annotations

import argparse
import json
import os
import sys

from profilemate.cli.checks import CHECKS, FAILURE, OK, Check
from profilemate.cli.progress import Progress

EPILOG = """examples:
  profilemate doctor
  profilemate doctor --json"""

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
    with Progress("checking") as progress:
        for check in CHECKS:
            progress.show(check.__name__.replace("_", " "))
            checks += check(environment)
    if arguments.json:
        sys.stdout.write(json.dumps([check._asdict() for check in checks], indent=1) + "\n")
    else:
        sys.stdout.write("".join(as_text(check) for check in checks))
    return 1 if any(check.status == FAILURE for check in checks) else 0


def as_text(check: Check) -> str:
    """One line, and the remedy below it."""
    remedy = f"         -> {check.remedy}\n" if check.remedy else ""
    return f"{MARKS[check.status]} {check.name}: {check.text}\n{remedy}"
