"""Join the sessions of several hosts into one, for instance of a data-parallel server with headless nodes.

Each host recorded a session of its own. The joined one has the processes of all (linked, or copied where that cannot be)
with their clocks put together, and states how far these may be off: requests that a front end on one host and an engine on
another both saw bound the error; without such requests it is that of the hosts' time synchronisation. Where two sessions
have the same engine numbers, those of the later one go up. The sessions themselves are left as they are.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from profilemate.cli.locate import configured_directory
from profilemate.cli.progress import Progress
from profilemate.session.find import find_session
from profilemate.sessions.grid import print_lines
from profilemate.sessions.merge.join import Plan, plan, session_record, write

EPILOG = """examples:
  profilemate merge host-a/session_20250101_120000 host-b/session_20250101_120003 -o both
  profilemate merge A B C -o all --json | jq .clocks
  profilemate summary both"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("sessions", nargs="+", metavar="SESSION", help="two sessions or more")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER", help="the new session's folder")
    parser.add_argument(
        "--force",
        action="store_true",
        help="also where one runs still, or was not recorded at the same time as the others",
    )
    parser.add_argument("--json", action="store_true", help="print the new session.json")


def run(arguments: argparse.Namespace) -> int:
    """Join them and say what is uncertain; exit code 2 where they are not to be joined."""
    paths = [find_session(wanted, configured_directory()) for wanted in arguments.sessions]
    with Progress("reading the sessions") as progress:
        made = plan(paths, arguments.force, progress.read)
        progress.show("writing")
        write(made, arguments.output)
    if arguments.json:
        sys.stdout.write(json.dumps(session_record(made, arguments.output.name), indent=1) + "\n")
    else:
        print_lines(told(made, arguments.output))
    return 0


def told(made: Plan, output: Path) -> list[str]:
    """Lines for people."""
    lines = [f"{part.label}: {', '.join(process.role for process in part.processes)}" for part in made.parts]
    return [*lines, *(f"  {note}" for note in made.notes), f"Session: {output}"]
