"""Which sessions of a folder may go: what was asked for, never one that runs or may run, never what is no session."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from profilemate.schema import names
from profilemate.session.alive import SILENT_SECONDS
from profilemate.session.records import read_json
from profilemate.sessions.inventory import Entry
from profilemate.sessions.state import RUNNING, UNKNOWN
from profilemate.sessions.words import age_text, bytes_text

_NAME = re.compile(re.escape(names.SESSION_PREFIX) + r"\d{8}_\d{6}(?:_\d{1,4})?")


@dataclass(frozen=True)
class Rules:
    """What the user asked for; None is not asked. A session goes where every rule that is given lets it go."""

    older_than_seconds: float | None = None
    larger_than_bytes: int | None = None
    keep: int | None = None
    to_bytes: int | None = None
    unknown_too: bool = False
    """Also sessions that were recorded elsewhere and did not tell their end, an hour after they were last written."""

    @property
    def are_given(self) -> bool:
        """Whether there is any."""
        return any(
            rule is not None for rule in (self.older_than_seconds, self.larger_than_bytes, self.keep, self.to_bytes)
        )


@dataclass(frozen=True)
class Choice:
    """A session, whether it goes, and why or why not."""

    entry: Entry
    goes: bool
    reason: str


def choose(entries: Sequence[Entry], rules: Rules, now: float | None = None) -> list[Choice]:
    """Decide about each session. `entries` are newest first; the oldest go first where a size is to be reached."""
    now = time.time() if now is None else now
    left = sum(entry.size_bytes for entry in entries)
    choices = []
    for place in reversed(range(len(entries))):
        choice = _choice(entries[place], place, rules, left, now)
        left -= choice.entry.size_bytes if choice.goes else 0
        choices.append(choice)
    return choices[::-1]


def _choice(entry: Entry, place: int, rules: Rules, left: int, now: float) -> Choice:
    obstacle = obstacle_of(entry, rules.unknown_too, now)
    if obstacle:
        return Choice(entry, False, obstacle)
    age = now - last_active(entry)
    if rules.keep is not None and place < rules.keep:
        return Choice(entry, False, f"one of the newest {rules.keep}")
    if rules.older_than_seconds is not None and age < rules.older_than_seconds:
        return Choice(entry, False, f"its last row is {age_text(age)} old")
    if rules.larger_than_bytes is not None and entry.size_bytes <= rules.larger_than_bytes:
        return Choice(entry, False, f"has {bytes_text(entry.size_bytes)}")
    if rules.to_bytes is not None and left <= rules.to_bytes:
        return Choice(entry, False, f"the folder is at {bytes_text(left)} without the older ones")
    return Choice(entry, True, f"its last row is {age_text(age)} old")


def obstacle_of(entry: Entry, unknown_too: bool, now: float | None = None) -> str:
    """Why a session must stay whatever was asked for; empty where it may go."""
    now = time.time() if now is None else now
    if not is_session(entry):
        return "not known to be a session of ProfileMate"
    if entry.state == RUNNING:
        return "it is running"
    if entry.state == UNKNOWN and not unknown_too:
        return "it was recorded elsewhere and did not tell its end, so it may run there (--unknown-too)"
    if entry.state == UNKNOWN and now - last_written(entry) < SILENT_SECONDS:
        return "it was recorded elsewhere and written within the hour, so it may run there"
    return ""


def is_session(entry: Entry) -> bool:
    """Whether ProfileMate made this folder: its record says so, or its name and what lies in it."""
    try:
        record = read_json(entry.path / names.SESSION_FILE)
    except (OSError, ValueError):
        record = {}
    if isinstance(record.get("format"), int) and isinstance(record.get("session_id"), str):
        return True
    return bool(_NAME.fullmatch(entry.name)) and (entry.path / names.PROCESSES_FOLDER).is_dir()


def last_active(entry: Entry) -> float:
    """Unix time of its last row, as far as its own clocks tell; else of its beginning or the folder's last change."""
    if entry.begun_ns is not None:
        return (entry.begun_ns + (entry.duration_ns or 0)) / 1e9
    return last_written(entry)


def last_written(entry: Entry) -> float:
    """Unix time of the last change of a file of its processes; of the folder where it has none."""
    processes = entry.path / names.PROCESSES_FOLDER
    return max(map(_changed, [*processes.glob("*"), *processes.glob("*/*")]), default=_changed(entry.path))


def _changed(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except OSError:
        return 0.0
