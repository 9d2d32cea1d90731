"""Freed blocks of every kind, in one call: counted as a plain loop over vLLM's rules counts them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from profilemate.probe.engine_step import STEP
from profilemate.trackers.kv_cache import hooks

NUM_BLOCKS = 12


@dataclass
class Block:
    """What vLLM's have."""

    block_id: int
    ref_cnt: int
    _block_hash: bytes | None
    is_null: bool
    pool: Any = None

    @property
    def block_hash(self) -> bytes | None:
        """As vLLM's, a property over the attribute."""
        return self._block_hash


class Pool:
    """A BlockPool as the handlers see it; `free_blocks` is vLLM 0.32's."""

    num_gpu_blocks = NUM_BLOCKS
    enable_caching = True
    cached_block_hash_to_block: dict[Any, Any] = {}  # noqa: RUF012 - never changed

    def __init__(self, chance: random.Random) -> None:
        self.blocks = [
            Block(number, chance.choice([1, 1, 2, 3]), chance.choice([None, b"hash"]), is_null=number == 0)
            for number in range(NUM_BLOCKS)
        ]
        self.free: list[Block] = []

    def get_num_free_blocks(self) -> int:
        return len(self.free)

    def free_blocks(self, blocks: list[Block]) -> None:
        for block in blocks:
            if block.pool in (None, self):
                block.ref_cnt -= 1
                if block.ref_cnt == 0 and not block.is_null:
                    self.free.append(block)


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    hooks.after_fork()
    yield
    hooks.after_fork()
    for stream in STEP.streams:
        stream.pending.clear()


def some_of(pool: Pool, chance: random.Random) -> list[Block]:
    """Blocks of one call: often some without a null block or a shared one, at times one twice."""
    held = [block for block in pool.blocks if block.ref_cnt > 0]
    if chance.random() < 0.5:
        held = [block for block in held if block.ref_cnt == 1 and not block.is_null]
    blocks = chance.sample(held, chance.randrange(len(held) + 1))
    again = [block for block in blocks if block.ref_cnt > 1]
    return [*blocks, *again[: chance.randrange(2)]]


@pytest.mark.parametrize("pools", [1, 2])
def test_whatever_is_freed_is_counted_as_a_loop_counts_it(pools: int) -> None:
    for seed in range(400):
        chance = random.Random(seed)
        pool, *others = [Pool(chance) for _ in range(pools)]
        for one in (pool, *others):
            hooks.pool_made(None, one)
        state = hooks.state_of(pool)
        released = freed = cached = 0
        for _ in range(4):
            blocks = some_of(pool, chance)
            for other in others:
                for block in other.blocks:
                    block.pool = other
                blocks += chance.sample(other.blocks, chance.randrange(3))
            before = hooks.free_begins(pool, blocks)
            pool.free_blocks(blocks)
            hooks.blocks_freed(before, None, pool, blocks)
            released += sum(block.pool in (None, pool) and not block.is_null for block in blocks)
            freed = len(pool.free)
            cached = sum(block.block_hash is not None for block in pool.free)
            assert (state.released, state.freed, state.cached_free) == (released, freed, cached), seed
