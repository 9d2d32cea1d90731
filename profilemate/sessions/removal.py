"""Removing a session: only files that ProfileMate writes, through descriptors of their folders, never through a link.

Every folder is opened once without following links and everything below goes by that descriptor: a folder that is swapped
for a link meanwhile is not entered.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from profilemate.export.retention import TRIMMED_FILE
from profilemate.export.user_files import STREAM, our_files
from profilemate.schema import names
from profilemate.session.errors import SessionError
from profilemate.session.records import items_of, read_json
from profilemate.trackers import NAMES
from profilemate.trackers.view import view_of

REPORT_FILE = "report.html"
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
TIME_HEADER = b"time_ns,"
_RECORD = re.compile(re.escape(names.PROCESS_FILE) + r"(?:\.\d+\.new)?")
_SESSION_RECORD = re.compile(re.escape(names.SESSION_FILE) + r"(?:\.\d+\.new)?")
_LEFT_OVER = re.compile(r"\..+\.\d+\.new")
_BEGUN = re.compile(r"\w+\.csv\.\d+\.new")
"""A stream whose process died before it had written the header."""


@dataclass
class Removed:
    """What was removed of a session, and what was left with the reason."""

    files: int = 0
    num_bytes: int = 0
    left: list[str] = field(default_factory=list)

    @property
    def is_gone(self) -> bool:
        """Whether the folder itself went."""
        return not self.left


def remove_session(path: Path) -> Removed:
    """Remove a session's files and its folders; foreign files stay, and so do the folders that hold them.

    Raises SessionError where the folder is not what it was, OSError where it cannot be entered.
    """
    expected = path.lstat()
    users = _users_files(path)
    parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    removed = Removed()
    try:
        session = _opened(path.name, parent, expected)
        try:
            _remove_processes(session, removed)
            _remove_top(session, users, removed)
        finally:
            os.close(session)
        _remove_folder(path.name, parent, path.name, removed)
    finally:
        os.close(parent)
    return removed


def _opened(name: str, parent: int, expected: os.stat_result) -> int:
    try:
        descriptor = os.open(name, FOLDER, dir_fd=parent)
    except OSError as error:
        raise SessionError(f"{name} is not a folder any more: {error.strerror}") from error
    if not os.path.samestat(os.fstat(descriptor), expected):
        os.close(descriptor)
        raise SessionError(f"{name} is another folder than it was a moment ago")
    return descriptor


def _remove_processes(session: int, removed: Removed) -> None:
    try:
        processes = os.open(names.PROCESSES_FOLDER, FOLDER, dir_fd=session)
    except FileNotFoundError:
        return
    except OSError as error:
        removed.left.append(f"{names.PROCESSES_FOLDER}: {error.strerror}")
        return
    try:
        for name in sorted(os.listdir(processes)):
            where = f"{names.PROCESSES_FOLDER}/{name}"
            try:
                folder = os.open(name, FOLDER, dir_fd=processes)
            except OSError:
                removed.left.append(f"{where}: not a process folder")
                continue
            try:
                for file in sorted(os.listdir(folder)):
                    _remove_file(file, folder, f"{where}/{file}", _is_of_process(file, folder), removed)
            finally:
                os.close(folder)
            _remove_folder(name, processes, where, removed)
    finally:
        os.close(processes)
    _remove_folder(names.PROCESSES_FOLDER, session, names.PROCESSES_FOLDER, removed)


def _is_of_process(name: str, folder: int) -> bool:
    """A record, or a stream: a table of ours by its name, a user's by a header that begins with the time."""
    if _RECORD.fullmatch(name) or _BEGUN.fullmatch(name):
        return True
    match = STREAM.fullmatch(name)
    return match is not None and (match[1] in _our_tables() or _begins_with_time(name, folder))


@cache
def _our_tables() -> frozenset[str]:
    from profilemate.sessions.tables import known_tables

    return frozenset(known_tables())


def _begins_with_time(name: str, folder: int) -> bool:
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except OSError:
        return False
    try:
        return os.read(descriptor, len(TIME_HEADER)) == TIME_HEADER
    finally:
        os.close(descriptor)


def _remove_top(session: int, users: frozenset[str], removed: Removed) -> None:
    """Files at the top, the record last: as long as it is there, what is left is known to be a session."""
    ours = _files_at_the_top() | users
    files = [name for name in sorted(os.listdir(session)) if name != names.PROCESSES_FOLDER]
    for name in sorted(files, key=lambda name: bool(_SESSION_RECORD.fullmatch(name))):
        is_ours = name in ours or _SESSION_RECORD.fullmatch(name) or _LEFT_OVER.fullmatch(name)
        _remove_file(name, session, name, bool(is_ours), removed)


@cache
def _files_at_the_top() -> frozenset[str]:
    texts = {file.name for tracker in NAMES for file in view_of(tracker).text_files}
    return our_files() | texts | {names.METADATA_FILE, TRIMMED_FILE, REPORT_FILE}


def _users_files(path: Path) -> frozenset[str]:
    """Exported files of a user's own trackers, as metadata.json names them."""
    try:
        named = items_of(read_json(path / names.METADATA_FILE).get("user_files"))
    except (OSError, ValueError):
        return frozenset()
    return frozenset(name for name in named if isinstance(name, str) and STREAM.fullmatch(name))


def _remove_file(name: str, folder: int, where: str, is_ours: bool, removed: Removed) -> None:
    try:
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if not is_ours or not stat.S_ISREG(found.st_mode):
            removed.left.append(f"{where}: not a file of ProfileMate's")
            return
        os.unlink(name, dir_fd=folder)
    except FileNotFoundError:
        return
    except OSError as error:
        removed.left.append(f"{where}: {error.strerror}")
        return
    removed.files += 1
    removed.num_bytes += found.st_size


def _remove_folder(name: str, parent: int, where: str, removed: Removed) -> None:
    """Where something is left in it, that was said already."""
    try:
        os.rmdir(name, dir_fd=parent)
    except OSError as error:
        if not removed.left:
            removed.left.append(f"{where}: {error.strerror}")
