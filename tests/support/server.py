"""A real vLLM server on loopback for a test: start, wait, ask, stop, and leave nothing behind."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

READY_SECONDS = 600
GONE_SECONDS = 180
PATIENCE_SECONDS = 5
AGAIN_SECONDS = 15


def free_port() -> int:
    """A TCP port of 127.0.0.1 that is free now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def processes_started_by(pid: int) -> list[int]:
    """All descendants of a process, and orphans of the session of processes that it leads, from /proc."""
    parents: dict[int, list[int]] = {}
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            fields = entry.read_bytes().rpartition(b")")[2].split()
            number, parent, session = int(entry.parent.name), int(fields[1]), int(fields[3])
            parents.setdefault(parent, []).append(number)
            if session == pid != number:
                found.append(number)
    todo = [pid]
    while todo:
        children = parents.get(todo.pop(), [])
        found += children
        todo += children
    return sorted(set(found))


class Server:
    """One server process tree."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        """Use `start` instead."""
        self.process = process
        self.port = port
        self.log = log
        self.url = f"http://127.0.0.1:{port}"

    def wait_until_ready(self) -> None:
        """Until /health answers; fails with the end of the log."""
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.url}/health", timeout=5):
                return
            time.sleep(0.3)
        raise AssertionError(f"server not ready (exit {self.process.poll()}):\n{self.log.read_text()[-4000:]}")

    def complete(
        self, prompt: list[int] | list[list[int]], max_tokens: int, logprobs: int | None = 1
    ) -> dict[str, Any]:
        """One greedy completion, or those of several prompts that come in one call."""
        body = {
            "prompt": prompt, "max_tokens": max_tokens, "temperature": 0, "ignore_eos": True, "logprobs": logprobs,
        }  # fmt: skip
        request = urllib.request.Request(
            f"{self.url}/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=300) as answer:
            return dict(json.load(answer))

    def metric(self, name: str) -> float:
        """Sum over a metric's samples in /metrics; 0 where it has none."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        return sum(float(value) for value in re.findall(rf"^vllm:{name}(?:{{[^}}]*}})? (\S+)$", text, re.M))

    def tree(self) -> list[int]:
        """Pids of the server and its descendants."""
        return [self.process.pid, *processes_started_by(self.process.pid)]

    def send_signal(self, signum: int, whole_tree: bool = False) -> None:
        """Send a signal to the server process, or to each of its processes as a terminal does."""
        for pid in self.tree() if whole_tree else [self.process.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signum)

    def stop(self, signum: int = signal.SIGTERM) -> int:
        """Signal the server process, wait for it and its tree, and return its exit code.

        vLLM 0.32 waits for open connections without end, with or without ProfileMate; a second signal forces it.
        """
        tree = self.tree()
        deadline = time.monotonic() + GONE_SECONDS
        while self.process.poll() is None and time.monotonic() < deadline:
            self.send_signal(signum)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(AGAIN_SECONDS)
        wait_gone(tree)
        return self.process.wait(1)

    def stop_or_kill(self, signum: int, whole_tree: bool = False) -> None:
        """One signal, some patience, then SIGKILL to whatever is left: what systemd and Docker do."""
        self.send_signal(signum, whole_tree)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(PATIENCE_SECONDS)
        self.kill_tree()

    def kill_tree(self) -> None:
        """SIGKILL to every process at once."""
        tree = self.tree()
        for pid in tree:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(GONE_SECONDS)
        wait_gone(tree)


def wait_gone(pids: list[int]) -> None:
    """Until none of the processes runs any more."""
    deadline = time.monotonic() + GONE_SECONDS
    while time.monotonic() < deadline and any(_alive(pid) for pid in pids):
        time.sleep(0.1)
    left = [pid for pid in pids if _alive(pid)]
    assert not left, f"still running: {left}"


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except OSError:
        return False


def _options(port: int) -> list[str]:
    """A small server: 71 usable KV blocks of 32 tokens, 8 requests, 256 tokens a step."""
    return [
        "--load-format", "dummy", "--host", "127.0.0.1", "--port", str(port), "--max-model-len", "2048",
        "--block-size", "32", "--num-gpu-blocks-override", "72", "--max-num-seqs", "8",
        "--max-num-batched-tokens", "256", "--gpu-memory-utilization", "0.3",
    ]  # fmt: skip


def command(model: Path, port: int, *more: str) -> list[str]:
    """A small server as a module of Python."""
    module = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
    return [*module, "--model", str(model), *_options(port), *more]


def serve_command(model: Path, port: int, *more: str) -> list[str]:
    """The same by `vllm serve`."""
    return [str(Path(sys.executable).parent / "vllm"), "serve", str(model), *_options(port), *more]


@contextlib.contextmanager
def launched(command: list[str], port: int, env: dict[str, str], log: Path) -> Iterator[Server]:
    """A server process that has just begun; killed with its whole tree at the end, however the test ends."""
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, env=env, stdout=out, stderr=out, stdin=subprocess.DEVNULL, start_new_session=True
        )
    server = Server(process, port, log)
    try:
        yield server
    finally:
        server.kill_tree()


@contextlib.contextmanager
def start(model: Path, env: dict[str, str], log: Path, *more: str, prefix: tuple[str, ...] = ()) -> Iterator[Server]:
    """A ready server; killed with its whole tree at the end, however the test ends."""
    port = free_port()
    with launched([*prefix, *command(model, port, *more)], port, env, log) as server:
        server.wait_until_ready()
        yield server
