"""A server under load, with ProfileMate or without: its processes, its requests, and whether it serves."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import clients
import server as servers

CLIENTS = 4
PROBE = {"prompt": list(range(20, 60)), "max_tokens": 8, "temperature": 0, "ignore_eos": True}
PROBE_SECONDS = 90
GOES_SECONDS = 240
STALLED = "No available shared memory broadcast block found"
"""vLLM 0.32 says so where its engine core and its worker missed each other's signal, and nothing ran for a minute.

Seen in both servers, with ProfileMate and without, where more processes spin than there are cores.
"""
FRONT_END = "front end"
TITLES = {"worker": "VLLM::Worker", "engine core": "VLLM::EngineCore"}


class Load(clients.Pressure):
    """The tests' clients, which can be told to stop before the context ends."""

    def stop(self) -> None:
        """Send nothing more."""
        self._stopped.set()

    def drain(self) -> None:
        """Send nothing more, and wait for what was sent."""
        self.stop()
        for thread in self._threads:
            thread.join(clients.REQUEST_SECONDS)


@dataclass
class Twin:
    """One of the two servers. `steps` is the file of the step oracle."""

    server: servers.Server
    load: Load
    steps: Path

    def pid(self, part: str) -> int:
        """The process that is this part of the server: front end, engine core or worker."""
        if part == FRONT_END:
            return self.server.process.pid
        return next(pid for pid in self.server.tree() if title(pid).startswith(TITLES[part]))

    def outcomes(self) -> Counter[str]:
        """Requests so far, by how they ended."""
        return Counter(dict(self.load.outcomes))

    def probe(self) -> Any:
        """What one request gets: the tokens it was charged for and why it ended, or the kind of its failure."""
        message = urllib.request.Request(
            f"{self.server.url}/v1/completions", json.dumps(PROBE).encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(message, timeout=PROBE_SECONDS) as answer:
                told = json.load(answer)
        except (OSError, ValueError) as error:
            return type(error).__name__
        return told["usage"]["completion_tokens"], told["choices"][0]["finish_reason"]

    def wait_until_gone(self) -> int | None:
        """Wait for the server to end by itself; its exit code, None where it does not end."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.server.process.wait(GOES_SECONDS)
        return None

    def stop(self) -> int | None:
        """SIGTERM once every request has its answer; the exit code.

        With requests in flight it is chance whether vLLM 0.32 ends at the first signal, with or without us.
        """
        self.load.drain()
        return self.server.stop(signal.SIGTERM)

    def stalls(self) -> int:
        """How often vLLM itself said that nothing ran for a minute."""
        return self.log().count(STALLED)

    def log(self) -> str:
        """What it printed."""
        return self.server.log.read_text(errors="replace")


def is_worse(ours: Any, bare: Any) -> bool:
    """Whether a probe of the server with ProfileMate got something else, and not an answer where the other one failed."""
    return ours != bare and (isinstance(ours, str) or not isinstance(bare, str))


def title(pid: int) -> str:
    """The name that a process gave itself."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode(errors="replace")
    return ""


@contextlib.contextmanager
def starting(command: list[str], port: int, env: dict[str, str], folder: Path) -> Iterator[servers.Server]:
    """A server that has just begun; killed with its whole tree at the end."""
    folder.mkdir(parents=True)
    with servers.launched(command, port, env, folder / "log") as server:
        yield server


@contextlib.contextmanager
def serving(server: servers.Server, model: Path, steps: Path, seed: int | None = None) -> Iterator[Twin]:
    """A server under load once it is ready; killed with its whole tree at the end, so that no client waits for it.

    The same seed makes the same requests; without one they are drawn for each server.
    """
    try:
        server.wait_until_ready()
    except AssertionError as error:
        raise AssertionError(f"{server.log.parent.name}: {error}") from None
    load = Load(server, model, seed=server.port if seed is None else seed, clients=CLIENTS)
    with load:
        try:
            yield Twin(server, load, steps)
        finally:
            load.stop()
            server.kill_tree()


def wait_for(happened: Any, seconds: float, pause_seconds: float = 0.1) -> bool:
    """Wait until something holds; whether it came to hold."""
    deadline = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause_seconds)
    return True


def send(pid: int, signum: int) -> None:
    """A signal, to a process that may be gone."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signum)
