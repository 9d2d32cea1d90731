"""How a session stands: what is known of it, and nothing that is not."""

from __future__ import annotations

import socket
from collections.abc import Sequence

from profilemate.session.alive import boot_id, is_alive, pid_namespace
from profilemate.session.records import ProcessInfo

RUNNING = "running"
ENDED = "ended"
KILLED = "killed"
OVER = "over"
EMPTY = "empty"
UNKNOWN = "unknown"

MEANING = {
    RUNNING: "a process of it lives on this machine",
    ENDED: "Python saw the end of the program that served",
    KILLED: "the program is gone and Python did not see its end: kill -9, a crash, os._exit or a reboot",
    OVER: "nothing of it runs; how it ended was not recorded",
    EMPTY: "nothing of it runs, and no process wrote a row",
    UNKNOWN: "it was recorded on another host or in another container and did not tell its end: it may run there",
}

FRONT_ENDS = ("APIServer", "LLM", "Script")
"""Roles of the program that a user starts. vLLM kills its engines and workers itself when that ends."""


def state_of(
    processes: Sequence[ProcessInfo], starter: ProcessInfo | None, namespace: str, has_rows: bool, is_trimmed: bool
) -> str:
    """One of the names above. `starter` is the process that session.json names, `namespace` that of its process ids."""
    if any(is_alive(process) for process in processes) or (starter is not None and is_alive(starter)):
        return RUNNING
    if not has_rows and not is_trimmed and not any(process.ended_ns for process in processes):
        return EMPTY if not _is_elsewhere(processes, namespace) else UNKNOWN
    serving = [process for process in processes if set(process.roles) & set(FRONT_ENDS)]
    if any(process.ended_ns for process in serving) or (not serving and all(process.ended_ns for process in processes)):
        return ENDED
    if _is_elsewhere(processes, namespace):
        return UNKNOWN
    return KILLED if serving and all(process.tells_end for process in serving) else OVER


def _is_elsewhere(processes: Sequence[ProcessInfo], namespace: str) -> bool:
    """Whether some process may run where it cannot be seen from here."""
    if namespace and namespace != pid_namespace():
        return not _before_this_boot(processes)
    return any(process.host != socket.gethostname() for process in processes)


def _before_this_boot(processes: Sequence[ProcessInfo]) -> bool:
    """Whether all are of an earlier boot of this very host, when containers were others too."""
    here, boot = socket.gethostname(), boot_id()
    return bool(processes) and all(process.host == here and process.boot_id not in ("", boot) for process in processes)
