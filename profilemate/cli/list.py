"""The sessions of a folder, newest first: when, how large, which model, and whether each runs, ended or was killed.

States: running (a process lives on this machine), ended (Python saw the end of the program), killed (the program is gone
without that: kill -9, a crash, os._exit, a reboot), over (nothing runs, and how it ended was not recorded), empty (nothing
runs and no row was written), unknown (recorded on another host or in another container, where it may run). `trimmed`: its
detail went to keep the folder under its cap.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from profilemate.cli.locate import configured_directory
from profilemate.cli.progress import Progress
from profilemate.session.errors import SessionError
from profilemate.session.find import default_directories
from profilemate.session.records import text
from profilemate.sessions.grid import Column, print_grid, print_lines
from profilemate.sessions.inventory import Entry, entries_in, looks_like_session
from profilemate.sessions.words import age_text, bytes_text, count_of, span_text

EPILOG = """examples:
  profilemate list
  profilemate list /data/profiles --last 20
  profilemate list --json | jq '.[] | select(.state == "killed") | .path'"""

COLUMNS = (
    Column("session"),
    Column("begun", rank=4),
    Column("age", rank=1, is_number=True),
    Column("state"),
    Column("size", is_number=True),
    Column("duration", rank=2, is_number=True),
    Column("model", rank=3, least=14),
    Column("processes", rank=6, is_number=True),
    Column("requests", rank=5, is_number=True),
    Column("steps", rank=7, is_number=True),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("folder", nargs="?", type=Path, metavar="FOLDER", help="of the settings, where none is given")
    parser.add_argument("--last", type=count_of, metavar="N", help="only the newest N")
    parser.add_argument("--json", action="store_true", help="all that is known of each session")


def run(arguments: argparse.Namespace) -> int:
    """Print the table; exit code 2 where there is no such folder."""
    entries = [entry for folder in folders_of(arguments.folder) for entry in read_folder(folder)]
    entries.sort(key=lambda entry: -(entry.begun_ns or 0))
    shown = entries if arguments.last is None else entries[: arguments.last]
    if arguments.json:
        sys.stdout.write(json.dumps([as_record(entry) for entry in shown], indent=1) + "\n")
        return 0
    if not entries:
        places = " and ".join(str(folder) for folder in folders_of(arguments.folder))
        sys.stdout.write(f"there is no session in {places}\n")
        return 0
    _print(shown, len(entries), sum(entry.size_bytes for entry in entries))
    return 0


def folders_of(wanted: Path | None) -> list[Path]:
    """The folder that was named, else those of the settings that are there. Raises SessionError where there is none."""
    if wanted is None:
        found = [folder for folder in default_directories(configured_directory()) if folder.is_dir()]
        if not found:
            places = " and ".join(str(folder) for folder in default_directories(configured_directory()))
            raise SessionError(f"there is no folder {places}; name one, or set PROFILEMATE_DIR")
        return found
    if not wanted.is_dir():
        raise SessionError(f"{wanted} is not a folder of sessions")
    if looks_like_session(wanted):
        raise SessionError(f"{wanted} is a session, not a folder of sessions: profilemate show {wanted}")
    return [wanted]


def read_folder(folder: Path) -> list[Entry]:
    """Its sessions, with a line of progress."""
    with Progress(f"reading {folder}") as progress:
        return entries_in(folder, lambda done, of: progress.show(f"{done:,} of {of:,} sessions"))


def _print(entries: list[Entry], found: int, num_bytes: int) -> None:
    now_ns = time.time_ns()
    left_out = print_grid(COLUMNS, [_cells(entry, now_ns) for entry in entries])
    first = f"{found:,} sessions, {bytes_text(num_bytes)}" if found != 1 else f"1 session, {bytes_text(num_bytes)}"
    lines = [first + (f"; the newest {len(entries):,} are shown" if len(entries) < found else "")]
    if any(entry.requests is not None and not entry.requests.is_exact for entry in entries):
        lines.append("~: estimated from the size of the rows; profilemate summary counts")
    lines += [f"{text(entry.name)}: {entry.trouble}" for entry in entries if entry.trouble][:MOST_TROUBLES]
    if left_out:
        lines.append(f"no room for {', '.join(left_out)}; a wider terminal or --json has them")
    print_lines(["", *lines])


MOST_TROUBLES = 10


def _cells(entry: Entry, now_ns: int) -> tuple[str, ...]:
    begun = datetime.fromtimestamp(entry.begun_ns / 1e9).strftime("%Y-%m-%d %H:%M") if entry.begun_ns else "-"
    return (
        text(entry.name),
        begun,
        age_text((now_ns - entry.begun_ns) / 1e9) if entry.begun_ns else "-",
        f"{entry.state}, trimmed" if entry.is_trimmed else entry.state,
        bytes_text(entry.size_bytes),
        "-" if entry.duration_ns is None else span_text(entry.duration_ns / 1e9),
        entry.model.rstrip("/").rpartition("/")[2] or "-",
        str(len(entry.roles)),
        "-" if entry.requests is None else f"{'' if entry.requests.is_exact else '~'}{entry.requests.number:,}",
        "-" if entry.steps is None else f"{entry.steps:,}",
    )


def as_record(entry: Entry) -> dict[str, Any]:
    """One session for --json. Times in seconds, of the wall clock where they are moments."""
    return {
        "name": entry.name,
        "path": str(entry.path.absolute()),
        "begun_unix_sec": None if entry.begun_ns is None else entry.begun_ns / 1e9,
        "size_bytes": entry.size_bytes,
        "state": entry.state,
        "trimmed": entry.is_trimmed,
        "model": entry.model,
        "vllm": entry.vllm,
        "processes": list(entry.roles),
        "hosts": list(entry.hosts),
        "duration_sec": None if entry.duration_ns is None else entry.duration_ns / 1e9,
        "engine_steps": entry.steps,
        "requests": None if entry.requests is None else entry.requests.number,
        "requests_are_exact": None if entry.requests is None else entry.requests.is_exact,
        "trouble": entry.trouble,
    }
