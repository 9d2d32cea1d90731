"""The prefix look-ups' own parts: the table of gone blocks, what older vLLMs look like, and what bounds them."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from profilemate.probe.engine_step import STEP
from profilemate.trackers.prefix_lookups import cache as caches
from profilemate.trackers.prefix_lookups import hooks, orders
from profilemate.trackers.prefix_lookups.remembered import NUM_PARTS, Remembered

BLOCK = 16


class Pool:
    """What the handlers read of a BlockPool of vLLM 0.11: the map is a plain dict, and no size of hashes is named."""

    num_gpu_blocks = 9
    enable_caching = True

    def __init__(self) -> None:
        self.cached_block_hash_to_block: dict[bytes, Any] = {}
        self.free = 8

    def get_num_free_blocks(self) -> int:
        return self.free


class Server:
    """A scheduler and its KVCacheManager, as far as they are looked at."""

    def __init__(self) -> None:
        self.block_pool = Pool()
        self.kv_cache_manager = self
        self.enable_caching = True
        self.block_size = BLOCK
        self.requests: dict[str, Any] = {}

    def ask(self, name: str, asked: int, hit: int = 0, **more: Any) -> Any:
        """A look-up of a request whose block hashes are made of its name."""
        request = self.requests[name] = SimpleNamespace(
            request_id=name, num_tokens=asked, num_prompt_tokens=asked, num_computed_tokens=0,
            block_hashes=[block(name, n) for n in range(asked // BLOCK)], **more,
        )  # fmt: skip
        hooks.looked_up((None, hit), self, request)
        return request

    def schedule(self, **tokens: int) -> None:
        """The end of a schedule() call."""
        for name, count in tokens.items():
            self.requests[name].num_computed_tokens += count
        hooks.step_scheduled(SimpleNamespace(num_scheduled_tokens=tokens), self)


def block(name: str, index: int) -> bytes:
    return f"{name}/{index}".encode().ljust(32, b".")


def key(name: str, index: int) -> bytes:
    return block(name, index) + bytes(4)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    def with_group(block_hash: bytes, group: int) -> bytes:
        return block_hash + group.to_bytes(4, "big")

    utils = SimpleNamespace(make_block_hash_with_group_id=with_group)
    monkeypatch.setitem(sys.modules, "vllm.v1.core.kv_cache_utils", utils)
    hooks.after_fork()
    yield Server()
    hooks.after_fork()
    for stream in STEP.streams:
        stream.pending.clear()


def rows() -> list[dict[str, str]]:
    names = hooks.LOOKUPS.table.columns
    lines = hooks.LOOKUPS.take()[0].decode().splitlines()
    return [dict(zip(names, line.split(","), strict=True)) for line in lines]


def missed(row: dict[str, str]) -> dict[str, int]:
    reasons = ("short", "last", "new", "evicted", "reset", "untaken", "unkept", "unknown", "off")
    return {name: tokens for name in reasons if (tokens := int(row[f"{name}_tokens"]))}


def test_what_is_remembered_is_the_last_time_or_that_it_cannot_be_told() -> None:
    """Against a dict without bounds: what was forgotten is never told as never noted."""
    rng, table, truth = random.Random(3), Remembered(8), dict[int, int]()
    told = forgotten = 0
    for now in range(1, 900):
        some = [rng.randrange(400) for _ in range(rng.randint(1, 20))]
        when = now if rng.random() < 0.9 else -now
        table.add(some, when)
        truth.update(dict.fromkeys(some, when))
        for one, noted in truth.items():
            found = table.value_of(one)
            assert found in (noted, None)
            told += found is not None
            forgotten += found is None
            if found is None:
                assert table.reach >= abs(noted)
        assert sum(len(part) for part in table._parts) < 16 * NUM_PARTS
    assert told > 10_000
    assert forgotten > 10_000


def test_what_never_overflowed_knows_what_is_new() -> None:
    table = Remembered(8)
    table.add([5], 77)
    assert [table.value_of(5), table.value_of(6), table.reach] == [77, 0, 0]


def test_what_was_begun_late_knows_nothing_of_before() -> None:
    table = Remembered(8, reach=50)
    table.add([5], 77)
    assert [table.value_of(5), table.value_of(6), table.reach] == [77, None, 50]


def test_many_at_once_are_spread_over_parts() -> None:
    """A reset drops everything that is cached: more than a part holds."""
    table = Remembered(8)
    table.add(range(8 * NUM_PARTS + 3), -9)
    assert [table.value_of(n) for n in (0, 7, 8 * NUM_PARTS + 2)] == [None, None, -9]
    assert table.reach == 9


def test_evictions_before_vllm_0_24(server: Server) -> None:
    """The hash is read before the call; a block without content, and a pool that is no engine's, are nothing."""
    hooks.scheduler_made(None, server)
    for pool, evicted in ((server.block_pool, True), (Pool(), True), (server.block_pool, False)):
        for index in (0, 1) if pool is server.block_pool and evicted else (2,):
            had = SimpleNamespace(block_hash=key("a", index))
            before = hooks.eviction_begins(pool, had)
            had.block_hash = None
            hooks.eviction_ends(before, evicted, pool, had)
    hooks.eviction_ends(
        hooks.eviction_begins(server.block_pool, SimpleNamespace(block_hash=None)), True, server.block_pool, 0
    )
    server.ask("a", 70)
    server.schedule(a=70)
    assert missed(rows()[0]) == {"evicted": 32, "new": 32, "short": 6}


def test_a_reset_that_fails_drops_nothing(server: Server) -> None:
    hooks.scheduler_made(None, server)
    pool = server.block_pool
    pool.cached_block_hash_to_block.update({key("a", 0): 1, key("a", 1): 2})
    pool.free = 7
    hooks.reset_ends(hooks.reset_begins(pool), False, pool)
    server.ask("a", 33)
    server.schedule(a=33)
    pool.free = 8
    keys = hooks.reset_begins(pool)
    pool.cached_block_hash_to_block.clear()
    hooks.reset_ends(keys, True, pool)
    server.ask("a", 33)
    server.schedule(a=33)
    assert [missed(row) for row in rows()] == [{"untaken": 32, "short": 1}, {"reset": 32, "short": 1}]


def test_a_pool_that_was_there_before_has_no_new_blocks(server: Server) -> None:
    server.block_pool.cached_block_hash_to_block[key("b", 0)] = 1
    server.ask("a", 40)
    server.schedule(a=40)
    row = rows()[0]
    assert missed(row) == {"unknown": 32, "short": 8}
    assert row["reach_ns"]


def test_prompt_logprobs_in_vllm_0_11(server: Server) -> None:
    """No `skip_reading_prefix_cache` there."""
    server.ask("a", 40, sampling_params=SimpleNamespace(prompt_logprobs=2))
    server.ask("b", 40, sampling_params=SimpleNamespace(prompt_logprobs=None))
    server.schedule(a=40, b=40)
    assert [(row["cache_off"], missed(row)) for row in rows()] == [
        ("prompt_logprobs", {"off": 40}),
        ("", {"new": 32, "short": 8}),
    ]


def test_a_request_without_hashes_is_not_told_as_new(server: Server) -> None:
    server.ask("a", 40).block_hashes.clear()
    request = server.ask("b", 40)
    request.block_hashes.clear()
    hooks._kept.clear()
    hooks.looked_up((None, 0), server, request)
    server.schedule(b=40)
    assert missed(rows()[0]) == {"unknown": 32, "short": 8}


def test_no_row_before_there_is_room_and_one_then(server: Server) -> None:
    request = server.ask("a", 70)
    for _ in range(3):
        server.schedule()
        hooks.looked_up((None, 0), server, request)
    assert rows() == []
    server.schedule(a=64)
    assert missed(rows()[0]) == {"new": 64, "short": 6}
    server.schedule(a=6)
    assert rows() == []


def test_what_is_lost_while_a_request_waits_is_looked_at_again(server: Server) -> None:
    hooks.scheduler_made(None, server)
    request = server.ask("a", 70)
    server.schedule()
    hooks.hashes_removed([key("a", 1)], server.block_pool)
    hooks.hashes_removed([key("a", 0)], server.block_pool)
    hooks.looked_up((None, 0), server, request)
    server.schedule(a=70)
    assert missed(rows()[0]) == {"evicted": 32, "new": 32, "short": 6}


def test_a_connector_brings_tokens_while_the_request_waits(server: Server) -> None:
    """Admitted without a scheduled token: all it has is on its way. What is brought was not missed."""
    request = server.ask("a", 100, hit=16)
    request.num_computed_tokens = 80
    server.schedule()
    row = rows()[0]
    assert (row["hit_tokens"], row["external_tokens"], missed(row)) == ("16", "64", {"new": 16, "short": 4})


def test_a_connector_takes_over_the_end_of_a_hit(server: Server) -> None:
    """VLLM 0.30: the partial tail of a local hit is loaded with the rest; the count at admission is right."""
    request = server.ask("a", 100, hit=40)
    hooks.hit_counted(None, server, request, 32)
    request.num_computed_tokens = 64
    server.schedule()
    row = rows()[0]
    assert (row["hit_tokens"], row["external_tokens"], missed(row)) == ("32", "32", {"new": 32, "short": 4})


def test_state_stays_bounded(server: Server) -> None:
    """A scheduler whose schedule() is not vLLM's never admits anything that we see."""
    for number in range(hooks.FRESH_LOOKUPS + 50):
        server.ask(f"r{number}", 20)
    assert len(hooks._fresh) == hooks.FRESH_LOOKUPS
    assert len(hooks._kept) == hooks.KEPT_LOOKUPS


def test_evictions_that_nobody_settles_stay_bounded(server: Server) -> None:
    hooks.scheduler_made(None, server)
    for index in range(hooks.MOST_LEAVING + 9):
        hooks.hashes_removed([key("a", index)], server.block_pool)
    assert len(hooks.cache_of(server).leaving) < 9


def test_a_pool_is_forgotten_when_it_is_gone(server: Server) -> None:
    hooks.scheduler_made(None, server)
    assert len(hooks._caches) == 1
    server.block_pool = Pool()
    assert len(hooks._caches) == 0


def test_keys_that_are_no_bytes_are_refused(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hook then fails and says so; no block is told as new."""
    pair: Callable[[bytes, int], Any] = lambda block_hash, group: (block_hash, group)  # noqa: E731
    monkeypatch.setattr(sys.modules["vllm.v1.core.kv_cache_utils"], "make_block_hash_with_group_id", pair)
    with pytest.raises(TypeError):
        server.ask("a", 40)


def test_the_unit_of_hits_is_read_by_name() -> None:
    pool = SimpleNamespace(hash_block_size=16)

    def unit(**names: Any) -> int:
        coordinator = SimpleNamespace(**names)
        return caches.hit_unit(SimpleNamespace(coordinator=coordinator, block_pool=pool, block_size=8))

    assert unit(_cache_hit_alignment_tokens=64, block_size=32) == 64
    assert unit(lcm_block_size=48) == 48
    assert unit(block_size=32) == 32
    assert unit() == 16
    assert caches.hit_unit(SimpleNamespace(block_pool=SimpleNamespace(), block_size=8)) == 8


def test_full_attention_comes_first_and_uncached_groups_are_left_out(server: Server) -> None:
    class FullAttentionSpec: ...

    class Window: ...

    class Scratch:
        prefix_cacheable = False

    specs = [Window(), Scratch(), type("Latent", (FullAttentionSpec,), {})()]
    config = SimpleNamespace(kv_cache_groups=[SimpleNamespace(kv_cache_spec=spec) for spec in specs])
    manager = SimpleNamespace(kv_cache_config=config)
    assert caches.group_suffixes(manager) == ((b"\0\0\0\2", b"\0\0\0\0"), True)
    config.kv_cache_groups = config.kv_cache_groups[:2]
    assert caches.group_suffixes(manager) == ((b"\0\0\0\0",), False)


def test_a_window_group_that_kept_nothing(server: Server) -> None:
    """Full attention holds two blocks; the other group holds the first, and never had the second."""

    class FullAttentionSpec: ...

    groups = [SimpleNamespace(kv_cache_spec=FullAttentionSpec()), SimpleNamespace(kv_cache_spec=None)]
    server.kv_cache_config = SimpleNamespace(kv_cache_groups=groups)  # type: ignore[attr-defined]
    hooks.scheduler_made(None, server)
    held = [block("a", 0) + bytes(4), block("a", 0) + b"\0\0\0\1", block("a", 1) + bytes(4)]
    server.block_pool.cached_block_hash_to_block.update(dict.fromkeys(held, 1))
    server.ask("a", 70)
    server.schedule(a=70)
    assert missed(rows()[0]) == {"untaken": 16, "unkept": 16, "new": 32, "short": 6}


def test_a_window_group_alone_may_have_kept_a_later_block(server: Server) -> None:
    """Nothing follows from a block that never was there, where not every block is kept."""
    groups = [SimpleNamespace(kv_cache_spec=SimpleNamespace())]
    server.kv_cache_config = SimpleNamespace(kv_cache_groups=groups)  # type: ignore[attr-defined]
    hooks.scheduler_made(None, server)
    hooks.hashes_removed([key("a", 2)], server.block_pool)
    server.ask("a", 70)
    server.schedule(a=70)
    assert missed(rows()[0]) == {"new": 48, "evicted": 16, "short": 6}


def test_long_misses_are_looked_at_in_part(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixty-four blocks of a step's budget: 32 one by one, then every n-th; the sums stay whole."""
    monkeypatch.setattr(hooks, "BLOCKS_PER_STEP", 64)
    hooks.scheduler_made(None, server)
    hooks.cache_of(server).budget = 64
    gone = [key("a", index) for index in range(400)]
    hooks.hashes_removed(gone, server.block_pool)
    for name in ("a", "b"):
        server.ask(name, 500 * BLOCK + 3)
    assert hooks.cache_of(server).budget < 10
    server.schedule(a=1, b=1)
    first, second = rows()
    assert int(first["every"]) == 15  # 468 blocks with 32 looks
    assert abs(int(first["evicted_tokens"]) - 400 * BLOCK) <= 15 * BLOCK
    assert sum(missed(first).values()) == 500 * BLOCK + 3
    assert (second["every"], missed(second)) == ("1", {"new": 500 * BLOCK, "short": 3})
    assert hooks.cache_of(server).budget == 64


def test_many_unknown_blocks_in_a_row_end_the_look(server: Server) -> None:
    server.block_pool.cached_block_hash_to_block[key("b", 0)] = 1
    server.ask("a", 1000 * BLOCK + 1)
    assert hooks.cache_of(server).budget > caches.BLOCKS_PER_STEP - 2 * caches.UNKNOWN_IN_A_ROW
    server.schedule(a=1)
    assert missed(rows()[0]) == {"unknown": 1000 * BLOCK, "short": 1}


def test_orders_take_their_turn(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten blocks a step; a row counts as four. A prompt that was written is not written again."""
    monkeypatch.setattr(orders, "BLOCKS_PER_STEP", 10)
    written = []
    for name, asked in (("a", 13 * BLOCK), ("b", BLOCK), ("a", 13 * BLOCK), ("c", 5)):
        server.ask(name, asked)
        server.schedule(**{name: asked})
        written.append(block_rows())
    while hooks.ORDERS.waiting:
        server.schedule()
        written.append(block_rows())
    assert written == [[("1", 0, 10)], [("1", 10, 3), ("2", 0, 1)], [("3", 13, 0)], []]


def block_rows() -> list[tuple[str, int, int]]:
    lines = hooks.BLOCKS.take()[0].decode().splitlines()
    cells = [line.split(",") for line in lines]
    return [(one[2], int(one[5]), len(one[7].split())) for one in cells]


def test_a_full_queue_leaves_blocks_out_and_says_so(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orders, "WAITING_BLOCKS", 20)
    for name in ("a", "b"):
        server.ask(name, 12 * BLOCK)
    server.schedule(a=1, b=1)
    found = rows()
    assert [row["unwritten_blocks"] for row in found] == ["0", "12"]
    hooks.write_totals()
    total = hooks.TOTALS.take()[0].decode().splitlines()[0].split(",")
    assert total[1:6] == [found[0]["engine"], "False", "2", "2", "384"]
    assert total[-1] == "12"
