"""Evictions of blocks that nobody saw being handed out: vLLM has code that takes blocks past BlockPool's methods."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from profilemate.probe import engine_step
from profilemate.probe.engine_step import STEP, Engine
from profilemate.trackers.kv_cache import events, hooks

SELDOM = events.STEPS.columns[events.STEPS.columns.index(events.FIRST_SELDOM) :]


class Pool:
    """What the handlers read of a BlockPool."""

    num_gpu_blocks = 9
    enable_caching = True

    def __init__(self) -> None:
        self.blocks = [SimpleNamespace(block_id=n, ref_cnt=0, block_hash=None, is_null=n == 0) for n in range(9)]
        self.cached_block_hash_to_block: dict[Any, Any] = {}
        self.free = 8

    def get_num_free_blocks(self) -> int:
        return self.free


@pytest.fixture
def pool() -> Iterator[Pool]:
    """A pool that is an engine's."""
    hooks.after_fork()
    one = Pool()
    hooks.pool_made(None, one)
    hooks.state_of(one).engine = Engine(0)
    yield one
    hooks.after_fork()
    for stream in STEP.streams:
        stream.pending.clear()


def rows() -> list[list[str]]:
    return [line.split(",") for line in hooks.EVICTIONS.take()[0].decode().splitlines()]


def test_a_block_handed_out_unseen_has_no_times_and_counts(pool: Pool) -> None:
    seen, unseen = pool.blocks[1], pool.blocks[2]
    hooks.blocks_allocated([seen], pool)
    hooks._dropped.extend([seen, unseen])
    hooks.blocks_allocated([seen, unseen], pool)
    state = hooks.state_of(pool)
    hooks.settle(state)
    assert (state.evicted, state.timed_evictions) == (2, 1)
    assert state.lifetime_ns == state.idle_ns > 0
    made = rows()
    assert [row[2:] for row in made if row[2] == "2"] == [["2", "", "", "allocation"]]
    assert [int(row[0]) - int(row[3]) for row in made if row[2] == "1"] == [state.lifetime_ns]


def test_only_what_the_call_handed_out_was_evicted_by_it(pool: Pool) -> None:
    """Mamba checkpoints of vLLM 0.33 drop content by themselves; the next allocation is not to blame."""
    pool.blocks[3].ref_cnt = 1
    hooks._dropped.extend([pool.blocks[3], pool.blocks[4]])
    hooks.blocks_allocated([pool.blocks[4]], pool)
    hooks.settle(hooks.state_of(pool))
    assert sorted((row[2], row[5]) for row in rows()) == [("3", "other"), ("4", "allocation")]
    assert hooks.state_of(pool).evicted == 2
    assert len(hooks._dropped) == 0


def test_a_pool_that_is_gone_is_forgotten(pool: Pool) -> None:
    other = Pool()
    hooks.pool_made(None, other)
    assert len(hooks._pools) == 2
    del other
    assert len(hooks._pools) == 1


@pytest.mark.parametrize("tells", [True, False])
def test_preemptions_are_counted_where_the_version_has_a_method_for_them(pool: Pool, tells: bool) -> None:
    """VLLM 0.11 preempts in the middle of `schedule`, where nobody sees it: that is not zero."""
    attributes: dict[str, Any] = {"kv_cache_manager": SimpleNamespace(block_pool=pool)}
    scheduler = type("Scheduler", (), attributes | ({"_preempt_request": None} if tells else {}))()
    hooks.state_of(pool).engine = None
    engine_step.after_fork()
    hooks.scheduler_made(None, scheduler)
    cells = hooks.state_of(pool).seldom_cells().split(",")
    assert cells[SELDOM.index("preemptions")] == ("0" if tells else "None")
