"""Show what a session recorded: CUDA graphs, KV cache, and whether the recording is whole."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from profilemate.cli.locate import configured_directory
from profilemate.cli.progress import Progress
from profilemate.export.readme_files import current_metadata
from profilemate.export.text import short_lines, summary_lines
from profilemate.session.alive import living
from profilemate.session.find import LATEST, find_session
from profilemate.session.records import printable
from profilemate.session.session import Session

EPILOG = """examples:
  profilemate summary
  profilemate summary /tmp/vllm_profiling/session_20250101_120000 --json | jq .summary.kv_cache.hit_rate"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument(
        "session", nargs="?", default=LATEST, metavar="SESSION", help="a session, a folder of sessions, or latest"
    )
    parser.add_argument("--json", action="store_true", help="the content of metadata.json, summary included")


def run(arguments: argparse.Namespace) -> int:
    """Print the summary; the session's files are made first if they are older than its streams."""
    session = Session(find_session(arguments.session, configured_directory()))
    record = _record(session)
    if arguments.json:
        sys.stdout.write(json.dumps(record, indent=1) + "\n")
        return 0
    lines = summary_lines(record)
    running = living(session)
    if running:
        lines.insert(2, f"Still running: {', '.join(process.role for process in running)}; the numbers are so far")
    sys.stdout.write("\n".join(map(printable, [*lines, "", f"Files: {session.path}"])) + "\n")
    return 0


def _record(session: Session) -> dict[str, Any]:
    with Progress("reading the session") as progress:
        session.on_read = progress.read
        return current_metadata(session)


def short_summary(session_path: str | Path) -> str:
    """Some ten lines for the end of a run. Raises SessionError where there is no session."""
    return "\n".join(map(printable, short_lines(_record(Session(Path(session_path))))))
