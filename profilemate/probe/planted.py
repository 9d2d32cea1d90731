"""What another user may have put where a folder or a record of ours should be, told before anything is written."""

from __future__ import annotations

import os
import stat

MOST_RECORD_BYTES = 1 << 18
ROOT = 0
REMEDY = "set PROFILEMATE_DIR to a folder of your own"


def obstacle(path: str, must_be_own: bool) -> str:
    """Why a folder is not to be used, a whole sentence; empty where it may be, or is not there. Raises OSError.

    A link of this user's, or of root's, is followed; `must_be_own` asks that the folder itself is this user's and that
    nobody else can put anything into it.
    """
    for parent in _parents(path):
        found = os.lstat(parent)
        if stat.S_ISLNK(found.st_mode) and found.st_uid not in (ROOT, os.getuid()):
            return f"{parent} is a link that belongs to another user (uid {found.st_uid}); {REMEDY}"
        if stat.S_ISLNK(found.st_mode) and not os.path.exists(parent):
            return f"{parent} is a link to {os.readlink(parent)}, which is not there; remove it, or {REMEDY}"
    if not os.path.exists(path):
        return ""
    found = os.stat(path)
    if not stat.S_ISDIR(found.st_mode):
        return f"{path} is not a folder; remove it, or {REMEDY}"
    if must_be_own and found.st_uid != os.getuid():
        return f"{path} belongs to another user (uid {found.st_uid}); {REMEDY}"
    if must_be_own and is_open_to_all(found):
        return f"everybody may rename what lies in {path}; chmod 700 {path}, or {REMEDY}"
    return ""


def is_open_to_all(found: os.stat_result) -> bool:
    """Whether everybody may remove or rename what lies in a folder: it is writable for all and has no sticky bit."""
    return bool(found.st_mode & stat.S_IWOTH) and not found.st_mode & stat.S_ISVTX


def _parents(path: str) -> list[str]:
    """The path and the folders above it that are there, the topmost first."""
    path = os.path.abspath(path)
    found = []
    while path != os.path.dirname(path):
        if os.path.lexists(path):
            found.append(path)
        path = os.path.dirname(path)
    return found[::-1]


def is_own_folder(path: str) -> bool:
    """Whether a folder, and no link to one, is this user's."""
    try:
        found = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()


def record_bytes(path: str) -> bytes:
    """A small plain file's content, never through a link and never waiting for a pipe. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(f"{path} is not a plain file")
        return os.read(descriptor, MOST_RECORD_BYTES)
    finally:
        os.close(descriptor)
