"""Counters of one BlockPool, kept by block id beside vLLM's own objects, which take no attributes of ours."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from profilemate.probe.engine_step import Engine
from profilemate.probe.process import THIS
from profilemate.schema.step_table import BASE
from profilemate.trackers.kv_cache import events

CELLS = events.STEPS.columns[len(BASE.columns) :]
NUM_OFTEN = CELLS.index(events.FIRST_SELDOM)
STEP_CELLS = "%s," * NUM_OFTEN + "%s"
SELDOM_CELLS = ",".join(["%s"] * (len(CELLS) - NUM_OFTEN))

UNKNOWN = None
"""Birth of a block that was handed out before ProfileMate saw the pool."""


class PoolState:
    """What happened to one pool so far. The null block is never counted. Times are monotonic nanoseconds."""

    def __init__(self, pool: Any, number: int) -> None:
        """Begin with the state that the pool has now."""
        self.number = number
        self.num_blocks = int(pool.num_gpu_blocks)
        self.total = self.num_blocks - 1
        self.births: list[int | None] = [UNKNOWN] * self.num_blocks
        self.accesses: list[int | None] = [UNKNOWN] * self.num_blocks
        self.evictions: list[Any] = []
        self.next_row = THIS.settings.log_interval
        self.step_at_row = -1
        self.engine: Engine | None = None
        self.allocated = self.touched = self.touched_free = self.released = 0
        self.freed = self.evicted = self.lifetime_ns = self.idle_ns = 0
        self.timed_evictions = self.failed_allocations = self.resets = 0
        self.preemptions: int | None = 0
        self.query_requests = self.query_tokens = self.hit_tokens = self.preempted_query_tokens = 0
        self.preempted_hit_tokens = self.operations = self.busy_steps = self.output_steps = 0
        self.scheduled_tokens = self.prompt_tokens = self.step = self.peak_time_ns = 0
        self.peak_reported = 0
        self.seldom = ""
        self.hash_of = hash_getter(pool)
        self.cached_free = count_cached_free(pool)
        self.step_peak = self.peak = self.total - pool.get_num_free_blocks()

    def note_use(self, in_use: int, now_ns: int) -> None:
        """Keep the peaks; called whenever blocks were taken."""
        if in_use > self.step_peak:
            self.step_peak = in_use
            if in_use > self.peak:
                self.peak = in_use
                self.peak_time_ns = now_ns
                self.seldom = ""

    def step_cells(self, pool: Any) -> str:
        """Our cells of the row of a step; the next step's peak begins with the blocks in use now."""
        free = pool.get_num_free_blocks()
        in_use = self.total - free
        step_peak, self.step_peak = self.step_peak, in_use
        return STEP_CELLS % (
            self.total, in_use, self.cached_free, free - self.cached_free, step_peak,
            self.allocated, self.released, self.freed, self.evicted, self.lifetime_ns, self.idle_ns,
            self.timed_evictions, self.failed_allocations, self.operations, self.busy_steps, self.output_steps,
            self.scheduled_tokens, self.seldom or self.seldom_cells(),
        )  # fmt: skip

    def seldom_cells(self) -> str:
        """The cells that change in few steps; who changes one of them empties `seldom`."""
        self.seldom = SELDOM_CELLS % (
            self.peak, self.peak_time_ns, self.touched, self.touched_free, self.preemptions, self.resets,
            self.query_requests, self.query_tokens, self.hit_tokens, self.preempted_query_tokens,
            self.preempted_hit_tokens, self.prompt_tokens,
        )  # fmt: skip
        return self.seldom


def hash_getter(pool: Any) -> Callable[[Any], Any]:
    """What tells the hash of a block, or None: a property in Python, which is asked for the attribute behind it."""
    block = next(iter(getattr(pool, "blocks", ())), None)
    return operator.attrgetter("_block_hash" if hasattr(block, "_block_hash") else "block_hash")


def count_cached_free(pool: Any) -> int:
    """Free blocks with content, by looking at every block: only for a pool that is met in the middle of its life."""
    if getattr(pool, "cached_block_hash_to_block", None) is not None and not len_of(pool.cached_block_hash_to_block):
        return 0
    return sum(1 for block in pool.blocks if block.ref_cnt == 0 and not block.is_null and block.block_hash is not None)


def len_of(container: Any) -> int:
    """Its length, or 1 where it has none (the map of older versions): then the blocks are looked at."""
    try:
        return len(container)
    except TypeError:
        return 1
