"""Remove old sessions of a folder. Without --yes nothing is removed, only shown.

A session goes where every rule that is given lets it go; with --to-size the oldest first, until the folder is small enough.
Never one that runs, never a folder that is no session, never through a link, and only files that ProfileMate writes: what else
lies in a session stays where it is and is named.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from profilemate.cli.list import folders_of, read_folder
from profilemate.cli.progress import Progress
from profilemate.frames.packages import load
from profilemate.session.errors import SessionError
from profilemate.session.records import text
from profilemate.sessions.choice import Choice, Rules, choose, obstacle_of
from profilemate.sessions.grid import Column, print_grid, print_lines
from profilemate.sessions.inventory import read_entry
from profilemate.sessions.removal import Removed, remove_session
from profilemate.sessions.words import bytes_text, count_of, seconds_of, size_of

EPILOG = """examples:
  profilemate prune --older-than 7d                  shows what would go
  profilemate prune --older-than 7d --keep 20 --yes
  profilemate prune /data/profiles --to-size 5GiB --yes
  profilemate prune --larger-than 1GiB --detail-only --yes"""

COLUMNS = (
    Column("session"),
    Column("state", rank=2),
    Column("size", is_number=True),
    Column("fate", rank=1),
    Column("because", rank=3, least=12),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("folder", nargs="?", type=Path, metavar="FOLDER", help="of the settings, where none is given")
    parser.add_argument("--older-than", type=seconds_of, metavar="AGE", help="last row older than this: 12h, 7d, 2w")
    parser.add_argument("--larger-than", type=size_of, metavar="SIZE", help="larger than this: 500M, 2GiB")
    parser.add_argument("--keep", type=count_of, metavar="N", help="never the newest N")
    parser.add_argument("--to-size", type=size_of, metavar="SIZE", help="the oldest ones, until all have this size")
    parser.add_argument(
        "--detail-only",
        action="store_true",
        help="remove only the rows; files and totals stay, as under the folder cap",
    )
    parser.add_argument(
        "--unknown-too",
        action="store_true",
        help="also what was recorded elsewhere and did not tell its end, an hour after it was last written",
    )
    parser.add_argument("--yes", action="store_true", help="do it")
    parser.add_argument("--json", action="store_true", help="what goes, what stays and why, as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Show or do it; 1 where something could not be removed."""
    rules = Rules(arguments.older_than, arguments.larger_than, arguments.keep, arguments.to_size, arguments.unknown_too)
    if not rules.are_given:
        raise SessionError("say what may go: --older-than, --larger-than, --keep or --to-size")
    if not arguments.json:
        load("rich.console")  # before anything is removed
    entries = [entry for folder in folders_of(arguments.folder) for entry in read_folder(folder)]
    entries.sort(key=lambda entry: -(entry.begun_ns or 0))
    choices = choose(entries, rules)
    if arguments.detail_only:
        choices = [_not_trimmed_twice(choice) for choice in choices]
    done = _remove(choices, arguments) if arguments.yes else {}
    if arguments.json:
        sys.stdout.write(json.dumps([as_record(choice, done) for choice in choices], indent=1) + "\n")
    else:
        _print(choices, done, arguments)
    return 1 if any(removed.left for removed in done.values()) else 0


def _not_trimmed_twice(choice: Choice) -> Choice:
    return (
        Choice(choice.entry, False, "its detail is gone already") if choice.goes and choice.entry.is_trimmed else choice
    )


def _remove(choices: Sequence[Choice], arguments: argparse.Namespace) -> dict[Path, Removed]:
    """Remove what goes; each is looked at once more just before."""
    done: dict[Path, Removed] = {}
    going = [choice for choice in choices if choice.goes]
    with Progress("removing") as progress:
        for number, choice in enumerate(reversed(going), 1):
            path = choice.entry.path
            progress.show(f"{number:,} of {len(going):,} sessions")
            done[path] = _remove_one(path, arguments)
    return done


def _remove_one(path: Path, arguments: argparse.Namespace) -> Removed:
    obstacle = obstacle_of(read_entry(path), arguments.unknown_too)
    if obstacle:
        return Removed(left=[f"{path.name}: {obstacle}"])
    try:
        return remove_detail_of(path) if arguments.detail_only else remove_session(path)
    except (OSError, SessionError) as error:
        return Removed(left=[f"{path.name}: {error}"])


def remove_detail_of(path: Path) -> Removed:
    """Make its files as they will stay, then remove the rows, as the folder cap does. Raises SessionError or OSError."""
    from profilemate.export.readme_files import make_current
    from profilemate.export.retention import remove_detail
    from profilemate.session.session import Session

    before = read_entry(path).size_bytes
    make_current(Session(path))
    remove_detail(path)
    return Removed(num_bytes=max(0, before - read_entry(path).size_bytes))


def _print(choices: Sequence[Choice], done: dict[Path, Removed], arguments: argparse.Namespace) -> None:
    going = [choice for choice in choices if choice.goes]
    what = "detail of " if arguments.detail_only else ""
    if not going:
        sys.stdout.write(f"nothing to remove: {len(choices):,} sessions stay\n")
    else:
        print_grid(COLUMNS, [_cells(choice, done) for choice in choices])
        print_lines(["", _outcome(going, done, arguments.yes, what)])
    left = [f"left in {text(path)}: {text(name)}" for path, removed in done.items() for name in removed.left]
    if left:
        print_lines(left)


def _outcome(going: Sequence[Choice], done: dict[Path, Removed], yes: bool, what: str) -> str:
    if not yes:
        size = bytes_text(sum(choice.entry.size_bytes for choice in going))
        at_most = "at most " if what else ""
        return f"would remove {what}{len(going):,} sessions, {at_most}{size}; --yes does it"
    gone = sum(removed.is_gone for removed in done.values())
    return f"removed {what}{gone:,} sessions, {bytes_text(sum(removed.num_bytes for removed in done.values()))}"


def _cells(choice: Choice, done: dict[Path, Removed]) -> tuple[str, ...]:
    entry = choice.entry
    removed = done.get(entry.path)
    fate = ("removed" if removed.is_gone else "left in part") if removed else "would go" if choice.goes else "stays"
    return (text(entry.name), entry.state, bytes_text(entry.size_bytes), fate, choice.reason)


def as_record(choice: Choice, done: dict[Path, Removed]) -> dict[str, Any]:
    """One session for --json; `removed` is null where nothing was tried."""
    removed = done.get(choice.entry.path)
    return {
        "name": choice.entry.name,
        "path": str(choice.entry.path.absolute()),
        "state": choice.entry.state,
        "size_bytes": choice.entry.size_bytes,
        "goes": choice.goes,
        "reason": choice.reason,
        "removed": None if removed is None else removed.is_gone,
        "removed_bytes": 0 if removed is None else removed.num_bytes,
        "left": [] if removed is None else removed.left,
    }
