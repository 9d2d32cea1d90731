"""Real servers in which all of ProfileMate fails, beside one without it: same answers, same codes, same end."""

from __future__ import annotations

import http.client
import json
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import environment
import exported
import pytest
import sabotaged
import server as servers
import streams

pytestmark = pytest.mark.server

BARE = "without ProfileMate"
SERVERS = (BARE, "before", "after", "removed")
SERVERS_AT_A_TIME = 2
WAITING = {"Content-Type": "application/json"}
PROMPTS = [list(range(10 * number + 5, 10 * number + 11 + 40 * number)) for number in range(6)]
SAME_PREFIX = [list(range(100, 400)), list(range(100, 430))]
GREEDY = {"temperature": 0, "ignore_eos": True, "max_tokens": 16}


def post(server: servers.Server, body: bytes) -> tuple[int, Any]:
    """Status and body of one completion request."""
    request = urllib.request.Request(f"{server.url}/v1/completions", body, WAITING)
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def ask(server: servers.Server, **fields: Any) -> tuple[int, Any]:
    """Status, and what may not differ of the answer."""
    status, answer = post(server, json.dumps(fields).encode())
    return status, [answer.get(name) for name in ("choices", "usage", "error")]


def abort_a_stream(server: servers.Server) -> tuple[int, bool]:
    """Status of a stream that we leave after its first lines, and whether they held tokens."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
    body = {"prompt": PROMPTS[1], **GREEDY, "max_tokens": 1500, "stream": True}
    connection.request("POST", "/v1/completions", json.dumps(body), WAITING)
    answer = connection.getresponse()
    first = answer.readline()
    connection.close()
    return answer.status, first.startswith(b"data: {")


def conversation(server: servers.Server) -> list[Any]:
    """Everything that is asked of each server, one request after the other, with what came back."""
    said: list[Any] = [ask(server, prompt=prompt, logprobs=2, **GREEDY) for prompt in [*PROMPTS, *SAME_PREFIX]]
    said.append(ask(server, prompt=PROMPTS[0], **{**GREEDY, "temperature": -1}))
    said.append(ask(server, prompt=list(range(5, 3000)), **GREEDY))
    said.append(ask(server, model="another", prompt=PROMPTS[0], **GREEDY))
    said.append(post(server, b"{")[0])
    said.append(abort_a_stream(server))
    said += [ask(server, prompt=prompt, logprobs=2, **GREEDY) for prompt in SAME_PREFIX]
    said.append([server.metric(name) for name in ("prompt_tokens_total", "prefix_cache_hits_total")])
    return said


class Served(NamedTuple):
    """What a server said and how it ended; the rest is empty without ProfileMate."""

    said: list[Any]
    exit_code: int
    log: str
    broken: list[tuple[int, str]]
    session: Path | None


def serve(name: str, folder: Path, model: Path) -> Served:
    """One server's life; it is idle when it is stopped."""
    env = environment.vllm() if name == BARE else sabotaged.environ(folder, name)
    log = folder / "log"
    with servers.start(model, env, log, "--enforce-eager") as server:
        said = conversation(server)
        time.sleep(1)
        code = server.stop(signal.SIGTERM)
    if name == BARE:
        return Served(said, code, log.read_text(), [], None)
    session = streams.only_session(folder / "sessions")
    streams.export(session)
    return Served(said, code, log.read_text(), sabotaged.broken(folder), session)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[dict[str, Future[Served]]]:
    """All servers, two at a time; a test waits for its own."""
    pool = ThreadPoolExecutor(SERVERS_AT_A_TIME)
    yield {name: pool.submit(serve, name, tmp_path_factory.mktemp("served"), tiny_model) for name in SERVERS}
    pool.shutdown(cancel_futures=True)


def test_the_bare_server_says_what_the_others_are_held_against(served: dict[str, Future[Served]]) -> None:
    bare = served[BARE].result()
    statuses = [part[0] for part in bare.said[:8]]
    assert statuses == [200] * 8
    assert [part[0] for part in bare.said[8:11]] == [400, 400, 404]
    assert bare.said[11] in (400, 422)
    assert bare.said[12] == (200, True)
    assert bare.said[-1][0] > 0 and bare.said[-1][1] > 0


@pytest.mark.parametrize("name", SERVERS[1:])
def test_answers_and_exit_code_are_those_of_the_bare_server(name: str, served: dict[str, Future[Served]]) -> None:
    bare, sabotaged_server = served[BARE].result(), served[name].result()
    assert sabotaged_server.said == bare.said
    assert sabotaged_server.exit_code == bare.exit_code


@pytest.mark.parametrize("name", ["before", "after"])
def test_health_names_every_handler_that_failed(name: str, served: dict[str, Future[Served]]) -> None:
    server = served[name].result()
    assert server.session is not None and len({pid for pid, _ in server.broken}) == 3
    assert sabotaged.unnamed(server.session, server.broken, server.log) == []
    assert sabotaged.switched_off(server.session) != set()
    assert exported.unreadable(server.session) == []


def test_health_names_hooks_that_cannot_read_vllm(served: dict[str, Future[Served]]) -> None:
    server = served["removed"].result()
    assert server.session is not None
    assert sabotaged.switched_off(server.session) >= {"scheduler.schedule", "scheduler.update_from_output"}
    assert exported.unreadable(server.session) == []
