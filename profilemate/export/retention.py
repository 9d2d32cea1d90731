"""Keeps a folder of sessions under its cap: the oldest ended sessions lose their detail, never their totals.

The oldest session first loses the rows of its processes, and where that is not enough the exported files that have a row
for each event; then it is the next one's turn. The newest session keeps those files.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import socket
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from profilemate.export.atomic import replacing
from profilemate.export.user_files import STREAM, is_users_stream, our_files, our_tables
from profilemate.schema import names
from profilemate.session.alive import has_ended
from profilemate.session.errors import SessionError
from profilemate.session.find import sessions_in
from profilemate.session.records import items_of, read_json
from profilemate.session.session import Session, process_folders
from profilemate.trackers import NAMES
from profilemate.trackers.view import view_of

DEFAULT_CAP_BYTES = 10 << 30
TRIMMED_FILE = "detail_removed.json"
_STREAM = re.compile(r"(\w+?)(?:\.\d{1,9})?\.csv")


def _is_detail(path: Path) -> bool:
    """Whether it is a file of a tracker's stream, whose totals stand in the session's files; or of one of the user's own."""
    found = _STREAM.fullmatch(path.name)
    return found is not None and (found[1] in our_tables() or is_users_stream(path))


@cache
def _event_file_names() -> tuple[str, ...]:
    return tuple(file.name for tracker in NAMES for file in view_of(tracker).csv_files if file.is_per_event)


def is_trimmed(path: Path) -> bool:
    """Whether this session's detail was removed."""
    return (path / TRIMMED_FILE).exists()


def refuse_trimmed(session: Session) -> None:
    """Raise SessionError where there is nothing left to export from."""
    if is_trimmed(session.path):
        raise SessionError(
            f"{session.path}: its detail was removed to keep the folder under its cap; its files stay as they are"
        )


def cap_of(session: Session) -> int:
    """The folder cap that the session was recorded with, in bytes; 0 is none."""
    cap = session.info.settings.get("folder_cap_bytes")
    return cap if isinstance(cap, int) and cap >= 0 else DEFAULT_CAP_BYTES


def recorded_in(session: Session) -> Path | None:
    """The folder that the session was recorded in, if that was here and it still lies there.

    A copy elsewhere is nobody's to tidy up, and the cap of one that came from another host, where the folder has the same
    name as here, says nothing about the sessions that were recorded here.
    """
    directory = session.info.settings.get("directory")
    if session.info.host != socket.gethostname():
        return None
    try:
        parent = session.path.resolve().parent
        return parent if isinstance(directory, str) and _same_folder(directory, parent) else None
    except (OSError, ValueError, RuntimeError):  # no path at all, or links in a circle
        return None


def _same_folder(directory: str, parent: Path) -> bool:
    known = {Path(directory).resolve(), Path(f"{directory}-{os.getuid()}").resolve()}
    return parent in known


def enforce(directory: Path, cap_bytes: int, make_current: Callable[[Session], bool]) -> list[Path]:
    """Remove detail of the oldest ended sessions until the folder is under its cap; returns those that lost some.

    `make_current` brings a session's files up to date, since nothing can be made from what is left; where it is false, and
    where the session runs, the session is left alone. Two that tidy up at the same time do not wait: the second does nothing,
    so the first looks again once others can come in, and goes on if a session has begun meanwhile.
    """
    trimmed: list[Path] = []
    seen: list[Path] | None = None
    while cap_bytes and (sessions := sessions_in(directory)) != seen:
        with _alone(directory) as alone:
            if not alone:
                break
            trimmed += [path for path in _enforce(sessions, cap_bytes, make_current) if path not in trimmed]
        seen = sessions
    return trimmed


def _enforce(sessions: Sequence[Path], cap_bytes: int, make_current: Callable[[Session], bool]) -> list[Path]:
    used = sum(_folder_bytes(path) for path in sessions)
    trimmed: list[Path] = []
    for path in sessions:
        if used <= cap_bytes:
            break
        others = used - _folder_bytes(path)
        if not is_trimmed(path) and _may_go(path, make_current) and _done(remove_detail, path):
            trimmed.append(path)
        used = others + _folder_bytes(path)
        keeps_events = path == sessions[-1] or not is_trimmed(path) or not event_files(path)
        if used > cap_bytes and not keeps_events and _done(remove_events, path):
            trimmed += [] if path in trimmed else [path]
            used = others + _folder_bytes(path)
    return trimmed


def event_files(path: Path) -> list[str]:
    """The exported files with a row for each event that are still there."""
    return [name for name in (*_event_file_names(), *_users_files(path)) if (path / name).exists()]


def _users_files(path: Path) -> list[str]:
    """Files that were exported of the user's own trackers, as metadata.json names them."""
    try:
        named = items_of(read_json(path / names.METADATA_FILE).get("user_files"))
    except (OSError, ValueError):
        return []
    return [name for name in named if isinstance(name, str) and STREAM.fullmatch(name) and name not in our_files()]


@contextmanager
def _alone(directory: Path) -> Iterator[bool]:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        except OSError:  # a file system without locks
            pass
        yield True
    finally:
        os.close(descriptor)


def _may_go(path: Path, make_current: Callable[[Session], bool]) -> bool:
    try:
        session = Session(path)
        return bool(session.processes) and has_ended(session) and make_current(session)
    except (SessionError, OSError):
        return False


def _done(change: Callable[[Path], object], path: Path) -> bool:
    """Whether it could be done; where it could not, the next session may have what can be removed."""
    try:
        change(path)
    except (OSError, ValueError):
        return False
    return True


def remove_events(path: Path) -> None:
    """Remove the exported files with a row for each event, and say so in metadata.json."""
    gone = event_files(path)
    record = read_json(path / names.METADATA_FILE)
    notes = record.setdefault("notes", [])
    notes.append(f"{', '.join(gone)} were removed to keep the folder under its cap; totals are exact over the session")
    with replacing(path / names.METADATA_FILE) as text:
        json.dump(record, text, indent=1)
        text.write("\n")
    for name in gone:
        (path / name).unlink(missing_ok=True)


def remove_detail(path: Path) -> int:
    """Remove the rows of the trackers in every process folder; returns the bytes that became free."""
    found = [file for folder in process_folders(path) for file in _detail_files(folder)]
    sizes = {file: file.lstat().st_size for file in found}
    try:
        with replacing(path / TRIMMED_FILE) as text:
            json.dump({"reason": "folder cap", "bytes": sum(sizes.values()), "files": len(sizes)}, text)
    except OSError:  # on a full disk there is still room for a name
        (path / TRIMMED_FILE).touch()
    for file in found:
        file.unlink(missing_ok=True)
    return sum(sizes.values())


def _detail_files(folder: Path) -> list[Path]:
    with os.scandir(folder) as entries:
        return sorted(
            Path(entry.path)
            for entry in entries
            if entry.is_file(follow_symlinks=False) and _is_detail(Path(entry.path))
        )


def _folder_bytes(path: Path) -> int:
    total = 0
    for root, _, files in os.walk(path, followlinks=False):
        for name in files:
            try:
                found = os.lstat(os.path.join(root, name))
            except OSError:
                continue
            total += found.st_size if stat.S_ISREG(found.st_mode) else 0
    return total
