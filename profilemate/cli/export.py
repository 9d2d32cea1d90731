"""Write the files of a session, or its samples in another format.

A session may be exported as often as you like, also while its server runs.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from pathlib import Path

from profilemate.cli.locate import configured_directory
from profilemate.cli.progress import Progress
from profilemate.export.formats import FORMATS, by_name
from profilemate.export.readme_files import tidy
from profilemate.session.alive import wait_until_ended
from profilemate.session.find import LATEST, find_session
from profilemate.session.session import Session

EPILOG = """examples:
  profilemate export                                  the latest session
  profilemate export /tmp/vllm_profiling/session_20250101_120000
  profilemate export latest --format prometheus --output samples.prom"""

TIDY_NICENESS = 10
"""A server begins at the same time, and its start comes first."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument(
        "session", nargs="?", default=LATEST, metavar="SESSION", help="a session, a folder of sessions, or latest"
    )
    parser.add_argument(
        "--format",
        choices=[known.name for known in FORMATS],
        default=FORMATS[0].name,
        help="; ".join(f"{known.name}: {known.help}" for known in FORMATS),
    )
    parser.add_argument("--output", type=Path, metavar="PATH", help="where to write instead (a folder for csv)")
    parser.add_argument(
        "--tidy", action="store_true", help="only keep the folder that the session lies in under its cap"
    )
    parser.add_argument(
        "--wait",
        type=_seconds,
        default=0.0,
        metavar="SECONDS",
        help="first wait for the session to end, at most so long",
    )


def _seconds(text: str) -> float:
    value = float(text)
    if not math.isfinite(value) or value < 0:
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds")
    return value


def run(arguments: argparse.Namespace) -> int:
    """Export one session and print where its files are."""
    path = find_session(arguments.session, configured_directory())
    if arguments.wait:
        with Progress("waiting for the session to end") as progress:
            wait_until_ended(path, arguments.wait, lambda left: progress.show(f"{left:.0f} s left"))
    session = Session(path)
    if arguments.tidy:
        os.nice(TIDY_NICENESS)
        tidy(session)
        return 0
    with Progress("exporting") as progress:
        session.on_read = progress.read
        text = by_name(arguments.format).load()(session, arguments.output)
    sys.stdout.write(text)
    return 0
