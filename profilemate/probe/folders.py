"""Session and process folders: made exclusively, private to the user, never through a link that somebody planted."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import stat
import time
from typing import Any

from profilemate import __version__
from profilemate.probe.settings import DEFAULT_DIRECTORY, Settings
from profilemate.schema import names

SESSIONS_LOOKED_AT = 100


class FolderRefusedError(OSError):
    """The folder cannot be used; the message says why."""


def boot_id() -> str:
    """The kernel's id of this boot: monotonic clocks compare only between processes with the same one."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def process_start_time(pid: int) -> int:
    """Start of a process in clock ticks since boot (field 22 of /proc/PID/stat), 0 where it cannot be read."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return 0


def usable_directory(directory: str) -> str:
    """The folder that holds sessions, made if it is missing.

    Where the default one belongs to someone else, `<default>-<uid>` takes its place; any other is the user's own choice.
    Raises FolderRefusedError where neither can be used.
    """
    try:
        return _checked(directory)
    except FolderRefusedError:
        if directory != DEFAULT_DIRECTORY:
            raise
        return _checked(f"{DEFAULT_DIRECTORY}-{os.getuid()}")


def _checked(directory: str) -> str:
    try:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        found = os.lstat(directory)
    except OSError as error:
        raise FolderRefusedError(f"{directory} cannot be made: {error.strerror}") from error
    if stat.S_ISLNK(found.st_mode):
        if found.st_uid != os.getuid():
            raise FolderRefusedError(f"{directory} is a link that belongs to another user")
        found = os.stat(directory)
    if directory == DEFAULT_DIRECTORY and found.st_uid != os.getuid():
        raise FolderRefusedError(f"{directory} belongs to another user")
    if not os.access(directory, os.W_OK | os.X_OK):
        raise FolderRefusedError(f"{directory} cannot be written")
    return directory


def create_session(directory: str, settings: Settings) -> str:
    """Make `<directory>/session_YYYYMMDD_HHMMSS` with its session.json and return its path.

    A second session of the same second gets `_2` and so on. Raises FolderRefusedError or OSError.
    """
    directory = os.path.abspath(usable_directory(directory))
    stamp = names.SESSION_PREFIX + time.strftime("%Y%m%d_%H%M%S")
    for number in range(1, 1000):
        path = os.path.join(directory, stamp if number == 1 else f"{stamp}_{number}")
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            continue
        write_json(os.path.join(path, names.SESSION_FILE), session_record(path, settings))
        os.mkdir(os.path.join(path, names.PROCESSES_FOLDER), 0o700)
        return path
    raise FolderRefusedError(f"{directory} holds 1,000 sessions of this second")


def join_session(path: str, settings: Settings) -> None:
    """Make what is missing of a session that others may be making right now, as on another host. Raises OSError."""
    processes = os.path.join(path, names.PROCESSES_FOLDER)
    if os.path.isdir(processes):
        return
    usable_directory(os.path.dirname(path))
    for folder in (path, processes):
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder, 0o700)
    record = os.path.join(path, names.SESSION_FILE)
    if not os.path.exists(record):
        write_json(record, session_record(path, settings))


def session_of_process(directory: str, pid: int) -> str:
    """The newest session that a running process of this machine began or takes part in; empty where there is none."""
    for folder in (directory, f"{DEFAULT_DIRECTORY}-{os.getuid()}"):
        with contextlib.suppress(OSError):
            sessions = [name for name in os.listdir(folder) if name.startswith(names.SESSION_PREFIX)]
            for name in sorted(sessions, reverse=True)[:SESSIONS_LOOKED_AT]:
                path = os.path.abspath(os.path.join(folder, name))
                if takes_part(path, pid):
                    return path
    return ""


def takes_part(path: str, pid: int) -> bool:
    """Whether this running process of this machine began the session or has a folder in it."""
    started = process_start_time(pid)
    try:
        with open(os.path.join(path, names.SESSION_FILE), "rb") as file:
            record = json.load(file)
        if not started or record["boot_id"] != boot_id():
            return False
        if (record["pid"], record.get("start_time")) == (pid, started):
            return True
        processes = os.listdir(os.path.join(path, names.PROCESSES_FOLDER))
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return any(f"{name}.".find(f".{pid}.{started}.") > 0 for name in processes)


def session_record(path: str, settings: Settings) -> dict[str, Any]:
    """Content of session.json: when and where the session began, by both clocks."""
    return {
        "format": names.FORMAT,
        "session_id": os.path.basename(path),
        "created_wall_ns": time.time_ns(),
        "created_monotonic_ns": time.monotonic_ns(),
        "boot_id": boot_id(),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "start_time": process_start_time(os.getpid()),
        "profilemate_version": __version__,
        "settings": settings._asdict(),
    }


def create_process_folder(session: str, role: str) -> str:
    """Make `<session>/processes/<role>.<host>.<pid>.<start>` and return its path. Raises OSError."""
    pid = os.getpid()
    host = "".join(c if c.isalnum() or c in "-_" else "-" for c in socket.gethostname())
    stem = f"{role}.{host}.{pid}.{process_start_time(pid)}"
    for number in range(1, 100):
        path = os.path.join(session, names.PROCESSES_FOLDER, stem if number == 1 else f"{stem}.{number}")
        try:
            os.mkdir(path, 0o700)
            return path
        except FileExistsError:
            continue
    raise FolderRefusedError(f"{stem} exists 99 times")


def write_json(path: str, record: dict[str, Any]) -> None:
    """Replace a JSON file in one step, so that a reader sees the old one or the new one. Raises OSError."""
    temporary = f"{path}.{os.getpid()}.new"
    data = json.dumps(record, indent=1, default=str).encode()
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        if os.write(descriptor, data) < len(data):
            raise OSError(errno.ENOSPC, f"short write of {path}")
        os.replace(temporary, path)
    except OSError:
        os.unlink(temporary)
        raise
    finally:
        os.close(descriptor)


MEMORY_BACKED = {"tmpfs", "ramfs"}
NETWORK = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "ceph", "lustre", "glusterfs", "beegfs", "gpfs", "fuse.sshfs"}


def mount_type(path: str) -> str:
    """File-system type of the mount that holds `path`, as /proc/self/mountinfo names it; empty where unknown."""
    path = os.path.realpath(path)
    best, kind = "", ""
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                before, _, after = line.partition(" - ")
                point = before.split()[4].replace("\\040", " ")
                inside = path == point or path.startswith(point.rstrip("/") + "/")
                if inside and len(point) >= len(best):
                    best, kind = point, after.split()[0]
    except (OSError, IndexError):
        return ""
    return kind
