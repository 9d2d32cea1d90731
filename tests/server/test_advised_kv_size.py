"""The hit rate predicted for another number of blocks, looked up on a real server that was run with it.

One client sends the same requests in the same order to both servers, so that the two differ in their blocks alone.
"""

from __future__ import annotations

import random
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import environment
import pytest
import server as servers
import streams

import profilemate
from profilemate.advise import kv_cache_size
from profilemate.advise.finding import Finding
from profilemate.frames.session import Session

pytestmark = pytest.mark.server

BEFORE, AFTER = 40, 100
"""Blocks, the null block included."""
REQUESTS, CONVERSATIONS = 110, 12
WITHIN = 0.02


def prompts(rng: random.Random) -> Iterator[list[int]]:
    """Next turns of twelve conversations, each with a beginning that it shares with some others."""
    systems = [[rng.randint(10, 4000) for _ in range(tokens)] for tokens in (100, 150, 230)]
    talks = [list(systems[number % 3]) for number in range(CONVERSATIONS)]
    for _ in range(REQUESTS):
        number = min(rng.randrange(CONVERSATIONS), rng.randrange(CONVERSATIONS))
        if len(talks[number]) > 500:
            talks[number] = list(systems[number % 3])
        talks[number] += [rng.randint(10, 4000) for _ in range(rng.randint(10, 90))]
        yield talks[number]


def serve(model: Path, folder: Path, blocks: int) -> tuple[Session, float]:
    """A server's life under the load; the hit rate is of its own metrics. Again where the machine was too slow for rows."""
    for attempt in range(3):
        session, rate = serve_once(model, folder / str(attempt), blocks)
        if not streams.all_rows(session, "gaps", "EngineCore"):
            break
    return profilemate.open(session), rate


def serve_once(model: Path, folder: Path, blocks: int) -> tuple[Path, float]:
    folder.mkdir()
    rng = random.Random(11)
    env = environment.profiled(folder, PROFILEMATE_TRACKERS="default,prefix_lookups")
    options = ("--num-gpu-blocks-override", str(blocks), "--max-model-len", "1024")
    with servers.start(model, env, folder / "log", *options) as server:
        for prompt in prompts(rng):
            server.complete(prompt, rng.randint(1, 4))
        hits, queries = (server.metric(f"prefix_cache_{name}_total") for name in ("hits", "queries"))
        server.stop(signal.SIGTERM)
    return streams.only_session(folder), hits / queries


class Two(NamedTuple):
    """Two sessions and what vLLM's own metrics said."""

    before: Session
    after: Session
    rate_before: float
    rate_after: float

    @property
    def finding(self) -> Finding:
        """The prediction from the first one."""
        return next(one for one in kv_cache_size.advise(self.before) if one.name == "kv_cache_size.hit_rate")


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Two:
    before, rate_before = serve(tiny_model, tmp_path_factory.mktemp("before"), BEFORE)
    after, rate_after = serve(tiny_model, tmp_path_factory.mktemp("after"), AFTER)
    return Two(before, after, rate_before, rate_after)


def test_the_sizes_differ_in_what_is_found(two: Two) -> None:
    assert two.rate_after - two.rate_before > 3 * WITHIN


def test_the_hit_rate_is_within_two_points_of_the_prediction(two: Two) -> None:
    assert kv_cache_size.differences(two.finding, two.after) == []
    (verdict,) = kv_cache_size.verify(two.finding, two.after)
    assert verdict.observed == pytest.approx(100 * two.rate_after)
    assert abs(verdict.predicted / 100 - two.rate_after) < WITHIN
    assert verdict.holds and "another load" not in verdict.says


def test_the_replay_at_the_recorded_size_is_what_the_servers_metric_says(two: Two) -> None:
    sizes = {one["factor"]: one for one in two.finding.numbers["sizes"]}
    assert sizes[1.0]["usable_blocks"] == BEFORE - 1
    assert sizes[1.0]["hit_rate"] == pytest.approx(two.rate_before, abs=0.001)


def test_it_predicts_back_as_well(two: Two) -> None:
    """From the larger cache to the smaller one."""
    finding = next(one for one in kv_cache_size.advise(two.after) if one.name == "kv_cache_size.hit_rate")
    (verdict,) = kv_cache_size.verify(finding, two.before)
    assert verdict.low <= 100 * two.rate_before <= verdict.high
