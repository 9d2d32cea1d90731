"""Whether a session's processes still run, and waiting until they do not."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from profilemate.session.records import ProcessInfo
from profilemate.session.session import Session

POLL_SECONDS = 0.2


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
