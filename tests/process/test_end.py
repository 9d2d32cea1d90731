"""How a process ended, as its record and `profilemate list` tell. vLLM is a small pretence."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import environment
import pytest
import streams
from pretend_vllm import SERVE

ENDS = {
    "its last line": ("", 0),
    "an exception": ("; raise ValueError('end')", 1),
    "exit": ("; import sys; sys.exit(3)", 3),
    "os._exit": ("; import os; os._exit(4)", 4),
    "kill -9": ("; import os, signal; os.kill(os.getpid(), signal.SIGKILL)", -9),
}
SEEN = ("its last line", "an exception", "exit")


def start(code: str, vllm: Path, folder: Path) -> subprocess.Popen[bytes]:
    env = environment.clean() | {"PYTHONPATH": os.pathsep.join(map(str, (environment.ROOT, vllm)))}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen([sys.executable, "-c", code], env=env | {"PROFILEMATE_DIR": str(folder)}, **quiet)


def state(folder: Path) -> str:
    """What `profilemate list` says of the one session."""
    command = [sys.executable, "-m", "profilemate", "list", str(folder), "--json"]
    done = subprocess.run(
        command, cwd=environment.ROOT, env=environment.clean(), capture_output=True, text=True, check=True
    )
    [found] = json.loads(done.stdout)
    return str(found["state"])


@pytest.mark.parametrize("end", list(ENDS))
def test_the_end_is_in_the_record_where_python_sees_it(end: str, tmp_path: Path, vllm: Path) -> None:
    code, status = ENDS[end]
    began_ns = time.monotonic_ns()
    assert start(SERVE + code, vllm, tmp_path / "p").wait(environment.HANGS_SECONDS) == status
    [process] = streams.processes(streams.only_session(tmp_path / "p"))
    ended_ns = streams.record(process)["ended_ns"]
    if end in SEEN:
        assert began_ns < ended_ns < time.monotonic_ns()
        assert ended_ns >= max(int(row["time_ns"]) for row in streams.rows(process, "engine_steps"))
    else:
        assert ended_ns is None
    assert state(tmp_path / "p") == ("ended" if end in SEEN else "over")


def test_a_server_that_waits_is_running(tmp_path: Path, vllm: Path) -> None:
    """It writes nothing while nobody asks; its process tells."""
    running = start(SERVE + "; import time; time.sleep(600)", vllm, tmp_path / "p")
    try:
        deadline = time.monotonic() + environment.HANGS_SECONDS
        while time.monotonic() < deadline and not _steps(tmp_path / "p"):
            time.sleep(0.1)
        assert state(tmp_path / "p") == "running"
    finally:
        running.kill()
        running.wait()
    assert state(tmp_path / "p") == "over"


def _steps(folder: Path) -> list[Any]:
    return [row for path in folder.glob("session_*") for row in streams.all_rows(path, "engine_steps")]
