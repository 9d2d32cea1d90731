"""A bounded load of completions on a running vLLM server on this machine. Standard library only.

    python demo/load.py --url http://127.0.0.1:8000 --requests 100 --concurrency 8 --seed 7

Prompts are lists of token ids: two thirds begin with one of four shared prefixes, tails are mostly short and sometimes
long. Every request has a time limit and so has the whole load, so it always ends. Exit status 1 if a request failed.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass

FIRST_TOKEN, LAST_TOKEN = 10, 4000
PREFIXES, PREFIX_TOKENS, PREFIX_SHARE = 4, 320, 2 / 3
SHORTEST_TAIL, LONGEST_TAIL = 16, 900
SHORTEST_OUTPUT, LONGEST_OUTPUT = 4, 96
REQUEST_TIMEOUT_S, LOAD_TIMEOUT_S = 60.0, 300.0
PROGRESS_EVERY_S = 5.0
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # straight to this machine, past any proxy


@dataclass(frozen=True)
class Request:
    """One completion to ask for."""

    prompt: list[int]
    max_tokens: int


@dataclass(frozen=True)
class LoadResult:
    """What became of a load; failures maps a cause to how many requests ended so."""

    requests: int
    succeeded: int
    failures: dict[str, int]
    prompt_tokens: int
    output_tokens: int
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether every request was answered in full."""
        return self.succeeded == self.requests

    def __str__(self) -> str:
        """One line for a person."""
        causes = "; ".join(f"{count} x {cause}" for cause, count in self.failures.items())
        return (
            f"{self.succeeded} of {self.requests} requests answered in {self.seconds:.1f} s: "
            f"{self.prompt_tokens} prompt tokens, {self.output_tokens} output tokens"
            + (f"; failed: {causes}" if causes else "")
        )


def make_requests(count: int, seed: int) -> list[Request]:
    """The requests of a load: the same for the same count and seed."""
    dice = random.Random(seed)

    def tokens(length: int) -> list[int]:
        return [dice.randint(FIRST_TOKEN, LAST_TOKEN) for _ in range(length)]

    prefixes = [tokens(PREFIX_TOKENS) for _ in range(PREFIXES)]
    requests = []
    for _ in range(count):
        prefix = dice.choice(prefixes) if dice.random() < PREFIX_SHARE else []
        tail = SHORTEST_TAIL + int((LONGEST_TAIL - SHORTEST_TAIL) * dice.random() ** 3)
        requests.append(Request(prefix + tokens(tail), dice.randint(SHORTEST_OUTPUT, LONGEST_OUTPUT)))
    return requests


def complete(url: str, model: str, request: Request, timeout_s: float) -> int:
    """Ask for one completion and return how many tokens came; raises where the server refuses or is silent."""
    body = {
        "model": model,
        "prompt": request.prompt,
        "max_tokens": request.max_tokens,
        "temperature": 0,
        "ignore_eos": True,
    }
    message = urllib.request.Request(
        f"{url}/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with _OPENER.open(message, timeout=timeout_s) as reply:
        return int(json.load(reply)["usage"]["completion_tokens"])


def served_model(url: str) -> str:
    """The name of the first model that the server offers."""
    with _OPENER.open(f"{url}/v1/models", timeout=10) as reply:
        return str(json.load(reply)["data"][0]["id"])


class _Tally:
    """What the threads of one load have counted so far."""

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.succeeded = 0
        self.output_tokens = 0
        self.failures: Counter[str] = Counter()
        self._lock = threading.Lock()

    def run(self, url: str, model: str, request: Request) -> None:
        """Send one request and count how it ended."""
        cause, tokens = self._attempt(url, model, request)
        with self._lock:
            self.output_tokens += tokens
            self.succeeded += not cause
            if cause:
                self.failures[cause] += 1

    def _attempt(self, url: str, model: str, request: Request) -> tuple[str, int]:
        left = self.deadline - time.monotonic()
        if left <= 0:
            return "not sent: the time for the load was up", 0
        try:
            tokens = complete(url, model, request, min(REQUEST_TIMEOUT_S, left))
        except urllib.error.HTTPError as error:
            return f"HTTP status {error.code}", 0
        except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError) as error:
            return f"{type(error).__name__}: {error}", 0
        return ("" if tokens == request.max_tokens else "fewer tokens than asked for"), tokens


def run_load(
    url: str,
    model: str,
    requests: int,
    concurrency: int,
    seed: int,
    report: Callable[[str], None] | None = None,
) -> LoadResult:
    """Send the requests, `concurrency` at a time, and wait for all; `report` gets a line of progress now and then."""
    made = make_requests(requests, seed)
    began = time.monotonic()
    tally = _Tally(began + LOAD_TIMEOUT_S)
    with ThreadPoolExecutor(concurrency) as pool:
        sent = [pool.submit(tally.run, url, model, request) for request in made]
        next_report = began + PROGRESS_EVERY_S
        while wait(sent, timeout=max(0.0, next_report - time.monotonic())).not_done:
            next_report += PROGRESS_EVERY_S
            if report:
                report(f"{sum(future.done() for future in sent)} of {requests} requests ended")
    return LoadResult(
        requests=requests,
        succeeded=tally.succeeded,
        failures=dict(tally.failures),
        prompt_tokens=sum(len(request.prompt) for request in made),
        output_tokens=tally.output_tokens,
        seconds=time.monotonic() - began,
    )


def main() -> int:
    """Command line; the exit status is 1 if a request failed or the server cannot be reached."""
    parser = argparse.ArgumentParser(description="Send a bounded load to a vLLM server on this machine.")
    parser.add_argument("--url", required=True, help="for example http://127.0.0.1:8000")
    parser.add_argument("--model", help="name of the model to ask for; the first that the server offers if left out")
    parser.add_argument("--requests", type=int, default=100)
    parser.add_argument("--concurrency", type=int, default=8)
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    url = options.url.rstrip("/")
    try:
        model = options.model or served_model(url)
    except (OSError, http.client.HTTPException, ValueError, LookupError) as error:
        print(f"no vLLM server answers at {url}: {error}", file=sys.stderr)
        return 1
    result = run_load(
        url, model, options.requests, options.concurrency, options.seed, lambda line: print(line, flush=True)
    )
    print(result)
    return 0 if result.ok else 1


if __name__ == "__main__":
    sys.exit(main())
