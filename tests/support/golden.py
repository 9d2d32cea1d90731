"""Copies of the golden sessions, and making the running one run."""

from __future__ import annotations

import json
import os
import shutil
import socket
from pathlib import Path

import environment

SESSIONS = environment.ROOT / "tests" / "golden" / "sessions"


def copy(name: str, directory: Path, as_name: str = "") -> Path:
    """A golden session in a folder of the test's own."""
    return Path(shutil.copytree(SESSIONS / name, directory / (as_name or name)))


def alive_in(session: Path, pid: int | None = None) -> Path:
    """Make every process of the session that very process of this machine: by default the test's own."""
    pid = os.getpid() if pid is None else pid
    start_time = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    here = {"pid": pid, "start_time": start_time, "boot_id": boot, "host": socket.gethostname()}
    for path in [session / "session.json", *session.glob("processes/*/process.json")]:
        record = json.loads(path.read_text())
        if path.name == "session.json":
            record["pid_namespace"] = os.readlink("/proc/self/ns/pid")
        path.write_text(json.dumps({**record, **here}))
    return session
