"""A server that is killed and started again and again, in a folder with a small cap."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import environment
import server
from pretend_vllm import SERVE

CAP = 1_000_000
KILLED = SERVE.replace("s.run(4)", "s.run(3000)") + "; import os; os.kill(os.getpid(), 9)"
WAITS = SERVE + "; import sys; print('ready', flush=True); sys.stdin.readline()"
RESTARTS = 8


def size(folder: Path) -> int:
    """Bytes of all files below; one may go while it is looked at."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.lstat().st_size if path.is_file() else 0
        except FileNotFoundError:
            continue
    return total


def test_a_server_that_is_killed_each_time_does_not_fill_the_disk(tmp_path: Path, vllm: Path) -> None:
    """Nobody exports its sessions: the next start sees to the oldest ones, whose totals are kept."""
    env = environment.clean() | {
        "PYTHONPATH": f"{environment.ROOT}:{vllm}",
        "PROFILEMATE_DIR": str(tmp_path / "p"),
        "PROFILEMATE_FOLDER_CAP": str(CAP),
    }
    for _ in range(RESTARTS):
        done = subprocess.run(
            [sys.executable, "-c", KILLED], env=env, capture_output=True, timeout=environment.HANGS_SECONDS, check=False
        )
        assert done.returncode == -signal.SIGKILL
    last = subprocess.Popen(
        [sys.executable, "-c", WAITS], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert last.stdin is not None and last.stdout is not None
    assert last.stdout.readline() == b"ready\n"
    deadline = time.monotonic() + environment.HANGS_SECONDS
    while size(tmp_path / "p") > CAP and time.monotonic() < deadline:
        time.sleep(0.2)
    sessions = sorted((tmp_path / "p").glob("session_*"), key=lambda path: path.stat().st_ctime_ns)
    assert size(tmp_path / "p") <= CAP and len(sessions) == RESTARTS + 1
    trimmed = [session for session in sessions if not list(session.glob("processes/*/engine_steps*.csv"))]
    assert trimmed
    for session in trimmed:
        assert json.loads((session / "metadata.json").read_text())["summary"]["kv_cache"]["steps"] == 3000
    (running,) = (session for session in sessions if _pid(session) == last.pid)
    assert running not in trimmed
    assert server.processes_started_by(last.pid) == [], "what tidies up is no child of the server's"
    last.communicate(b"\n", timeout=environment.HANGS_SECONDS)
    assert last.returncode == 0


def _pid(session: Path) -> int:
    return int(json.loads((session / "session.json").read_text())["pid"])
