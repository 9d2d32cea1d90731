"""Whether a session's processes still run, and waiting until they do not."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

from profilemate.session.records import ProcessInfo
from profilemate.session.session import Session

POLL_SECONDS = 0.2
SILENT_SECONDS = 3600.0
"""So long after its last row a session elsewhere counts as ended."""


@cache
def boot_id() -> str:
    """The kernel's id of this boot, empty where there is none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def is_alive(process: ProcessInfo) -> bool:
    """Whether exactly this process runs here: same boot, same pid, same start time, and not a zombie."""
    if not process.pid or (process.boot_id and process.boot_id != boot_id()):
        return False
    try:
        stat = Path(f"/proc/{process.pid}/stat").read_bytes().rpartition(b")")[2].split()
        return stat[0] not in (b"Z", b"X", b"x") and process.start_time in (0, int(stat[19]))
    except (OSError, ValueError, IndexError):
        return False


def pid_namespace() -> str:
    """Names the container whose process ids these are, empty where that is not known."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def is_elsewhere(session: Session) -> bool:
    """Whether some process of the session is, or was, on another host or in another container of this one."""
    if session.info.pid_namespace not in ("", pid_namespace()):
        return True
    return any(process.host != socket.gethostname() for process in session.processes)


def has_ended(session: Session) -> bool:
    """Whether nothing of the session runs any more, as far as can be known: what is elsewhere tells by its silence."""
    if living(session):
        return False
    return not is_elsewhere(session) or time.time() - last_written(session) > SILENT_SECONDS


def last_written(session: Session) -> float:
    """When a file of one of the session's processes last changed."""
    found = [session.path / "processes"]
    for process in session.processes:
        found += [process.folder, *process.folder.iterdir()]
    return max((path.lstat().st_mtime for path in found if path.exists()), default=0.0)


def living(session: Session) -> tuple[ProcessInfo, ...]:
    """The session's processes that still run on this machine."""
    return tuple(process for process in session.processes if is_alive(process))


def wait_until_ended(path: Path, seconds: float, on_wait: Callable[[float], None] = lambda left: None) -> bool:
    """Wait, at most so long, until no process of the session runs; the folder is looked at anew each time."""
    deadline = time.monotonic() + seconds
    while living(Session(path)):
        left = deadline - time.monotonic()
        if left <= 0:
            return False
        on_wait(left)
        time.sleep(min(POLL_SECONDS, left))
    return True
