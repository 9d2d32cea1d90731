"""vLLM's own BlockPool used as HiSparse and KV connectors use it, which no scheduler trace does: counts against a full scan."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import environment
import pytest

SCRIPT = """
import json, sys
from vllm.v1.core.block_pool import BlockPool
from profilemate.trackers.kv_cache.hooks import settle, state_of

def scan(pool):
    free = [block for block in pool.blocks if block.ref_cnt == 0 and not block.is_null]
    return sum(1 for block in free if block.block_hash is not None)

def make(caching=True):
    return BlockPool(num_gpu_blocks=9, enable_caching=caching, hash_block_size=16)

def give_content(block):
    pool._insert_block_hash(b"hash%d" % block.block_id + bytes(4), block, 16)

found = {}
def note(name):
    state = state_of(pool)
    settle(state)  # evictions are added up at the end of a step
    found[name] = [state.cached_free, scan(pool), state.released, state.freed, state.allocated, state.evicted]

pool = make()
blocks = pool.get_new_blocks(4)
give_content(blocks[0])
pool.unpin_blocks(blocks[:2], lambda block: None)
note("unpinned: one with content, one without")
pool.touch(blocks[:2])
note("both taken again")
pool.free_blocks(iter(blocks))
note("freed")
pool.get_new_blocks(8)
note("handed out again")

pool = make(caching=False)
blocks = pool.get_new_blocks(2)
pool.unpin_blocks(blocks, lambda block: None)
pool.touch(blocks)
note("without prefix caching")

other = make()
pool = make()
blocks, theirs = pool.get_new_blocks(2), other.get_new_blocks(3)
pool.free_blocks([*theirs, *blocks])
note("blocks of another pool in one call")
pool = other
note("the other pool")
found["numbers"] = state_of(other).number < state_of(make()).number
json.dump(found, sys.stdout)
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder: Path = tmp_path_factory.mktemp("pools")
    env = environment.profiled(folder)
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(json.loads(done.stdout.splitlines()[-1]))


def test_free_blocks_with_content_are_those_of_a_full_scan(found: dict[str, Any]) -> None:
    assert {name: row[:1] for name, row in found.items() if isinstance(row, list)} == {
        name: row[1:2] for name, row in found.items() if row is not True
    }


def test_each_pool_counts_its_own_blocks(found: dict[str, Any]) -> None:
    assert found["blocks of another pool in one call"][2:4] == [2, 2]
    assert found["the other pool"][2:4] == [3, 3]
    assert found["numbers"] is True


def test_only_content_that_is_dropped_is_an_eviction(found: dict[str, Any]) -> None:
    assert found["freed"][5] == 0 and found["handed out again"][5] == 1
