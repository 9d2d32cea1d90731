"""What an engine process of the check gets: environment, folders, a log, a time limit."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from gpu_check.places import BENCHMARKS, ROOT

OFFLINE = {
    "VLLM_USE_FLASHINFER_SAMPLER": "0",  # an offline bundle has no flashinfer
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "VLLM_HOST_IP": "127.0.0.1",
    "GLOO_SOCKET_IFNAME": "lo",
    "NCCL_SOCKET_IFNAME": "lo",
}
NUMBA_STANDIN = """
__version__ = "0.65.0"
prange = range

def jit(*args, **options):
    return args[0] if args and callable(args[0]) else (lambda function: function)

njit = jit

def get_num_threads():
    return 1

def set_num_threads(number):
    pass
"""
OURS = ("PROFILEMATE_", "VLLM_PROFILING_", "VLLM_ENABLE_PROFILING")


ENGINE_SECONDS = 300.0


class OutOfTime(Exception):
    """The time given to the whole check does not suffice for the next engine."""


class EngineFailed(Exception):
    """An engine process wrote no result; the message has the end of its log."""


class Run(NamedTuple):
    """One engine process that wrote its result. Its folder is all there is to know of it."""

    folder: Path
    result: dict[str, Any]
    code: int | None
    seconds: float

    @property
    def trace(self) -> Path:
        """The trace of its window."""
        return self.folder / TRACE

    @property
    def sessions(self) -> Path:
        """Where ProfileMate wrote."""
        return self.folder / SESSIONS

    def log(self) -> str:
        """All that the process printed."""
        return (self.folder / LOG).read_text(encoding="utf-8", errors="replace")


SPEC, OUT, LOG, TRACE, SESSIONS, ENDED = (
    "spec.json", "out.json", "engine.log", "trace.json.gz", "sessions", "ended.json",
)  # fmt: skip


def load_run(folder: Path) -> Run:
    """A run from its folder. Raises EngineFailed where the process wrote no result."""
    ended = json.loads((folder / ENDED).read_text(encoding="utf-8"))
    if not (folder / OUT).exists():
        log = (folder / LOG).read_text(encoding="utf-8", errors="replace")
        raise EngineFailed(
            f"{folder.name}: the engine process ended with {ended['code']} after {ended['seconds']:.0f} s:\n{log[-3000:]}"
        )
    result = json.loads((folder / OUT).read_text(encoding="utf-8"))
    return Run(folder, result, ended["code"], ended["seconds"])


@dataclass
class Surroundings:
    """Where the check works, and how long it may."""

    work: Path
    cache: Path
    deadline: float
    program: tuple[str, ...] = (sys.executable, "-m", "gpu_check.engine")
    more_env: Mapping[str, str] = field(default_factory=dict)
    longest_seconds: float = 0.0
    runs: int = 0
    _numba: Path | None = None

    def run(self, name: str, spec: dict[str, Any], profiled: bool, env: Mapping[str, str]) -> Run:
        """One engine process, with ProfileMate or without. Raises OutOfTime or EngineFailed."""
        left = self.deadline - time.monotonic()
        if left < self.longest_seconds:
            raise OutOfTime(f"{left:.0f} s are left and an engine took {self.longest_seconds:.0f} s")
        self.runs += 1
        folder = self.work / f"{self.runs:02}-{name}"
        folder.mkdir()
        (folder / SPEC).write_text(json.dumps({**spec, "trace": str(folder / TRACE)}), encoding="utf-8")
        command = [*self.program, str(folder / SPEC), str(folder / OUT)]
        began = time.monotonic()
        with (folder / LOG).open("wb") as log:
            code = _run_group(command, self.environment(folder, profiled, env), folder, log, min(left, ENGINE_SECONDS))
        seconds = time.monotonic() - began
        self.longest_seconds = max(self.longest_seconds, seconds)
        (folder / ENDED).write_text(json.dumps({"code": code, "seconds": seconds}), encoding="utf-8")
        return load_run(folder)

    def environment(self, folder: Path, profiled: bool, more: Mapping[str, str]) -> dict[str, str]:
        """This process's environment without ProfileMate, offline, and with it again where it is wanted."""
        env = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
        inherited = [entry for entry in env.get("PYTHONPATH", "").split(os.pathsep) if entry and not _is_root(entry)]
        numba = [str(self.numba_standin())] if self._numba else []
        path = [*([str(ROOT)] if profiled else []), str(BENCHMARKS), *numba, *inherited]
        defaults = {
            **OFFLINE,
            "VLLM_CACHE_ROOT": str(self.cache / "vllm"),
            "TRITON_CACHE_DIR": str(self.cache / "triton"),
            "TORCHINDUCTOR_CACHE_DIR": str(self.cache / "inductor"),
        }
        ours = {
            "PROFILEMATE_DIR": str(folder / SESSIONS),
            "PROFILEMATE_NETWORK_FS": "1",
        }  # however the scratch is mounted
        if not profiled:
            ours = {"PROFILEMATE_ENABLE": "0"}
        fixed = {"PYTHONPATH": os.pathsep.join(path), "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
        return {**defaults, **env, **fixed, **ours, **self.more_env, **more}

    def mend_numba(self) -> bool:
        """VLLM imports numba at its start; where numba does not go with this numpy, a stand-in takes its place."""
        check = "from numba import get_num_threads, jit, njit, prange, set_num_threads"
        done = subprocess.run([sys.executable, "-c", check], capture_output=True, timeout=120, check=False)
        if done.returncode == 0:
            return False
        self._numba = self.numba_standin()
        package = self._numba / "numba"
        package.mkdir(parents=True, exist_ok=True)
        (package / "__init__.py").write_text(NUMBA_STANDIN, encoding="utf-8")
        return True

    def numba_standin(self) -> Path:
        """The folder of the stand-in."""
        return self.work / "standins"


def _is_root(entry: str) -> bool:
    with contextlib.suppress(OSError):
        return Path(entry).resolve() == ROOT
    return False


def _run_group(command: list[str], env: dict[str, str], folder: Path, log: Any, seconds: float) -> int | None:
    """Run a command in a process group of its own; None where it had to be ended. Nothing of the group is left."""
    process = subprocess.Popen(
        command, env=env, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
    )
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
