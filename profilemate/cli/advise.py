"""Which flag to change, to what, why, what it should bring, and how sure that is.

Every finding says which rows it rests on. Where there is too little data for a statement, it says how much more is needed.
With --verify, two sessions: what was predicted from the first beside what the second shows, which was run with the advice;
exit code 0 if all predictions hold, 1 if one does not.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from typing import TYPE_CHECKING

from profilemate.advise import TOPICS
from profilemate.cli.locate import configured_directory
from profilemate.cli.progress import Progress
from profilemate.session.alive import living
from profilemate.session.find import LATEST, find_session
from profilemate.sessions.words import size_of

if TYPE_CHECKING:
    from profilemate.advise.run import Options
    from profilemate.frames.session import Session

EPILOG = """examples:
  profilemate advise
  profilemate advise /tmp/vllm_profiling/session_20250101_120000 --topic lengths --topic scheduling
  profilemate advise latest --json | jq -r '.findings[] | select(.level == "act") | .command_line'
  profilemate advise --topic capture_sizes --capture-budget 12
  profilemate advise --verify session_20250101_120000 session_20250101_130000"""

DO_NOT_HOLD = 1
MOST_GRAPHS = 100_000
SECONDS = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?s")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument(
        "session", nargs="?", default=LATEST, metavar="SESSION", help="a session, a folder of sessions, or latest"
    )
    parser.add_argument("--json", action="store_true", help="everything, for a script; docs/advice.md has the schema")
    parser.add_argument(
        "--topic", action="append", choices=TOPICS, metavar="NAME", default=[],
        help=f"only this topic; may be given several times: {', '.join(TOPICS)}",
    )  # fmt: skip
    parser.add_argument(
        "--verify", nargs=2, metavar=("BEFORE", "AFTER"),
        help="hold what is predicted from BEFORE against AFTER, which was run with the advice",
    )  # fmt: skip
    parser.add_argument(
        "--capture-budget", type=budget_words, metavar="BUDGET",
        help="what the captures of one engine may take, for the capture sizes: 20 (graphs), 5s or 500MiB; as many graphs as "
        "now by default",
    )  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    """Print the findings, or the verdicts."""
    options = _options(arguments.capture_budget)
    if arguments.verify:
        before, after = arguments.verify
        return _verify(before, after, arguments.topic, options, arguments.json)
    return _advise(arguments.session, arguments.topic, options, arguments.json)


def budget_words(text: str) -> dict[str, float]:
    """What `20`, `5s` or `500MiB` is as a budget. Raises argparse.ArgumentTypeError."""
    number = text.strip()
    if number.isascii() and number.isdecimal() and 0 < int(number) < MOST_GRAPHS:
        return {"graphs": int(number)}
    seconds = SECONDS.fullmatch(number)
    if seconds and float(seconds[1]) > 0:
        return {"seconds": float(seconds[1])}
    try:
        size = size_of(number)
    except argparse.ArgumentTypeError:
        size = 0
    if not size or number.isdecimal() or number.endswith("m"):  # 5m would be five minutes to most
        raise argparse.ArgumentTypeError(f"{text!r} is not a budget; for instance 20 (graphs), 5s or 500MiB")
    return {"memory_bytes": size}


def _options(capture_budget: dict[str, float] | None) -> Options:
    """Keyword arguments for the topics."""
    if capture_budget is None:
        return {}
    from profilemate.advise.graphs.plan import Budget

    return {"capture_sizes": {"budget": Budget(**capture_budget)}}  # type: ignore[arg-type]  # graphs is an int


def _open(wanted: str) -> Session:
    from profilemate.frames.session import Session

    return Session(find_session(wanted, configured_directory()))


def _advise(wanted: str, topics: list[str], options: Options, as_json: bool) -> int:
    from profilemate.advise.record import findings_record
    from profilemate.advise.run import findings
    from profilemate.advise.run import topics as known

    session = _open(wanted)
    with Progress("advising") as progress:
        session.on_read = progress.read
        found = findings(session, topics, progress.show, options)
    if as_json:
        ran = [name for name in known() if not topics or name in topics]
        sys.stdout.write(json.dumps(findings_record(session, ran, found), indent=1) + "\n")
        return 0
    from profilemate.advise.text import print_findings

    print_findings(_heading(session), found, sys.stdout)
    return 0


def _verify(before: str, after: str, topics: list[str], options: Options, as_json: bool) -> int:
    from profilemate.advise.record import check_record
    from profilemate.advise.verify import check

    first, second = _open(before), _open(after)
    with Progress("comparing with what was predicted") as progress:
        first.on_read = second.on_read = progress.read
        result = check(first, second, topics, progress.show, options)
    if as_json:
        sys.stdout.write(json.dumps(check_record(first, second, result), indent=1) + "\n")
    else:
        from profilemate.advise.text import print_check

        heading = f"Predicted from {first.info.session_id}, observed in {second.info.session_id}"
        print_check(heading, result, sys.stdout)
    return 0 if result.all_hold else DO_NOT_HOLD


def _heading(session: Session) -> str:
    running = ", still running: so far" if living(session) else ""
    return f"Advice for {session.info.session_id}{running}"
