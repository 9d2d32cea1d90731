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

KILLED_COPIES, KILLED_TOKENS = 24, 450
"""Of each of two requests that are there when the server is killed: half a minute's work. Without copies they were over, on a
busy machine, before their client saw a token."""

CROWD, CROWD_TOKENS = 6, 400
"""Copies of one request that come at once: three of them fill the blocks, however slow the clients are."""

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
REQUESTS, CLIENTS, ABORT_ROUNDS, MOST_ABORT_ROUNDS = 36, 8, 3, 24
CLOCK_SECONDS = 0.001
"""vLLM's arrival is a time of day, which the session brings to the clock of its other moments."""

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
    """A streamed completion under an id of the client's own; when it began and had its first token as the client saw it."""

    def __init__(self, server: servers.Server, name: str, prompt: Any, max_tokens: int, n: int = 1) -> None:
        body = {
            "prompt": prompt, "max_tokens": max_tokens, "temperature": float(n > 1), "ignore_eos": True, "stream": True, "n": n,
        }  # fmt: skip
        self.name = name
        self._connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
        self.copies = n
        self.began = time.monotonic()
        self._connection.request("POST", "/v1/completions", json.dumps(body), {**HEADERS, "X-Request-Id": name})
        self.first_token = 0.0

    def read(self, chunks: int | None = None) -> None:
        """Some chunks of the answer, or all of it."""
        if not self.first_token:
            self._answer = self._connection.getresponse()
            assert self._answer.status == 200, self._answer.read()
        while chunks is None or chunks > 0:
            line = self._answer.readline()
            if not line or line.startswith(b"data: [DONE]"):
                self.hang_up()
                return
            if line.startswith(b"data: "):
                self.first_token = self.first_token or time.monotonic()
                chunks = None if chunks is None else chunks - 1

    def hang_up(self) -> None:
        """As a client that goes away."""
        self._connection.close()


class Served(NamedTuple):
    """A server's life: what its clients saw, its metrics before the end, and its session."""

    answered: dict[str, Reply]
    """By the client's id."""
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


def answer(server: servers.Server, number: int) -> Reply:
    copies = 2 if number % 9 == 4 else 1
    prompt = f"{PLANTED} {number}" if number % 6 == 5 else tokens(number, 20 + 13 * (number % 6))
    reply = Reply(server, f"answered-{number}", prompt, 1 if number % 12 == 7 else 60 + 20 * (number % 8), copies)
    reply.read()
    return reply


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
        crowd = Reply(server, "crowd", tokens(300, 30), CROWD_TOKENS, CROWD)
        crowd.read()
        wait_idle(server)
        time.sleep(1)  # the last iteration's statistics reach the front end
        metrics = metrics_of(server)
        in_flight = [Reply(server, f"killed-{n}", tokens(200 + n, 30), KILLED_TOKENS, KILLED_COPIES) for n in range(2)]
        in_flight[0].read(2)
        server.kill_tree()
    session = streams.only_session(folder / "sessions")
    streams.export(session)
    answered = {reply.name: reply for reply in (*replies, crowd)}
    return Served(answered, aborted, {reply.name for reply in in_flight}, metrics, session)


def buckets(metrics: str, name: str) -> list[tuple[float, int]]:
    """Upper bound and cumulative count of each bucket."""
    found = re.findall(rf'^vllm:{name}_bucket{{[^}}]*le="([^"]+)"[^}}]*}} (\S+)$', metrics, re.M)
    return sorted((float(bound), int(float(count))) for bound, count in found)


def killed_reason(row: dict[str, str]) -> str:
    """Of a request whose client saw no end: the engine may have come to it and not lived to say so."""
    return "length" if row["output_tokens"] == str(KILLED_TOKENS) else "unfinished"


def test_every_request_that_a_client_sent_is_there_once(served: Served) -> None:
    found = [(own_id(row), row["finish_reason"]) for row in served.rows()]
    expected = [(name, "length") for name, reply in served.answered.items() for _ in range(reply.copies)]
    expected += [(name, "abort") for name in served.aborted.in_time]
    killed = [(own_id(row), killed_reason(row)) for row in served.rows() if own_id(row) in served.in_flight]
    assert ("killed-0", "unfinished") in killed and len(killed) <= 2 * KILLED_COPIES  # not all may have come in by then
    late = [(name, reason) for name, reason in found if name in served.aborted.late]
    assert sorted(name for name, _ in late) == sorted(served.aborted.late)
    assert sorted(found) == sorted(expected + late + killed)
    assert [reason for _, reason in expected + late].count("length") == num_ended(served.metrics)
    assert {reason for _, reason in late} <= {"abort", "length"}
    assert len(served.aborted.in_time) == 3 * ABORT_ROUNDS
    assert len({row["request_id"] for row in served.rows()}) == len(found)


def test_aborted_requests_tell_where_they_were(served: Served) -> None:
    started = []
    for row in served.rows():
        name = own_id(row)
        if name in served.aborted.late:
            continue
        if name.startswith("waits"):
            assert row["queued_sec"] and not row["first_scheduled_sec"] and row["output_tokens"] == "0", row
        if name.startswith("runs"):
            assert row["first_token_sec"] and 4 <= int(row["output_tokens"]) < RUNS_TOKENS, row
        if name in served.in_flight and killed_reason(row) == "unfinished":
            assert row["arrival_sec"] and not row["finished_sec"], row
            started.append(bool(row["first_token_sec"]))
    assert any(started)


@pytest.mark.parametrize("name", HISTOGRAMS)
def test_times_fill_the_buckets_of_vllm_s_own_histogram(served: Served, name: str) -> None:
    column = HISTOGRAMS[name]
    rows = [row for row in served.settled() if name.startswith("time_to_first") or row["counted_by_vllm"] == "True"]
    values = [float(row[column]) for row in rows if row[column]]
    theirs = buckets(served.metrics, name)
    assert len(values) == theirs[-1][1] >= sum(reply.copies for reply in served.answered.values())
    assert [sum(value <= bound for value in values) for bound, _ in theirs] == [count for _, count in theirs]
    if name.endswith("_tokens"):
        assert len({count for _, count in theirs}) > 1, "every request is alike: that shows little"


def test_the_phases_of_a_request_add_up_to_its_whole_time(served: Served) -> None:
    for row in served.settled():
        phases = sum(float(row[phase] or 0) for phase in PHASES)
        assert abs(phases - float(row["e2e_latency_sec"])) < 0.001, row
        known = PHASES[:-1] if row["finish_reason"] == "abort" else PHASES  # its engine may go on until it hears of it
        assert all(float(row[phase] or 0) > -0.001 for phase in known), row


def test_moments_are_in_order_and_agree_with_the_two_queue_times(served: Served) -> None:
    order = ("arrival_sec", "queued_sec", "first_scheduled_sec", "first_token_sec", "last_token_sec", "finished_sec")
    for row in served.settled():
        in_order = order[:-1] if row["finish_reason"] == "abort" else order
        moments = [float(row[name]) for name in in_order if row[name]]
        assert all(later - earlier > -0.001 for earlier, later in pairwise(moments)), row
        if row["queue_time_frontend_sec"]:
            both = float(row["submit_time_sec"]) + float(row["queue_time_scheduler_sec"])
            assert float(row["queue_time_frontend_sec"]) == pytest.approx(both, abs=2e-6)


def test_a_client_sees_the_first_token_later_by_the_transport_alone(served: Served) -> None:
    """What it sees more than vLLM is its request's way there and the first token's way back: ours lies between the two."""
    created = json.loads((served.session / "session.json").read_text())["created_monotonic_ns"] / 1e9
    first: dict[str, tuple[float, float]] = {}
    for row in served.settled():
        if own_id(row) in served.answered:
            arrival, made = (created + float(row[name]) for name in ("arrival_sec", "first_token_sec"))
            told = arrival + float(row["ttft_sec"])
            assert arrival < made < told + CLOCK_SECONDS, row
            first[own_id(row)] = min((arrival, told), first.get(own_id(row), (arrival, told)), key=lambda one: one[1])
    assert first.keys() == served.answered.keys()
    for name, reply in served.answered.items():
        arrival, told = first[name]
        assert reply.began < arrival + CLOCK_SECONDS and told < reply.first_token + CLOCK_SECONDS, name


def test_preemptions_equal_the_servers_own_count(served: Served) -> None:
    (told,) = re.findall(r"^vllm:num_preemptions_total{[^}]*} (\S+)$", served.metrics, re.M)
    in_flight = {row["request_id"] for row in served.rows() if own_id(row) in served.in_flight}
    rows = [row for row in served.rows("preemption_events.csv") if row["request_id"] not in in_flight]
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
