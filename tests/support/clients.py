"""Clients of a server under test: the demo's bounded load, and clients that go on until they are told to stop."""

from __future__ import annotations

import http.client
import importlib.util
import itertools
import random
import sys
import threading
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Any

import environment
import server as servers

REQUEST_SECONDS = 90
REFUSED_PAUSE_SECONDS = 0.1


def load_module() -> Any:
    """demo/load.py, which is not on the path."""
    name = "demo_load"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, environment.ROOT / "demo" / "load.py")
        assert spec is not None and spec.loader is not None
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[name]


def send_load(server: servers.Server, model: Path, requests: int) -> None:
    """A load of so many requests, all of which are answered."""
    result = load_module().run_load(server.url, str(model), requests=requests, concurrency=12, seed=7)
    assert result.ok, str(result)


def send_waves(server: servers.Server, waves: int, seed: int) -> None:
    """Up to twelve prompts in one call, and the next call when it is answered: the batches of every machine are alike."""
    rng = random.Random(seed)
    for _ in range(waves):
        prompts = [[rng.randint(10, 4000) for _ in range(rng.randint(8, 60))] for _ in range(rng.randint(1, 12))]
        server.complete(prompts, rng.randint(6, 24), logprobs=None)  # stand-in graphs make none that JSON can tell


class Pressure:
    """A context in which clients send one request after the other; what became of them is in `outcomes`."""

    def __init__(self, server: servers.Server, model: Path, seed: int, clients: int = 8) -> None:
        """Nothing is sent yet."""
        self.outcomes: Counter[str] = Counter()
        self.sending = threading.Event()
        self._load = load_module()
        self._requests = itertools.cycle(self._load.make_requests(200, seed))
        self._url, self._model = server.url, str(model)
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._send, daemon=True) for _ in range(clients)]

    def __enter__(self) -> Pressure:
        for thread in self._threads:
            thread.start()
        assert self.sending.wait(REQUEST_SECONDS)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join(REQUEST_SECONDS)

    def _send(self) -> None:
        while not self._stopped.is_set():
            with self._lock:
                request = next(self._requests)
            self.sending.set()
            try:
                self._load.complete(self._url, self._model, request, REQUEST_SECONDS)
                outcome = "answered"
            except (OSError, http.client.HTTPException, ValueError, LookupError) as error:
                outcome = type(error).__name__
                self._stopped.wait(REFUSED_PAUSE_SECONDS)
            with self._lock:
                self.outcomes[outcome] += 1
