"""Scripts that use vLLM, run in forks of a process that has imported it: the import takes 15 of the 17 seconds of many tests.

ProfileMate begins in the fork, where vLLM's modules are there before it, which it supports as any other order. What a test says
about the start of a process, or about an import, needs a process of its own.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import environment

PROGRAM = Path(__file__).with_name("warm_process.py")
MODULES = (
    "vllm",
    "vllm.entrypoints.llm",
    "vllm.v1.core.sched.async_scheduler",
    "vllm.v1.engine.core",
    "vllm.v1.engine.llm_engine",
    "vllm.v1.executor.uniproc_executor",
    "vllm.v1.worker.gpu_model_runner",
)
READ_AT_IMPORT = re.compile("(VLLM|TRITON)_.*|STANDIN_GRAPHS")
"""Variables that vLLM, Triton and the stand-in may look at while they are imported: a process for each choice."""

MOST_PROCESSES = 2
"""Each takes half a gigabyte; the one that was not asked for the longest time ends for another one."""

READY_SECONDS = 300


class WarmProcess:
    """One process that has imported vLLM, and the scripts that it runs one after another."""

    def __init__(self, env: dict[str, str], modules: Sequence[str] = MODULES) -> None:
        """Start it; `env` has the variables that count while the modules are imported."""
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - open for as long as the process lives
        self._process = subprocess.Popen(
            [sys.executable, str(PROGRAM), *modules],
            env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True,
        )  # fmt: skip
        self._read(READY_SECONDS)

    def _read(self, seconds: float) -> dict[str, Any]:
        """Its next line. Raises subprocess.TimeoutExpired."""
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], seconds)[0]:
            raise subprocess.TimeoutExpired(str(PROGRAM), seconds)
        line = self._process.stdout.readline()
        if not line:
            self._log.seek(0)
            raise AssertionError(f"the warm process ended:\n{self._log.read()[-3000:]}")
        return dict(json.loads(line))

    def run(
        self, command: Sequence[str], env: dict[str, str], cwd: Path, timeout: float
    ) -> subprocess.CompletedProcess[str]:
        """Run a script in a fork. One that hangs is killed with its children; raises subprocess.TimeoutExpired then."""
        with tempfile.TemporaryDirectory() as folder:
            out, err = Path(folder, "stdout"), Path(folder, "stderr")
            told = {"argv": list(command), "env": env, "cwd": str(cwd), "stdout": str(out), "stderr": str(err)}
            status = self._run(told, timeout)
            return subprocess.CompletedProcess(list(command), status, out.read_text(), err.read_text())

    def _run(self, told: dict[str, Any], timeout: float) -> int:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(told) + "\n")
        self._process.stdin.flush()
        pid = self._read(READY_SECONDS)["pid"]
        try:
            return int(self._read(timeout)["status"])
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            self._read(READY_SECONDS)
            raise

    def end(self) -> None:
        """Nothing more will come."""
        self._process.kill()
        self._process.wait()


_processes: dict[tuple[str, ...], WarmProcess] = {}
"""By the variables that count; the one that was asked last comes last."""


def _process_for(env: dict[str, str]) -> WarmProcess:
    key = tuple(sorted(f"{name}={value}" for name, value in env.items() if READ_AT_IMPORT.fullmatch(name)))
    process = _processes.pop(key, None)
    if process is None:
        while len(_processes) >= MOST_PROCESSES:
            _processes.pop(next(iter(_processes))).end()
        chosen = {name: value for name, value in env.items() if not name.startswith(("PROFILEMATE_", "PYTHON"))}
        if "STANDIN_GRAPHS" in env:
            chosen["PYTHONPATH"] = str(environment.STANDIN)
        process = WarmProcess(chosen)
    _processes[key] = process
    return process


@atexit.register
def _end_all() -> None:
    for process in _processes.values():
        process.end()


def run(
    command: Sequence[str], env: dict[str, str], cwd: Path | None = None, timeout: float = environment.HANGS_SECONDS
) -> subprocess.CompletedProcess[str]:
    """As `subprocess.run([sys.executable, *command], env=env, capture_output=True, text=True)`, without the import."""
    return _process_for(env).run(command, env, cwd or Path.cwd(), timeout)
