"""Runs of several processes: what was sent, what vLLM's own metrics say of each engine, and the session's files beside it.

Nothing here reads a session with ProfileMate's code: the streams' folder is the product, the README's files are read as CSV.
"""

from __future__ import annotations

import csv
import json
import re
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import clients
import server as servers
import streams

BLOCKS = 71
"""Usable KV blocks of one engine under `server.command`: 72 less the null block."""
REQUESTS, CLIENTS, SEED = 24, 8, 7


class Told(NamedTuple):
    """What a load sent and got, and the text of /metrics after it."""

    requests: int
    prompt_tokens: int
    output_tokens: int
    metrics: str = ""

    def of_engine(self, name: str, engine: int) -> float:
        """One engine's sum over a metric's samples."""
        pattern = rf'^vllm:{name}{{engine="{engine}"[^}}]*}} (\S+)$'
        return sum(float(value) for value in re.findall(pattern, self.metrics, re.M))


def load(server: servers.Server, model: Path, engines: int = 1) -> Told:
    """Send the load and read /metrics when the statistics of the last iteration are in it."""
    sent = clients.load_module().run_load(server.url, str(model), REQUESTS, CLIENTS, SEED)
    assert sent.ok, str(sent)
    told = Told(sent.requests, sent.prompt_tokens, sent.output_tokens)
    deadline = time.monotonic() + servers.GONE_SECONDS
    while time.monotonic() < deadline:
        with urllib.request.urlopen(f"{server.url}/metrics", timeout=60) as answer:
            told = told._replace(metrics=answer.read().decode())
        if sum(told.of_engine("request_success_total", engine) for engine in range(engines)) == told.requests:
            return told
        time.sleep(0.5)
    raise AssertionError("the metrics never told of all requests")


def names(session: Path) -> list[str]:
    """Every process of a session as its folder names it: role with number or ranks."""
    return [path.name.split(".")[0] for path in streams.processes(session)]


def ranks(session: Path, name: str) -> dict[str, int]:
    """Of one process."""
    (folder,) = streams.processes(session, f"{name}.")
    return dict(streams.record(folder)["ranks"])


def table(session: Path, name: str) -> list[dict[str, str]]:
    """One of the README's files."""
    with (session / name).open(newline="") as file:
        return list(csv.DictReader(file))


def metadata(session: Path) -> dict[str, Any]:
    """metadata.json."""
    return dict(json.loads((session / "metadata.json").read_text()))


def oracle_steps(path: Path) -> dict[int, list[int]]:
    """Tokens of the steps that the step oracle saw with any, in order, by the pid of the engine core."""
    found: dict[int, list[int]] = {}
    for line in path.read_text().splitlines():
        pid, tokens = map(int, line.split())
        found.setdefault(pid, []).extend([tokens] if tokens else [])
    return found


def pids(session: Path, names: Sequence[str]) -> list[int]:
    """Of processes by name, in the order of the names."""
    return [int(streams.record(streams.processes(session, f"{name}.")[0])["pid"]) for name in names]


def check_requests(session: Path, told: Told, engines: Sequence[int]) -> None:
    """request_lifecycle.csv has each request that the client sent once, under the engine that the metrics name."""
    rows = table(session, "request_lifecycle.csv")
    assert len(rows) == len({row["request_id"] for row in rows}) == told.requests
    assert sum(int(row["prompt_tokens"]) for row in rows) == told.prompt_tokens
    assert sum(int(row["output_tokens"]) for row in rows) == told.output_tokens
    for engine in engines:
        mine = [row for row in rows if row["engine"] == str(engine)]
        assert len(mine) == told.of_engine("request_success_total", engine) > 0
        for column in ("prompt_tokens", "output_tokens"):
            metric = {"prompt_tokens": "prompt_tokens_total", "output_tokens": "generation_tokens_total"}[column]
            assert sum(int(row[column]) for row in mine) == told.of_engine(metric, engine)


def check_steps(session: Path, steps: dict[int, list[int]]) -> None:
    """batch_utilization.csv and forward_pass_timing.csv have each engine's steps with tokens once, in order."""
    for name in ("batch_utilization.csv", "forward_pass_timing.csv"):
        rows = table(session, name)
        for engine, tokens in steps.items():
            mine = [int(row["num_tokens"]) for row in rows if row["engine"] == str(engine) and row["num_tokens"] != "0"]
            assert mine == tokens != [], f"engine {engine} in {name}"
        assert {int(row["engine"]) for row in rows} == set(steps)


def check_kv(session: Path, told: Told, engines: Sequence[int]) -> None:
    """The KV cache's totals are the sums of all engines', and its size that of all of them from the first row on."""
    text = (session / "kv_cache_summary.txt").read_text()
    found = re.search(r"prefix cache hit rate \S+ % \(([\d,]+) of ([\d,]+) tokens\)", text)
    assert found is not None, text
    hits, queries = (int(number.replace(",", "")) for number in found.groups())
    assert hits == sum(told.of_engine("prefix_cache_hits_total", engine) for engine in engines)
    assert queries == sum(told.of_engine("prefix_cache_queries_total", engine) for engine in engines) > 0
    usage = table(session, "kv_cache_usage.csv")
    assert {row["total_blocks"] for row in usage} == {str(BLOCKS * len(engines))}
    assert {int(row["engine"]) for row in usage} == set(engines)
    assert usage[-1]["num_blocks"] == "0"
