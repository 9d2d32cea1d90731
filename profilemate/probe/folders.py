"""Session and process folders: made exclusively, private to the user, never through a link that somebody planted."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import resource
import socket
import stat
import time
from typing import Any

from profilemate import __version__
from profilemate.probe import planted
from profilemate.probe.settings import DEFAULT_DIRECTORY, Settings, quarter
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


def pid_namespace() -> str:
    """Names the container whose process ids these are: those of another say nothing here."""
    try:
        return os.readlink("/proc/self/ns/pid")
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
    is_default = directory in (DEFAULT_DIRECTORY, f"{DEFAULT_DIRECTORY}-{os.getuid()}")
    try:
        found = planted.obstacle(directory, must_be_own=is_default)
        if found:
            raise FolderRefusedError(found)
        os.makedirs(directory, mode=0o700, exist_ok=True)
        found = planted.obstacle(directory, must_be_own=is_default)  # somebody may have been quicker
    except FolderRefusedError:
        raise
    except OSError as error:
        raise FolderRefusedError(f"{directory} cannot be made: {error.strerror}") from error
    if found:
        raise FolderRefusedError(found)
    if not os.access(directory, os.W_OK | os.X_OK):
        raise FolderRefusedError(f"{directory} cannot be written")
    return directory


OWN_SESSION = "unset PROFILEMATE_SESSION to begin one of your own"
OWNERS_NOT_KEPT = {"vfat", "exfat", "ntfs", "ntfs3", "fuseblk"}
"""File systems that show one owner for all files."""


def refuse_planted(folder: str) -> None:
    """Raise FolderRefusedError where a folder of a session is a link, or was made by another user."""
    if planted.is_own_folder(folder):
        return
    found = os.lstat(folder)
    if stat.S_ISLNK(found.st_mode) or not stat.S_ISDIR(found.st_mode):
        raise FolderRefusedError(f"{folder} is not a folder but a link or a file; {OWN_SESSION}")
    kind = mount_type(folder)
    if kind not in NETWORK | OWNERS_NOT_KEPT and not kind.startswith("fuse"):
        raise FolderRefusedError(f"{folder} belongs to another user (uid {found.st_uid}); {OWN_SESSION}")


def create_session(directory: str, settings: Settings) -> str:
    """Make `<directory>/session_YYYYMMDD_HHMMSS` with its session.json and return its path.

    A second session of the same second gets `_2` and so on. Raises FolderRefusedError or OSError.
    """
    directory = os.path.abspath(usable_directory(directory))
    stamp = names.SESSION_PREFIX + time.strftime("%Y%m%d_%H%M%S")
    for number in range(1, 1000):
        path = os.path.join(directory, stamp if number == 1 else f"{stamp}_{number}")
        if os.path.lexists(path):
            continue
        # Before the folder is made, which a kill would leave empty until the record is in it.
        record = session_record(path, caps_of(path, settings))
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            continue
        try:
            write_json(os.path.join(path, names.SESSION_FILE), record)
            os.mkdir(os.path.join(path, names.PROCESSES_FOLDER), 0o700)
        except OSError:  # a session without a record would only be in the way of the next command
            for remove, name in ((os.unlink, names.SESSION_FILE), (os.rmdir, names.PROCESSES_FOLDER), (os.rmdir, "")):
                with contextlib.suppress(OSError):
                    remove(os.path.join(path, name))
            raise
        return path
    raise FolderRefusedError(f"{directory} holds 1,000 sessions of this second")


def has_company(session: str) -> bool:
    """Whether its folder holds another session."""
    name = os.path.basename(session)
    try:
        found = os.listdir(os.path.dirname(session))
    except OSError:
        return False
    return any(other.startswith(names.SESSION_PREFIX) and other != name for other in found)


def caps_of(path: str, settings: Settings) -> Settings:
    """The settings with the caps that hold where `path` is: a quarter in memory, which serving needs more."""
    return quarter(settings) if mount_type(path) in MEMORY_BACKED else settings


def join_session(path: str, settings: Settings) -> None:
    """Make what is missing of a session that others may be making right now, as on another host. Raises OSError."""
    processes = os.path.join(path, names.PROCESSES_FOLDER)
    if not os.path.isdir(processes):
        usable_directory(os.path.dirname(path))
    for folder in (path, processes):
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder, 0o700)
        refuse_planted(folder)
    record = os.path.join(path, names.SESSION_FILE)
    if not os.path.exists(record):
        write_json(record, session_record(path, caps_of(path, settings)))


def session_of_process(directory: str, pid: int) -> str:
    """The newest session that a running process of this machine began or takes part in; empty where there is none."""
    for folder in (directory, f"{DEFAULT_DIRECTORY}-{os.getuid()}"):
        with contextlib.suppress(OSError):
            sessions = [name for name in os.listdir(folder) if name.startswith(names.SESSION_PREFIX)]
            for name in sorted(sessions, reverse=True)[:SESSIONS_LOOKED_AT]:
                path = os.path.abspath(os.path.join(folder, name))
                if planted.is_own_folder(path) and takes_part(path, pid):
                    return path
    return ""


def takes_part(path: str, pid: int) -> bool:
    """Whether this running process of this machine began the session or has a folder in it."""
    started = process_start_time(pid)
    try:
        record = json.loads(planted.record_bytes(os.path.join(path, names.SESSION_FILE)))
        if not started or record["boot_id"] != boot_id():
            return False
        if (record["pid"], record.get("start_time")) == (pid, started):
            return True
        processes = os.listdir(os.path.join(path, names.PROCESSES_FOLDER))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
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
        "pid_namespace": pid_namespace(),
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


HIGHEST_PLACE = 4096
_most_descriptors = 0
"""The highest limit that was seen when a file was opened in this process."""


def open_new(path: str) -> int:
    """Open a file that is not there yet, to be appended to. Raises OSError.

    The descriptor is far from those that the system gives next: who closes descriptors that are not theirs may close
    this one, but a file of the server's is then not found under its number. Never a standard one either: in a server
    with a closed stderr that would be the next free number, and what C code prints would end in our rows.

    The last free ones are the server's: where none is left up there, or the limit was lowered while we ran, none is taken.
    One that the stream gave back a moment ago is up there, and serves again.
    """
    place = _place()
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    if descriptor >= place:
        return descriptor
    try:
        return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, place)
    except OSError as error:  # a file that is there would be in the way of the next attempt
        os.unlink(path)
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), path) from error
    finally:
        os.close(descriptor)


def _place() -> int:
    """From which number on descriptors are taken. Raises OSError where the limit was lowered while this process ran."""
    global _most_descriptors
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if limit == resource.RLIM_INFINITY:
        return HIGHEST_PLACE
    if limit < _most_descriptors:
        raise OSError(errno.EMFILE, "the limit of open files was lowered")
    _most_descriptors = limit
    return max(3, min(HIGHEST_PLACE, limit // 2))


def forget_limit() -> None:
    """A forked child may have a limit of its own."""
    global _most_descriptors
    _most_descriptors = 0


def write_json(path: str, record: dict[str, Any]) -> None:
    """Replace a JSON file in one step, so that a reader sees the old one or the new one. Raises OSError."""
    temporary = f"{path}.{os.getpid()}.new"
    data = json.dumps(record, indent=1, default=str).encode()
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)  # of an earlier process of this number
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
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
NETWORK = {
    "nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "lustre", "glusterfs", "beegfs", "gpfs", "wekafs",
    "orangefs", "virtiofs", "vboxsf",
    *(f"fuse.{name}" for name in (
        "sshfs", "s3fs", "mount-s3", "mountpoint-s3", "gcsfuse", "blobfuse", "blobfuse2", "goofys", "rclone", "juicefs",
        "glusterfs", "ceph", "ceph-fuse", "alluxio-fuse", "grpcfuse",
    )),
}  # fmt: skip

MOUNTS = "/proc/self/mountinfo"
_ESCAPE = re.compile(rb"\\([0-7]{3})")


def mount_type(path: str) -> str:
    """File-system type of the mount that holds `path`, as the kernel names it; empty where unknown."""
    wanted = os.fsencode(os.path.realpath(path))
    best, kind = b"", b""
    try:
        with open(MOUNTS, "rb") as file:
            for line in file:
                before, _, after = line.partition(b" - ")
                point = _ESCAPE.sub(lambda escaped: bytes([int(escaped[1], 8)]), before.split()[4])
                inside = wanted == point or wanted.startswith(point.rstrip(b"/") + b"/")
                if inside and len(point) >= len(best):
                    best, kind = point, after.split()[0]
    except (OSError, IndexError):
        return ""
    return kind.decode(errors="replace")
