"""Scenes for the prefix look-ups, each on a scheduler of its own, in one process that kills itself at the end.

    python tests/driver/drive_lookups.py OUT.json

Writes what each scene knows to OUT.json: expected rows of its engine (the number of a scene is that of its engine).
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import sys
import time
import trace as traces
import tracemalloc
from collections import deque
from pathlib import Path
from typing import Any

import drive
import lookup_oracle

BLOCK = 16


class Play:
    """A scheduler on which requests are run one after the other, or step by step."""

    def __init__(self, *arguments: str, longest: int = 4000) -> None:
        self.options = drive.parse(["--block-size", str(BLOCK), *arguments])
        self.scheduler = drive.make_scheduler(self.options, longest)
        self.requests = drive.Requests([], BLOCK)
        self.driver = drive.Driver(self.scheduler, self.requests, self.options)
        self.in_flight: deque[Any] = deque()
        self.made: list[Any] = []

    def add(self, prompt: list[int], output: int = 1, **sampling: Any) -> Any:
        """A request that waits. `pooling` makes it one of a pooling model."""
        from vllm.sampling_params import SamplingParams
        from vllm.v1.request import Request

        request = Request(
            request_id=f"q{len(self.made)}", prompt_token_ids=list(prompt),
            sampling_params=SamplingParams(max_tokens=output, ignore_eos=True, temperature=0.0, **sampling),
            pooling_params=None, block_hasher=self.requests.hasher,
        )  # fmt: skip
        self.made.append(request)
        self.scheduler.add_request(request)
        return request

    def step(self) -> Any:
        """One engine step."""
        scheduled = self.scheduler.schedule()
        self.scheduler.update_from_output(scheduled, self.driver._model_output(scheduled))
        return scheduled

    def run(self, prompt: list[int], output: int = 1, **sampling: Any) -> Any:
        """A request from its beginning to its end."""
        request = self.add(prompt, output, **sampling)
        while self.scheduler.has_requests():
            self.step()
        return request


def tokens(seed: int, count: int) -> list[int]:
    """Tokens that no other seed has."""
    return traces.expand(range(seed * 10_000, seed * 10_000 + count // BLOCK + 1), BLOCK, count)


def row(asked: int, hit: int = 0, **more: Any) -> dict[str, Any]:
    """An expected row: what is not given is 0."""
    return {"asked": asked, "hit": hit, **more}


def by_hand() -> dict[str, Any]:
    """Shared, short, evicted, invalidated and reset prefixes, one after the other: 20 blocks of 16 tokens."""
    play = Play("--blocks", "21")
    a, b = tokens(1, 40), tokens(2, 320)
    rows = []

    def ask(prompt: list[int], expected: dict[str, Any], **sampling: Any) -> None:
        play.run(prompt, **sampling)
        rows.append(expected)

    ask(a, row(40, new=32, short=8))
    ask(a, row(40, 32, short=8))
    ask(a[:32] + tokens(3, 16), row(48, 32, last=16))
    ask(a[:32], row(32, 16, last=16))
    ask(tokens(4, 10), row(10, short=10))
    ask(a[:32] + tokens(3, 16) + tokens(5, 20), row(68, 48, new=16, short=4))
    before = time.monotonic_ns()
    time.sleep(0.02)
    ask(b, row(320, new=304, last=16))  # all 20 blocks
    evicted = time.monotonic_ns()
    time.sleep(0.05)
    ask(a, row(40, evicted=32, short=8, evicted_between=(before, evicted)))
    ask(a, row(40, 32, short=8))
    assert play.scheduler.reset_prefix_cache()
    ask(a, row(40, reset=32, short=8))
    ask(a, row(40, 32, short=8))
    ask(b[:100], row(100, reset=96, short=4))
    pool = play.scheduler.kv_cache_manager.block_pool
    first = next(
        block for block in pool.blocks if block.block_hash and block.block_hash[:-4] == play.made[0].block_hashes[0]
    )
    pool.evict_blocks({first.block_id})
    ask(a, row(40, evicted=16, untaken=16, short=8))
    ask(a, row(40, off=40, cache_off="request"), skip_reading_prefix_cache=True)
    ask(a, row(40, off=40, cache_off="prompt_logprobs"), prompt_logprobs=1)
    ask(a, row(40, 32, short=8))
    return {"rows": rows}


def caching_off() -> dict[str, Any]:
    """A server without a prefix cache."""
    play = Play("--blocks", "21", "--no-caching")
    play.run(tokens(1, 40))
    play.run(tokens(1, 40))
    return {"rows": [row(40, off=40, cache_off="server")] * 2}


def pooling() -> dict[str, Any]:
    """A pooling request that wants every token's vector."""
    from vllm.pooling_params import PoolingParams
    from vllm.v1.request import Request

    play = Play("--blocks", "21")
    play.run(tokens(1, 40))
    params = PoolingParams(task="token_embed", skip_reading_prefix_cache=True)
    play.scheduler.add_request(
        Request(
            request_id="pooled", prompt_token_ids=tokens(1, 40), sampling_params=None, pooling_params=params,
            block_hasher=play.requests.hasher,
        )
    )  # fmt: skip
    play.scheduler.schedule()
    play.scheduler.finish_requests(["pooled"], _aborted())
    play.run(tokens(1, 40))
    return {"rows": [row(40, new=32, short=8), row(40, off=40, cache_off="pooling"), row(40, 32, short=8)]}


def _aborted() -> Any:
    from vllm.v1.request import RequestStatus

    return RequestStatus.FINISHED_ABORTED


def lru_model() -> dict[str, Any]:
    """Four hundred requests, one after the other, against a model of the cache that does not ask vLLM."""
    play, model, rng = Play("--blocks", "41"), lookup_oracle.Lru(41, BLOCK), random.Random(5)
    rows = []
    for _ in range(400):
        shared, own = rng.randrange(6), rng.randrange(30)
        prompt = tokens(10 + shared, 16 * rng.randint(0, 12)) + tokens(100 + own, rng.randint(1, 200))
        if rng.random() < 0.03 and play.scheduler.reset_prefix_cache():
            model.reset()
        play.run(prompt)
        rows.append({"asked": len(prompt), **model.run(prompt)})
    return {"rows": rows}


def small_table() -> dict[str, Any]:
    """Eight blocks that left the cache are remembered: most must be told as unknown, none of the gone ones as new."""
    from profilemate.trackers.prefix_lookups import cache

    per_part, cache.GONE_PER_PART = cache.GONE_PER_PART, 1
    play, rng = Play("--blocks", "21"), random.Random(6)
    cache.GONE_PER_PART = per_part
    watcher = lookup_oracle.Watcher(play.scheduler, BLOCK)
    for _ in range(120):
        play.run(tokens(10 + rng.randrange(8), rng.randint(20, 200)))
    return {"truth": watcher.rows}


def admitted_late() -> dict[str, Any]:
    """Requests that find no room for many steps are looked up in each of them, and have one row; some are preempted."""
    play = Play("--blocks", "41", "--max-num-seqs", "8")
    watcher = lookup_oracle.Watcher(play.scheduler, BLOCK)
    for number in range(14):
        play.add(tokens(1 + number % 5, 150 + 17 * number), output=60)
    while play.scheduler.has_requests():
        play.step()
    assert watcher.lookups > 3 * len(watcher.rows)
    assert any(one["resumed"] for one in watcher.rows)
    return {"exact": watcher.dated_rows()}


def random_trace(*arguments: str) -> dict[str, Any]:
    """The driver's own trace under a watcher, with vLLM's own statistics."""
    options = drive.parse(["--block-size", str(BLOCK), *arguments])
    trace = drive.make_trace(options)
    scheduler = drive.make_scheduler(options, max(len(one.prompt) + one.output_length for one in trace))
    watcher = lookup_oracle.Watcher(scheduler, BLOCK)
    driver = drive.Driver(scheduler, drive.Requests(trace, BLOCK), options)
    make = scheduler.kv_cache_manager.make_prefix_cache_stats

    def watched() -> Any:
        stats = make()
        for name in ("requests", "queries", "hits", "preempted_requests", "preempted_queries", "preempted_hits"):
            watcher.stats[name] += getattr(stats, name)
        return stats

    scheduler.kv_cache_manager.make_prefix_cache_stats = watched
    driver.run()
    watched()
    return {"exact": watcher.dated_rows(), "vllm": watcher.stats}


def connector() -> dict[str, Any]:
    """A KV connector brings 64 tokens beyond what the cache holds; its store is the test's."""
    from unittest.mock import MagicMock

    play = Play("--blocks", "41")
    play.run(tokens(1, 40))
    stub = MagicMock()
    stub.supports_divergent_local_hybrid_hits = False
    stub.get_num_new_matched_tokens.side_effect = lambda request, local: (64, False)
    stub.get_external_cache_hit_sources.return_value = None
    stub.request_finished.return_value = (False, None)
    play.scheduler.connector = stub
    play.add(tokens(1, 32) + tokens(2, 118))
    play.scheduler.schedule()
    return {"rows": [row(40, new=32, short=8), row(150, 32, external=64, new=48, short=6)]}


LONG = 131_072


def keyed_text(block_hash: bytes) -> str:
    """How a block must be written: nobody can compute it without the session's secret."""
    secret = os.environ["PROFILEMATE_SESSION_SECRET"].encode()
    return hashlib.blake2b(block_hash, key=secret, digest_size=8).hexdigest()


def long_prompt() -> dict[str, Any]:
    """A prompt of 128k tokens, then the same with another end after the first was evicted: work and memory per step."""
    from profilemate.trackers.prefix_lookups import hooks, orders

    play = Play("--blocks", "8300", "--max-num-batched-tokens", "8192", longest=LONG + 100)
    keyed: list[int] = []
    original = orders.hash_texts

    def counting(data: Any) -> list[str]:
        keyed[-1] += len(data)
        return original(data)

    orders.hash_texts = counting
    schedule = play.scheduler.schedule

    def counted(*arguments: Any) -> Any:
        keyed.append(0)
        return schedule(*arguments)

    play.scheduler.schedule = counted
    prompts = [tokens(20, LONG), tokens(21, LONG), tokens(20, LONG - 16) + tokens(22, 40), tokens(20, LONG)]
    hashes, waiting = [], []
    tracemalloc.start()
    for prompt in prompts:
        request = play.run(prompt, output=60)
        hashes.append([keyed_text(one) for one in request.block_hashes[: len(prompt) // BLOCK]])
        waiting.append(len(hooks.ORDERS.waiting))
    kept = tracemalloc.take_snapshot().filter_traces([tracemalloc.Filter(True, "*/prefix_lookups/*")])
    tracemalloc.stop()
    orders.hash_texts = original
    return {
        "keyed_per_step": keyed, "orders": hashes, "waiting": waiting, "steps": len(keyed),
        "kept_bytes": sum(one.size for one in kept.statistics("filename")), "limit": orders.BLOCKS_PER_STEP,
    }  # fmt: skip


def too_many() -> dict[str, Any]:
    """More blocks at once than may wait: left out and counted."""
    from profilemate.trackers.prefix_lookups import orders

    most, orders.WAITING_BLOCKS = orders.WAITING_BLOCKS, 50
    play = Play("--blocks", "400", "--max-num-batched-tokens", "8192")
    for seed in (30, 31, 32):
        play.add(tokens(seed, 640))
    play.step()
    while play.scheduler.has_requests():
        play.step()
    orders.WAITING_BLOCKS = most
    return {"rows": [row(640, new=624, last=16), *2 * [row(640, new=624, last=16, unwritten=40)]]}


SCENES = {
    "by_hand": by_hand,
    "caching_off": caching_off,
    "pooling": pooling,
    "lru_model": lru_model,
    "small_table": small_table,
    "admitted_late": admitted_late,
    "default": lambda: random_trace("--requests", "120", "--blocks", "200"),
    "async": lambda: random_trace("--requests", "120", "--blocks", "200", "--async"),
    "hybrid": lambda: random_trace("--requests", "120", "--blocks", "250", "--hybrid"),
    "resets": lambda: random_trace("--requests", "120", "--blocks", "300", "--reset-every", "60"),
    "connector": connector,
    "too_many": too_many,
    "long_prompt": long_prompt,
}


def main(out: Path) -> None:
    """Play every scene, write what is known and die as an EngineCore does when its server stops."""
    os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    known = {}
    kept = []
    for number, (name, scene) in enumerate(SCENES.items()):
        began = time.monotonic()
        known[name] = {"engine": number, **scene()}
        kept.append(scene)
        print(f"{name}: {time.monotonic() - began:.1f} s", file=sys.stderr)
    out.write_text(json.dumps(known))
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
