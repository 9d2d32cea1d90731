"""Put two or more sessions side by side: settings that differ, key numbers, and whether they differ beyond the noise.

The first session is the baseline. With --fail-if the exit code says whether a condition holds: 0 none, 1 one does, 2 bad input.
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from profilemate.cli.locate import configured_directory
from profilemate.cli.progress import Progress
from profilemate.export.atomic import write_asked_for
from profilemate.session.errors import SessionError
from profilemate.session.find import find_session

if TYPE_CHECKING:
    from profilemate.compare.comparison import Comparison
    from profilemate.compare.conditions import Outcome

PIPED_COLUMNS = 120

EPILOG = """conditions:
  NAME OP VALUE, OP one of > >= < <=; `profilemate compare --list` has the names
  'ttft_p95 > +10%'      the last session's change against the first: percent, or a unit (+20ms), or points (+2pt)
  'ttft_p95 > 1.5s'      without a sign: the last session's own value
  A condition on a change holds when the change passes the bound and is beyond the noise.

examples:
  profilemate compare before/session_20250101_120000 after/session_20250102_120000
  profilemate compare A B C --html compare.html
  profilemate compare A B --fail-if 'ttft_p95 > +10%' --fail-if 'output_throughput < -5%' || exit 1
  profilemate compare A B --json | jq '.numbers[] | select(.name == "tpot_p50") | .changes.B'"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    add = parser.add_argument
    add(
        "sessions",
        nargs="*",
        metavar="SESSION",
        help="two or more sessions (or folders of sessions: the latest one in each)",
    )
    add("--fail-if", action="append", default=[], metavar="CONDITION", help="exit with 1 if it holds; may be repeated")
    add("--fail-if-unsure", action="store_true", help="exit with 1 as well where a condition cannot be told")
    add("--ignore-noise", action="store_true", help="conditions look at the numbers alone")
    add("--least", type=float, default=5.0, metavar="PERCENT", help="changes below are called small (default 5)")
    add("--json", action="store_true", help="everything as JSON on stdout")
    add("--html", type=Path, metavar="FILE", help="write a page with figures, self-contained")
    add("--why", action="store_true", help="say of each number that cannot be told why")
    add("--list", action="store_true", help="list the numbers' names and exit")


def run(arguments: argparse.Namespace) -> int:
    """Compare; returns 1 where a condition holds."""
    from profilemate.compare.conditions import outcomes, parse

    if arguments.list:
        return _list()
    conditions = [parse(text) for text in arguments.fail_if]
    if len(arguments.sessions) < 2:
        raise SessionError("compare needs two sessions at least: profilemate compare A B")
    if not 0 <= arguments.least < 1000:
        raise SessionError(f"--least {arguments.least:g}: a percentage from 0 to 1000")
    comparison = _compared(arguments.sessions, arguments.least / 100)
    found = outcomes(conditions, comparison.changes[-1], arguments.ignore_noise)
    if arguments.html:
        _write_page(comparison, found, arguments.html)
    if arguments.json:
        from profilemate.compare.record import comparison_record

        sys.stdout.write(json.dumps(comparison_record(comparison, found), indent=1) + "\n")
    else:
        _print(comparison, found, arguments.why)
    return _exit_code(found, arguments.fail_if_unsure, arguments.json)


def _compared(wanted: list[str], least: float) -> Comparison:
    from profilemate.compare.comparison import compare
    from profilemate.frames.session import open_session

    paths = [find_session(one, configured_directory()) for one in wanted]
    with Progress("comparing") as progress:
        sessions = [open_session(path) for path in paths]
        for session in sessions:
            session.on_read = progress.read
        try:
            return compare(sessions, least, progress.show)
        except OSError as error:  # exit code 1 is for conditions alone
            raise SessionError(f"{error.filename or 'a session'} cannot be read: {error.strerror or error}") from error


def _print(comparison: Comparison, found: list[Outcome], why: bool) -> None:
    from profilemate.compare.text import print_comparison
    from profilemate.frames.packages import load

    width = shutil.get_terminal_size((PIPED_COLUMNS, 24)).columns
    file = sys.stdout if sys.stdout.isatty() else io.StringIO()
    console = load("rich.console").Console(file=file, width=width, highlight=False, emoji=False)
    print_comparison(comparison, found, console, why)
    if isinstance(file, io.StringIO):
        sys.stdout.write("".join(f"{line.rstrip()}\n" for line in file.getvalue().splitlines()))


def _write_page(comparison: Comparison, found: list[Outcome], path: Path) -> None:
    from profilemate.compare.page import page

    text = page(comparison, found)
    try:
        write_asked_for(path, text.encode())
    except OSError as error:
        raise SessionError(f"{path} cannot be written: {error.strerror}") from error


def _exit_code(found: list[Outcome], fail_if_unsure: bool, say_on_stderr: bool) -> int:
    """The conditions that decided are said; the text on stdout has all of them."""
    from profilemate.compare.conditions import CANNOT_TELL, HOLDS

    failing = {HOLDS, CANNOT_TELL} if fail_if_unsure else {HOLDS}
    decided = [outcome for outcome in found if outcome.state in failing]
    unsure = [outcome for outcome in found if outcome.state == CANNOT_TELL]
    if say_on_stderr:
        for outcome in dict.fromkeys([*decided, *unsure]):
            sys.stderr.write(f"profilemate: {outcome.says}\n")
    return 1 if decided else 0


def _list() -> int:
    from profilemate.compare.catalogue import NUMBERS
    from profilemate.compare.shown import unit_of

    widths = [
        max(len(cell) for cell in column)
        for column in zip(*((n.name, unit_of(n), n.better) for n in NUMBERS), strict=True)
    ]
    for number in NUMBERS:
        cells = (number.name, unit_of(number), number.better)
        line = "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        sys.stdout.write(f"{line}  {number.title}\n")
    return 0
