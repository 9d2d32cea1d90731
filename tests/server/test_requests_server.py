"""Requests of a real server: each one that the test's clients sent, with times that equal vLLM's own metrics."""

from __future__ import annotations

import csv
import http.client
import json
import re
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import environment
import pytest
import server as servers
import streams

pytestmark = pytest.mark.server

SMALL = (
    "--max-model-len", "1024", "--num-gpu-blocks-override", "33", "--max-num-batched-tokens", "1024", "--enforce-eager",
)  # fmt: skip
"""32 blocks of 32 tokens: eight requests of the load below do not fit in them to their ends."""

RUNS_TOKENS, WAITS_TOKENS = 960, 1000
"""A request that is aborted while it runs should not end before: its client hangs up after some ten tokens of these. On a busy
machine one did, since the server heard of it too late; such a round does not count as one of those in time."""

KILLED_TOKENS = 450
"""Of each of two requests that run when the server is killed: four seconds; 120 were over before on a busy machine."""

PLANTED = "zanzibar quagmire"
SECRETS = {
    "--api-key": "sk-planted-key-4711",
    "HF_TOKEN": "hf_planted_token_0815",
    "DATABASE_URL": "db://u:planted-pass@h",
}
"""An option and variables of the server that nobody may read in a session."""
HEADERS = {
    "Content-Type": "application/json", "Authorization": f"Bearer {SECRETS['--api-key']}", "Cookie": "planted-cookie-1234",
}  # fmt: skip
REQUESTS, CLIENTS, ABORT_ROUNDS, MOST_ABORT_ROUNDS = 36, 8, 3, 9
TRANSPORT_MEDIAN_SECONDS, TRANSPORT_MOST_SECONDS, STALLED_SHARE, STALLED_SECONDS = 0.1, 1.0, 0.25, 5.0
"""What a client may see later than vLLM: the way there, reading the request before vLLM stamps it, and the way back.

On two cores that run the server, its worker and eight client threads each of these waits for its turn: some 10 ms each,
measured; the most is where all threads begin at once. A machine that stops for two seconds once stops the eight clients of
that moment, which are less than a quarter of the requests.
"""

HISTOGRAMS = {
    "time_to_first_token_seconds": "ttft_sec",
    "request_time_per_output_token_seconds": "tpot_sec",
    "e2e_request_latency_seconds": "e2e_latency_sec",
    "request_queue_time_seconds": "queue_time_scheduler_sec",
    "request_prefill_time_seconds": "prefill_time_sec",
    "request_decode_time_seconds": "decode_time_sec",
    "request_inference_time_seconds": "inference_time_sec",
    "request_prompt_tokens": "prompt_tokens",
    "request_generation_tokens": "output_tokens",
    "request_num_preemptions": "preemptions",
}
PHASES = ("submit_time_sec", "queue_time_scheduler_sec", "prefill_time_sec", "decode_time_sec", "rest_time_sec")


class Reply:
    """A streamed completion under an id of the client's own; `first_token_seconds` is as the client saw it."""

    def __init__(self, server: servers.Server, name: str, prompt: Any, max_tokens: int, n: int = 1) -> None:
        body = {
            "prompt": prompt, "max_tokens": max_tokens, "temperature": n - 1, "ignore_eos": True, "stream": True, "n": n,
        }  # fmt: skip
        self.name = name
        self._connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
        self._began = time.monotonic()
        self._connection.request("POST", "/v1/completions", json.dumps(body), {**HEADERS, "X-Request-Id": name})
        self.first_token_seconds = 0.0

    def read(self, chunks: int | None = None) -> None:
        """Some chunks of the answer, or all of it."""
        if not self.first_token_seconds:
            self._answer = self._connection.getresponse()
            assert self._answer.status == 200, self._answer.read()
        while chunks is None or chunks > 0:
            line = self._answer.readline()
            if not line or line.startswith(b"data: [DONE]"):
                self.hang_up()
                return
            if line.startswith(b"data: "):
                self.first_token_seconds = self.first_token_seconds or time.monotonic() - self._began
                chunks = None if chunks is None else chunks - 1

    def hang_up(self) -> None:
        """As a client that goes away."""
        self._connection.close()


class Served(NamedTuple):
    """A server's life: what its clients saw, its metrics before the end, and its session."""

    answered: dict[str, float]
    """First token as the client saw it, by the client's id."""
    copies: dict[str, int]
    aborted: Aborted
    in_flight: set[str]
    metrics: str
    session: Path

    def rows(self, name: str = "request_lifecycle.csv") -> list[dict[str, str]]:
        """A file of the session."""
        with (self.session / name).open(newline="") as file:
            return list(csv.DictReader(file))

    def settled(self) -> list[dict[str, str]]:
        """Requests that were over when the metrics were read."""
        return [row for row in self.rows() if own_id(row) not in self.in_flight]


def own_id(row: dict[str, str]) -> str:
    """The id that the client gave."""
    return row["external_id"].removeprefix("cmpl-").removesuffix("-0")


def tokens(seed: int, count: int) -> list[int]:
    return [10 + (seed * 7919 + 31 * n * n) % 3900 for n in range(count)]


class Aborted(NamedTuple):
    """Names of requests whose clients hung up; those of rounds in which vLLM itself had ended one before it heard of that."""

    in_time: set[str]
    late: set[str]


def abort_some(server: servers.Server) -> Aborted:
    """Hang up on requests that wait for blocks, and on the one that has them, until that came in time often enough."""
    found = Aborted(set(), set())
    for number in range(MOST_ABORT_ROUNDS):
        ended = num_ended(metrics_of(server))
        runs = Reply(server, f"runs-{number}", tokens(number, 40), RUNS_TOKENS)
        runs.read(2)
        waits = [Reply(server, f"waits-{number}-{n}", tokens(90 + 3 * number + n, WAITS_TOKENS), 8) for n in range(2)]
        time.sleep(0.4)
        for reply in waits:
            reply.hang_up()
        runs.read(2)
        runs.hang_up()
        wait_idle(server)
        names = found.in_time if num_ended(metrics_of(server)) == ended else found.late
        names.update({runs.name, *(reply.name for reply in waits)})
        if len(found.in_time) == ABORT_ROUNDS * len((runs, *waits)):
            break
    return found


def metrics_of(server: servers.Server) -> str:
    """The page of its metrics."""
    with urllib.request.urlopen(f"{server.url}/metrics", timeout=10) as page:
        return str(page.read().decode())


def num_ended(metrics: str) -> float:
    """Requests that came to their end by vLLM's own count, aborted ones left out."""
    counts = re.findall(r'^vllm:request_success_total{[^}]*finished_reason="([^"]+)"[^}]*} (\S+)$', metrics, re.M)
    return sum(float(count) for reason, count in counts if reason != "abort")


def wait_idle(server: servers.Server) -> None:
    deadline = time.monotonic() + environment.HANGS_SECONDS
    while server.metric("num_requests_running") + server.metric("num_requests_waiting"):
        assert time.monotonic() < deadline, "an aborted request goes on"
        time.sleep(0.1)


def answer(server: servers.Server, number: int) -> tuple[Reply, int]:
    copies = 2 if number % 9 == 4 else 1
    prompt = f"{PLANTED} {number}" if number % 6 == 5 else tokens(number, 20 + 13 * (number % 6))
    reply = Reply(server, f"answered-{number}", prompt, 1 if number % 12 == 7 else 60 + 20 * (number % 8), copies)
    reply.read()
    return reply, copies


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Served:
    folder = tmp_path_factory.mktemp("requests")
    variables = {name: value for name, value in SECRETS.items() if not name.startswith("--")}
    options = [word for name, value in SECRETS.items() if name.startswith("--") for word in (name, value)]
    env = environment.profiled(folder / "sessions", PROFILEMATE_SHOW_REQUEST_IDS="1", **variables)
    with servers.start(tiny_model, env, folder / "log", *SMALL, *options) as server:
        aborted = abort_some(server)
        with ThreadPoolExecutor(CLIENTS) as pool:
            replies = list(pool.map(lambda number: answer(server, number), range(REQUESTS)))
        wait_idle(server)
        time.sleep(1)  # the last iteration's statistics reach the front end
        metrics = metrics_of(server)
        in_flight = [Reply(server, f"killed-{n}", tokens(200 + n, 30), KILLED_TOKENS) for n in range(2)]
        for reply in in_flight:
            reply.read(2)
        server.kill_tree()
    session = streams.only_session(folder / "sessions")
    streams.export(session)
    return Served(
        {reply.name: reply.first_token_seconds for reply, _ in replies},
        {reply.name: copies for reply, copies in replies},
        aborted,
        {reply.name for reply in in_flight},
        metrics,
        session,
    )


def buckets(metrics: str, name: str) -> list[tuple[float, int]]:
    """Upper bound and cumulative count of each bucket."""
    found = re.findall(rf'^vllm:{name}_bucket{{[^}}]*le="([^"]+)"[^}}]*}} (\S+)$', metrics, re.M)
    return sorted((float(bound), int(float(count))) for bound, count in found)


def test_every_request_that_a_client_sent_is_there_once(served: Served) -> None:
    found = [(own_id(row), row["finish_reason"]) for row in served.rows()]
    expected = [(name, "length") for name, copies in served.copies.items() for _ in range(copies)]
    expected += [(name, "abort") for name in served.aborted.in_time]
    expected += [(name, "unfinished") for name in served.in_flight]
    late = [(name, reason) for name, reason in found if name in served.aborted.late]
    assert sorted(name for name, _ in late) == sorted(served.aborted.late)
    assert sorted(found) == sorted(expected + late)
    assert sum(reason == "length" for _, reason in found) == num_ended(served.metrics)
    assert {reason for _, reason in late} <= {"abort", "length"}
    assert len(served.aborted.in_time) == 3 * ABORT_ROUNDS
    assert len({row["request_id"] for row in served.rows()}) == len(found)


def test_aborted_requests_tell_where_they_were(served: Served) -> None:
    for row in served.rows():
        name = own_id(row)
        if name in served.aborted.late:
            continue
        if name.startswith("waits"):
            assert row["queued_sec"] and not row["first_scheduled_sec"] and row["output_tokens"] == "0", row
        if name.startswith("runs"):
            assert row["first_token_sec"] and 4 <= int(row["output_tokens"]) < RUNS_TOKENS, row
        if name.startswith("killed"):
            assert row["arrival_sec"] and row["first_token_sec"] and not row["finished_sec"], row


@pytest.mark.parametrize("name", HISTOGRAMS)
def test_times_fill_the_buckets_of_vllm_s_own_histogram(served: Served, name: str) -> None:
    column = HISTOGRAMS[name]
    rows = [row for row in served.settled() if name.startswith("time_to_first") or row["counted_by_vllm"] == "True"]
    values = [float(row[column]) for row in rows if row[column]]
    theirs = buckets(served.metrics, name)
    assert len(values) == theirs[-1][1] >= sum(served.copies.values())
    assert [sum(value <= bound for value in values) for bound, _ in theirs] == [count for _, count in theirs]
    if name.endswith("_tokens"):
        assert len({count for _, count in theirs}) > 1, "every request is alike: that shows little"


def test_the_phases_of_a_request_add_up_to_its_whole_time(served: Served) -> None:
    for row in served.settled():
        phases = sum(float(row[phase] or 0) for phase in PHASES)
        assert abs(phases - float(row["e2e_latency_sec"])) < 0.001, row
        assert all(float(row[phase] or 0) > -0.001 for phase in PHASES), row


def test_moments_are_in_order_and_agree_with_the_two_queue_times(served: Served) -> None:
    order = ("arrival_sec", "queued_sec", "first_scheduled_sec", "first_token_sec", "last_token_sec", "finished_sec")
    for row in served.settled():
        moments = [float(row[name]) for name in order if row[name]]
        assert all(later - earlier > -0.001 for earlier, later in pairwise(moments)), row
        if row["queue_time_frontend_sec"]:
            both = float(row["submit_time_sec"]) + float(row["queue_time_scheduler_sec"])
            assert float(row["queue_time_frontend_sec"]) == pytest.approx(both, abs=2e-6)


def test_a_client_sees_the_first_token_later_by_the_transport_alone(served: Served) -> None:
    ours: dict[str, float] = {}
    for row in served.settled():
        if own_id(row) in served.answered:
            ours[own_id(row)] = min(float(row["ttft_sec"]), ours.get(own_id(row), 1e9))
    later = [seen - ours[name] for name, seen in served.answered.items()]
    assert min(later) > 0
    assert median(later) < TRANSPORT_MEDIAN_SECONDS, sorted(later)
    assert sorted(later)[int(len(later) * (1 - STALLED_SHARE))] < TRANSPORT_MOST_SECONDS, sorted(later)
    assert max(later) < STALLED_SECONDS, sorted(later)


def test_preemptions_equal_the_servers_own_count(served: Served) -> None:
    (told,) = re.findall(r"^vllm:num_preemptions_total{[^}]*} (\S+)$", served.metrics, re.M)
    rows = [row for row in served.rows("preemption_events.csv") if "killed" not in row["request_id"]]
    assert len(rows) == float(told) > 0
    assert sum(int(row["preemptions"]) for row in served.settled()) == len(rows)
    assert {row["reason"] for row in rows} == {"no_blocks"} and all(row["for_request_id"] for row in rows)
    for row in rows:
        lost, kept, again = (int(row[name]) for name in ("lost_tokens", "kept_tokens", "recomputed_tokens"))
        assert lost - kept == again and row["extra_info"] == "recovered" and float(row["recompute_time_sec"]) > 0, row


def test_no_prompt_and_no_secret_is_anywhere_in_the_session(served: Served) -> None:
    planted = [PLANTED.encode(), ",".join(map(str, tokens(3, 6))).encode(), ", ".join(map(str, tokens(3, 6))).encode()]
    planted += [secret.encode() for secret in (*SECRETS.values(), HEADERS["Cookie"])]
    content = [path.read_bytes() for path in served.session.rglob("*") if path.is_file()]
    assert len(content) > 10
    assert not any(text in one for one in content for text in planted)
