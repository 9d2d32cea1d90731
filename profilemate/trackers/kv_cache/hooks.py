"""Hooks on vLLM's BlockPool, KVCacheManager and Scheduler, and the rows that they make.

Usage is read from the pool's own free count, never derived from events: some vLLM code takes blocks past BlockPool's
methods. An eviction is counted from the result of `_maybe_evict_cached_block`, which is true only if content was dropped;
vLLM's own collector counts every block that is handed out again.
"""

from __future__ import annotations

import time
from typing import Any

from profilemate.probe.hook import (
    Argument,
    Hook,
    around,
    around_iterable,
    following,
    following_none,
    following_true,
    scope,
)
from profilemate.probe.process import THIS
from profilemate.trackers.kv_cache import events
from profilemate.trackers.kv_cache.pool import UNKNOWN, PoolState

_pools: dict[int, PoolState] = {}
_engines = 0
_pools_met = 0
_next_other_pools_ns = 0

STEPS = THIS.writer.stream(events.STEPS)
USAGE = THIS.writer.stream(events.USAGE)
EVICTIONS = THIS.writer.stream(events.EVICTIONS)
OTHER_POOLS = THIS.writer.stream(events.OTHER_POOLS)


def state_of(pool: Any) -> PoolState:
    """The counters of a pool; a pool that was there before us is met here."""
    global _pools_met
    state = _pools.get(id(pool))
    if state is None or state.ref() is not pool:
        state = _pools[id(pool)] = PoolState(pool, _pools_met)
        _pools_met += 1
    return state


def count_operation(state: PoolState, in_use: int, now_ns: int) -> None:
    """A BlockPool call changed the free count; every LOG_INTERVAL of them make a usage row."""
    state.operations += 1
    if state.operations % THIS.settings.log_interval == 0 and state.engine is not None:
        USAGE.add((now_ns, state.engine, "interval", in_use, state.total))


# -- BlockPool ----------------------------------------------------------------------------------------------------------


def pool_made(token: None, result: Any, args: Any, kwargs: Any) -> None:
    """Know a new pool from its first block on."""
    state_of(args[0])


class PoolCall:
    """The `get_new_blocks` or `evict_blocks` that is running, and the blocks whose content it has dropped so far.

    They are counted together when it returns: the hook on each single eviction is on vLLM's path once per block.
    """

    def __init__(self) -> None:
        """None is running."""
        self.forget()

    def forget(self) -> None:
        """None is running: also for a forked child."""
        self.state: PoolState | None = None
        self.pool_id = 0
        self.dropped: list[Any] = []

    def begin(self, pool: Any, cause: str) -> PoolState:
        """Evictions of this pool from here on have this cause."""
        if self.dropped:
            self.settle()
        state = self.state = state_of(pool)
        self.pool_id = id(pool)
        state.cause = cause
        return state

    def settle(self) -> None:
        """Count what was dropped; the births are still those of the lives that ended."""
        if self.state is not None and self.dropped:
            count_evictions(self.state, self.dropped, time.monotonic_ns())
            self.dropped.clear()

    def end(self) -> None:
        """The call returned."""
        if self.state is not None:
            self.settle()
            self.state.cause = ""
        self.state, self.pool_id = None, 0


CALL = PoolCall()


def allocation_begins(args: Any, kwargs: Any) -> PoolState:
    """Evictions from here on make room for new blocks."""
    return CALL.begin(args[0], "allocation")


def blocks_allocated(state: PoolState, blocks: Any, args: Any, kwargs: Any) -> None:
    """`get_new_blocks` handed out blocks: their lives begin."""
    CALL.end()
    if not blocks:
        return
    now = time.monotonic_ns()
    births, accesses = state.births, state.accesses
    for block in blocks:
        block_id = block.block_id
        births[block_id] = now
        accesses[block_id] = now
    state.allocated += len(blocks)
    in_use = state.total - args[0].get_num_free_blocks()
    state.note_use(in_use, now)
    count_operation(state, in_use, now)


EVICTED_BLOCK = Argument("block")


def block_evicted(token: None, result: Any, args: Any, kwargs: Any) -> None:
    """`_maybe_evict_cached_block` dropped a block's content."""
    if id(args[0]) == CALL.pool_id:
        CALL.dropped.append(EVICTED_BLOCK.of(args, kwargs))
    else:
        count_evictions(state_of(args[0]), [EVICTED_BLOCK.of(args, kwargs)], time.monotonic_ns())


def count_evictions(state: PoolState, blocks: list[Any], now: int) -> None:
    """Count evictions of one moment. Blocks that are being handed out were free; others tell by their references."""
    births, accesses, engine = state.births, state.accesses, state.engine
    cause = state.cause or "other"
    handed_out = cause == "allocation"
    lifetimes = idles = unknown = freed = 0
    for block in blocks:
        block_id = block.block_id
        birth = births[block_id]
        lifetime: int | None = now - birth
        idle: int | None = now - accesses[block_id]
        if birth == UNKNOWN:
            lifetime = idle = None
            unknown += 1
        else:
            lifetimes += now - birth
            idles += now - accesses[block_id]
        if handed_out or block.ref_cnt == 0:
            freed += 1
        if engine is not None:
            EVICTIONS.add((now, engine, block_id, lifetime, idle, cause))
    state.evicted += len(blocks)
    state.timed_evictions += len(blocks) - unknown
    state.lifetime_ns += lifetimes
    state.idle_ns += idles
    state.cached_free -= freed


TOUCHED_BLOCKS = Argument("blocks")


def touch_begins(args: Any, kwargs: Any) -> int:
    """Free blocks before a prefix hit takes some of them."""
    return int(args[0].get_num_free_blocks())


def blocks_touched(free_before: int, result: Any, args: Any, kwargs: Any) -> None:
    """A prefix hit re-uses blocks, free ones or those of running requests."""
    pool = args[0]
    state = state_of(pool)
    now = time.monotonic_ns()
    count = empty = 0
    for block in flat(TOUCHED_BLOCKS.of(args, kwargs)):
        if not block.is_null:
            state.accesses[block.block_id] = now
            count += 1
            if block.block_hash is None and block.ref_cnt == 1:  # was free without content: a page of HiSparse
                empty += 1
    state.touched += count
    taken = free_before - pool.get_num_free_blocks()
    if taken:
        state.touched_free += taken
        state.cached_free -= taken - empty
        in_use = state.total - free_before + taken
        state.note_use(in_use, now)
        count_operation(state, in_use, now)


def flat(blocks: Any) -> Any:
    """Blocks of one call: up to vLLM 0.13 a tuple of one list per KV group, from 0.14 on a flat list."""
    if blocks and isinstance(blocks[0], (list, tuple)):
        return [block for group in blocks for block in group]
    return blocks


FREED_BLOCKS = Argument("ordered_blocks")
UNPINNED_BLOCKS = Argument("blocks")


def free_begins(args: Any, blocks: list[Any]) -> int:
    """Free blocks before references are dropped."""
    return int(args[0].get_num_free_blocks())


def blocks_freed(free_before: int, result: Any, args: Any, blocks: list[Any]) -> None:
    """References were dropped; the free count tells how many blocks really went back."""
    pool = args[0]
    state = state_of(pool)
    free_after = pool.get_num_free_blocks()
    returned = free_after - free_before
    if len(_pools) > 1:
        blocks = [block for block in blocks if getattr(block, "pool", None) in (None, pool)]
    real = cached = idle = 0
    for block in blocks:
        if not block.is_null:
            real += 1
            if block.ref_cnt == 0:
                idle += 1
                if block.block_hash is not None:
                    cached += 1
    state.released += real
    if not returned:
        return
    if idle != returned:
        cached = distinct_cached(blocks)
    state.freed += returned
    if pool.enable_caching:
        state.cached_free += cached
    count_operation(state, state.total - free_after, time.monotonic_ns())


def distinct_cached(blocks: list[Any]) -> int:
    """Cached blocks among those returned, where a block comes twice in one call."""
    ours = {block.block_id: block for block in blocks if not block.is_null and block.ref_cnt == 0}
    return sum(1 for block in ours.values() if block.block_hash is not None)


def invalidation_begins(args: Any, kwargs: Any) -> PoolState:
    """`evict_blocks`: a connector found blocks to be wrong."""
    return CALL.begin(args[0], "invalidation")


def invalidation_ends(state: PoolState, result: Any, args: Any, kwargs: Any) -> None:
    """Later evictions have other causes."""
    CALL.end()


def prefix_cache_reset(token: None, result: Any, args: Any, kwargs: Any) -> None:
    """All content was dropped at once, which is no eviction. A row now, since no step may follow."""
    state = state_of(args[0])
    state.resets += 1
    state.cached_free = 0
    if state.engine is not None:
        STEPS.add(state.step_row(args[0], time.monotonic_ns()))
        THIS.flush()


# -- KVCacheManager -----------------------------------------------------------------------------------------------------


def allocation_failed(token: None, result: None, args: Any, kwargs: Any) -> None:
    """`allocate_slots` found no room for a request."""
    state_of(args[0].block_pool).failed_allocations += 1


LOOKED_UP = Argument("request")
NUM_HITS = Argument("num_hits")


def lookup_recorded(token: None, result: Any, args: Any, kwargs: Any) -> None:
    """VLLM 0.28 and later: a look-up is counted once, when the request is admitted."""
    count_lookup(args[0], LOOKED_UP.of(args, kwargs), NUM_HITS.of(args, kwargs))


LOOKED_UP_EARLY = Argument("request")


def lookup_done(token: None, result: Any, args: Any, kwargs: Any) -> None:
    """VLLM 0.26 and earlier: every look-up is counted, also of a request that then finds no room."""
    count_lookup(args[0], LOOKED_UP_EARLY.of(args, kwargs), result[1])


def count_lookup(manager: Any, request: Any, hit_tokens: int) -> None:
    """Count one look-up as vLLM's PrefixCacheStats does: requests that come back from a preemption apart."""
    if not manager.enable_caching or getattr(request, "skip_reading_prefix_cache", False):
        return
    state = state_of(manager.block_pool)
    if getattr(request, "num_preemptions", 0) > 0:
        state.preempted_query_tokens += request.num_tokens
        state.preempted_hit_tokens += hit_tokens
        return
    state.query_requests += 1
    state.query_tokens += request.num_tokens
    state.hit_tokens += hit_tokens


# -- Scheduler ----------------------------------------------------------------------------------------------------------


def scheduler_made(token: None, result: Any, args: Any, kwargs: Any) -> None:
    """The pool of a scheduler is the KV cache of an engine; any other pool is not."""
    global _engines
    state = state_of(args[0].kv_cache_manager.block_pool)
    if state.engine is None:
        state.engine = _engines
        _engines += 1


def request_preempted(token: None, result: Any, args: Any, kwargs: Any) -> None:
    """A running request lost its blocks."""
    state_of(args[0].kv_cache_manager.block_pool).preemptions += 1


def step_scheduled(token: None, scheduled: Any, args: Any, kwargs: Any) -> None:
    """A batch was chosen. Under the V2 runner the "new" requests include those that come back from a preemption."""
    scheduler = args[0]
    for new in scheduled.scheduled_new_reqs:
        request = scheduler.requests.get(new.req_id)
        if request is not None and not getattr(request, "num_preemptions", 0):
            state_of(scheduler.kv_cache_manager.block_pool).prompt_tokens += request.num_prompt_tokens


FINISHED_BATCH = Argument("scheduler_output")


def step_finished(token: None, result: Any, args: Any, kwargs: Any) -> None:
    """The output of an engine step was processed: its row, and everything before it, goes to the kernel now."""
    pool = args[0].kv_cache_manager.block_pool
    state = state_of(pool)
    now = time.monotonic_ns()
    state.step += 1
    tokens = FINISHED_BATCH.of(args, kwargs).total_num_scheduled_tokens
    if tokens:
        state.busy_steps += 1
        state.scheduled_tokens += tokens
        if any(outputs.outputs for outputs in result.values()):
            state.output_steps += 1
    STEPS.add(state.step_row(pool, now))
    if state.peak > state.peak_reported:
        state.peak_reported = state.peak
        USAGE.add((state.peak_time_ns, state.engine, "peak", state.peak, state.total))
    state.step_peak = state.total - pool.get_num_free_blocks()
    if len(_pools) > 1:
        report_other_pools(now)
    THIS.flush()


def report_other_pools(now_ns: int) -> None:
    """Counters of the pools that belong to no scheduler, once a second at most."""
    global _next_other_pools_ns
    if now_ns < _next_other_pools_ns:
        return
    _next_other_pools_ns = now_ns + 1_000_000_000
    for key, state in list(_pools.items()):
        pool = state.ref()
        if pool is None:
            del _pools[key]
        elif state.engine is None:
            medium = "".join(c for c in str(getattr(pool, "medium", "")) if c.isalnum())
            OTHER_POOLS.add(
                (now_ns, state.number, state.num_blocks, medium, state.allocated, state.freed, state.evicted)
            )


def after_fork() -> None:
    """A forked child has no pools of its own yet."""
    CALL.forget()
    global _engines, _pools_met
    _pools.clear()
    _engines = _pools_met = 0


POOL = "vllm.v1.core.block_pool"
MANAGER = "vllm.v1.core.kv_cache_manager"
SCHEDULER = "vllm.v1.core.sched.scheduler"


def _hook(module: str, target: str, *rest: Any, **options: Any) -> Hook:
    name = f"{module.rpartition('.')[2]}.{target.partition('.')[2].strip('_')}"
    return Hook(name, "kv_cache", module, target, *rest, **options)


HOOKS = (
    _hook(POOL, "BlockPool.__init__", following, None, pool_made),
    _hook(POOL, "BlockPool.get_new_blocks", around, allocation_begins, blocks_allocated),
    _hook(POOL, "BlockPool._maybe_evict_cached_block", following_true, None, block_evicted, (EVICTED_BLOCK,)),
    _hook(POOL, "BlockPool.touch", around, touch_begins, blocks_touched, (TOUCHED_BLOCKS,)),
    _hook(POOL, "BlockPool.free_blocks", around_iterable, free_begins, blocks_freed, (FREED_BLOCKS,)),
    _hook(
        POOL, "BlockPool.unpin_blocks", around_iterable, free_begins, blocks_freed, (UNPINNED_BLOCKS,), optional=True
    ),
    _hook(POOL, "BlockPool.evict_blocks", scope, invalidation_begins, invalidation_ends, optional=True),
    _hook(POOL, "BlockPool.reset_prefix_cache", following_true, None, prefix_cache_reset),
    _hook(MANAGER, "KVCacheManager.allocate_slots", following_none, None, allocation_failed),
    _hook(
        MANAGER, "KVCacheManager.record_prefix_cache_stats", following, None, lookup_recorded, (LOOKED_UP, NUM_HITS),
        optional=True,
    ),
    _hook(
        MANAGER, "KVCacheManager.get_computed_blocks", following, None, lookup_done, (LOOKED_UP_EARLY,),
        unless="KVCacheManager.record_prefix_cache_stats",
    ),
    _hook(SCHEDULER, "Scheduler.__init__", following, None, scheduler_made),
    _hook(SCHEDULER, "Scheduler._preempt_request", following, None, request_preempted, optional=True),
    _hook(SCHEDULER, "Scheduler.schedule", following, None, step_scheduled),
    _hook(SCHEDULER, "Scheduler.update_from_output", following, None, step_finished, (FINISHED_BATCH,)),
)  # fmt: skip
