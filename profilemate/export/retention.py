"""Keeps a folder of sessions under its cap: the oldest ended sessions lose their detail, never their exported files."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path

from profilemate.export.atomic import replacing
from profilemate.session.alive import living
from profilemate.session.errors import SessionError
from profilemate.session.find import sessions_in
from profilemate.session.session import Session, process_folders

DEFAULT_CAP_BYTES = 10 << 30
TRIMMED_FILE = "detail_removed.json"
_DETAIL = re.compile(r"(?:graph|kv)_\w+(?:\.\d{1,9})?\.csv")


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
    """The folder that the session was recorded in, if it still lies there: a copy elsewhere is nobody's to tidy up."""
    directory = session.info.settings.get("directory")
    parent = session.path.resolve().parent
    return parent if isinstance(directory, str) and _same_folder(directory, parent) else None


def _same_folder(directory: str, parent: Path) -> bool:
    known = {Path(directory).resolve(), Path(f"{directory}-{os.getuid()}").resolve()}
    return parent in known


def enforce(directory: Path, cap_bytes: int, is_current: Callable[[Session], bool]) -> list[Path]:
    """Remove detail of the oldest ended sessions whose files are current until the folder is under its cap.

    Returns the sessions that lost theirs. One that runs, or whose files are older than its streams, is left alone.
    """
    sessions = sessions_in(directory)
    used = sum(_folder_bytes(path) for path in sessions)
    trimmed: list[Path] = []
    for path in sessions:
        if not cap_bytes or used <= cap_bytes:
            break
        if not is_trimmed(path) and _may_go(path, is_current):
            used -= remove_detail(path)
            trimmed.append(path)
    return trimmed


def _may_go(path: Path, is_current: Callable[[Session], bool]) -> bool:
    try:
        session = Session(path)
        return bool(session.processes) and not living(session) and is_current(session)
    except (SessionError, OSError):
        return False


def remove_detail(path: Path) -> int:
    """Remove the rows of the trackers in every process folder; returns the bytes that became free."""
    found = [file for folder in process_folders(path) for file in _detail_files(folder)]
    sizes = {file: file.lstat().st_size for file in found}
    with replacing(path / TRIMMED_FILE) as text:
        json.dump({"reason": "folder cap", "bytes": sum(sizes.values()), "files": len(sizes)}, text)
    for file in found:
        file.unlink(missing_ok=True)
    return sum(sizes.values())


def _detail_files(folder: Path) -> list[Path]:
    with os.scandir(folder) as entries:
        return sorted(
            Path(entry.path)
            for entry in entries
            if _DETAIL.fullmatch(entry.name) and entry.is_file(follow_symlinks=False)
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
