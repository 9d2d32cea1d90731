"""`profilemate fleet export`: what was asked for, progress, and what is said about each session."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from profilemate.cli.progress import Progress
from profilemate.session.errors import SessionError
from profilemate.session.records import text
from profilemate.sessions.words import bytes_text, seconds_of

if TYPE_CHECKING:
    from profilemate.fleet.dataset import Dataset
    from profilemate.fleet.export import Done

MOST_NOTES = 3
"""Sentences about one session that are shown; the table `sessions` and its manifest have all."""
PACKAGES = ("pyarrow", "pyarrow.parquet", "polars")


def since_of(text: str) -> float:
    """Unix time of `2d` ago, or of the beginning of a day in UTC. Raises argparse.ArgumentTypeError."""
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=timezone.utc).timestamp()
    except ValueError:
        return time.time() - seconds_of(text)


def run_export(arguments: argparse.Namespace) -> int:
    """Export; exit code 1 where a session could not be."""
    from profilemate.fleet.export import FAILED, Wanted, export_all, sessions_below
    from profilemate.fleet.packages import load

    for module in PACKAGES:
        load(module)
    paths = sessions_below(arguments.folders)
    dataset = _dataset(arguments.output, arguments.dry_run)
    wanted = Wanted(arguments.since, arguments.running, arguments.again, arguments.dry_run)
    found: list[Done] = []
    with Progress("exporting") as progress:
        told = _Told(progress, len(paths))
        for done in export_all(dataset, paths, wanted, told.read):
            found.append(done)
            told.done += 1
            if not arguments.json:
                progress.clear()
                sys.stdout.write("".join(f"{line}\n" for line in _lines(done, wanted.dry)))
    if arguments.json:
        sys.stdout.write(json.dumps([_record(done) for done in found], indent=1) + "\n")
    else:
        sys.stdout.write(_total(found, wanted.dry, arguments.output) + "\n")
    return 1 if any(done.outcome == FAILED for done in found) else 0


def _dataset(path: Path, dry: bool) -> Dataset | None:
    """The data set; a dry run makes none."""
    from profilemate.fleet.dataset import ABOUT, Dataset

    if dry and not (path / ABOUT).is_file():
        if path.is_dir() and any(path.iterdir()):
            raise SessionError(f"{path} is not empty and not a data set: name another folder")
        return None
    return Dataset.make(path)


class _Told:
    """What the line of progress says."""

    def __init__(self, progress: Progress, sessions: int) -> None:
        self.done = 0
        self._progress = progress
        self._sessions = sessions
        self._bytes = 0

    def read(self, name: str, num_bytes: int) -> None:
        self._bytes += num_bytes
        self._progress.show(
            f"session {self.done + 1:,} of {self._sessions:,}, {bytes_text(self._bytes)} read: {text(name)}"
        )


def _lines(done: Done, dry: bool) -> list[str]:
    from profilemate.fleet.export import FAILED, LEFT_OUT, UNCHANGED

    name = text(done.path.name)
    if done.outcome in (FAILED, LEFT_OUT):
        return [f"{name}: {done.outcome}: {done.why}"]
    if dry or done.outcome == UNCHANGED:
        return [f"{name}: {'would be ' if dry and done.outcome != UNCHANGED else ''}{done.outcome}"]
    lost = f", {done.lost_rows:,} rows lost before" if done.lost_rows else ""
    notes = [f"  {text(note)}" for note in done.notes[:MOST_NOTES]]
    more = len(done.notes) - len(notes)
    return [
        f"{name}: {done.outcome}, {done.rows:,} rows, {bytes_text(done.num_bytes)}{lost}",
        *notes,
        *([f"  and {more} more: profilemate fleet query missing --json"] if more > 0 else []),
    ]


def _total(found: list[Done], dry: bool, output: Path) -> str:
    if not found:
        return "no session has a row since then"
    counts = Counter(done.outcome for done in found)
    words = ", ".join(f"{count:,} {outcome}" for outcome, count in counts.items())
    rows = sum(done.rows for done in found)
    return f"{words} (nothing was written)" if dry else f"{words}; {rows:,} rows written: {output}"


def _record(done: Done) -> dict[str, Any]:
    return {
        "path": str(done.path), "outcome": done.outcome, "session": done.key or None, "why": done.why or None,
        "rows": done.rows, "bytes": done.num_bytes, "lost_rows": done.lost_rows, "missing": list(done.notes),
    }  # fmt: skip
