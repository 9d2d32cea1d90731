"""Hooks on vLLM's BlockPool, KVCacheManager and Scheduler, and the rows that they make.

Usage is read from the pool's own free count, never derived from events: some vLLM code takes blocks past BlockPool's
methods. An eviction is counted from the result of `_maybe_evict_cached_block`, which is true only if content was dropped;
vLLM's own collector counts every block that is handed out again.
"""

from __future__ import annotations

import operator
from collections import deque
from itertools import compress
from time import monotonic_ns
from typing import Any

from profilemate.probe.allocation import ALLOCATION_FAILED, watch_failures
from profilemate.probe.engine_step import STEP, add_row, engine_of
from profilemate.probe.hook import (
    AROUND,
    AROUND_LISTED,
    FOLLOWING,
    FOLLOWING_TRUE,
    NOTING_TRUE,
    SCOPE,
    SELF,
    Hook,
)
from profilemate.probe.per_object import PerObject
from profilemate.probe.process import THIS
from profilemate.trackers.kv_cache import events
from profilemate.trackers.kv_cache.pool import UNKNOWN, PoolState

_pools: PerObject[PoolState] = PerObject()
_dropped: deque[Any] = deque(maxlen=1 << 16)
"""Blocks whose content `_maybe_evict_cached_block` has dropped; counted when the call that made it do so is over.

It has an end for the case that the handlers that empty it are switched off.
"""

_pools_met = 0
_next_other_pools_ns = 0

STEP_CELLS = STEP.part(events.STEPS)
USAGE = THIS.writer.stream(events.USAGE)
EVICTIONS = THIS.writer.stream(events.EVICTIONS)
OTHER_POOLS = THIS.writer.stream(events.OTHER_POOLS)
CELLS = 4
"""Of one noted eviction: when, block id, when it was allocated, when it was last used."""

IS_NULL, REFERENCES = operator.attrgetter("is_null"), operator.attrgetter("ref_cnt")

STEP.write_with(EVICTIONS, USAGE)


def meet(pool: Any, just_dropped: int = 0) -> PoolState:
    """Begin to count for a pool: a new one, or one that was there before us.

    `just_dropped` of its free blocks had content until a moment ago.
    """
    global _pools_met
    state = _pools.keep(pool, PoolState(pool, _pools_met))
    state.cached_free += just_dropped
    _pools_met += 1
    return state


def state_of(pool: Any) -> PoolState:
    """The counters of a pool."""
    return _pools.get(id(pool)) or meet(pool)


def count_operation(state: PoolState, in_use: int, now_ns: int) -> None:
    """A BlockPool call changed the free count; every LOG_INTERVAL of them make a usage row."""
    state.operations += 1
    if state.operations >= state.next_row:
        state.next_row += THIS.settings.log_interval
        is_step_seen, state.step_at_row = state.step != state.step_at_row, state.step
        if not is_step_seen:  # another pool's, or of a scheduler of the user's own that has its own ends of steps
            settle(state)
        if state.engine is not None:
            USAGE.add((now_ns, state.engine.number, "interval", in_use, state.total))
            if not is_step_seen:
                THIS.flush()


# -- BlockPool ----------------------------------------------------------------------------------------------------------


def pool_made(result: None, pool: Any) -> None:
    """Know a new pool from its first block on."""
    meet(pool)


def blocks_allocated(blocks: list[Any], pool: Any) -> None:
    """`get_new_blocks` handed out blocks: the lives of some may have ended with that, and their next ones begin."""
    if not blocks:
        return
    state = _pools.get(id(pool)) or meet(pool, len(_dropped))
    now = monotonic_ns()
    births, accesses = state.births, state.accesses
    if _dropped:
        if len(_dropped) > len(blocks):
            settle_earlier(blocks)
        evictions = state.evictions
        for block in _dropped:
            block_id = block.block_id
            evictions += (now, block_id, births[block_id], accesses[block_id])
        state.cached_free -= len(_dropped)
        _dropped.clear()
    for block in blocks:
        births[block.block_id] = accesses[block.block_id] = now
    state.allocated += len(blocks)
    in_use = state.total - pool.get_num_free_blocks()
    if in_use > state.step_peak:
        state.note_use(in_use, now)
    count_operation(state, in_use, now)


def settle_earlier(blocks: list[Any]) -> None:
    """Of the blocks that lost their content, count those that are not among the ones handed out: they did so before."""
    handed_out = {id(block) for block in blocks}
    earlier = [block for block in _dropped if id(block) not in handed_out]
    ours = [block for block in take_dropped() if id(block) in handed_out]
    _dropped.extend(ours)
    settle_others(earlier)


def settle_others(blocks: list[Any]) -> None:
    """Count evictions by neither of BlockPool's two ways (Mamba checkpoints of vLLM 0.33), each for the pool that holds it."""
    for key, state in list(_pools.items()):
        held = getattr(_pools.owner_of(key), "blocks", ())
        ours = [block for block in blocks if block.block_id < len(held) and held[block.block_id] is block]
        if ours:
            settle_in_place(state, ours, "other")


def settle_in_place(state: PoolState, blocks: list[Any], cause: str) -> None:
    """Count evictions of blocks that nobody is handed; some are free and some in use."""
    settle(state)
    now = monotonic_ns()
    for block in blocks:
        state.evictions += (now, block.block_id, state.births[block.block_id], state.accesses[block.block_id])
    state.cached_free -= sum(block.ref_cnt == 0 for block in blocks)
    settle(state, cause)


def settle(state: PoolState, cause: str = "allocation") -> None:
    """Make rows of the evictions that are noted, and add them up."""
    cells = state.evictions
    if not cells:
        return
    state.evictions = []
    count = len(cells) // CELLS
    if state.engine is not None:
        EVICTIONS.add(f"%s,{state.engine.number},%s,%s,%s,{cause}\n" * count % tuple(cells))
    state.evicted += count
    if UNKNOWN in cells[2::CELLS]:
        cells = [
            cell for n in range(0, len(cells), CELLS) if cells[n + 2] is not UNKNOWN for cell in cells[n : n + CELLS]
        ]
    moments = sum(cells[::CELLS])
    state.timed_evictions += len(cells) // CELLS
    state.lifetime_ns += moments - sum(cells[2::CELLS])
    state.idle_ns += moments - sum(cells[3::CELLS])


def take_dropped() -> list[Any]:
    """The blocks that lost their content since the last look."""
    dropped = list(_dropped)
    _dropped.clear()
    return dropped


def touch_begins(pool: Any, blocks: Any) -> int:
    """Free blocks before a prefix hit takes some of them."""
    return int(pool.get_num_free_blocks())


def blocks_touched(free_before: int, result: Any, pool: Any, blocks: Any) -> None:
    """A prefix hit re-uses blocks, free ones or those of running requests."""
    state = state_of(pool)
    now = monotonic_ns()
    count = empty = 0
    for block in flat(blocks):
        if not block.is_null:
            state.accesses[block.block_id] = now
            count += 1
            if block.block_hash is None and block.ref_cnt == 1:  # was free without content: a page of HiSparse
                empty += 1
    state.touched += count
    state.seldom = ""
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


def free_begins(pool: Any, blocks: list[Any]) -> int:
    """Free blocks before references are dropped."""
    return int(pool.get_num_free_blocks())


def blocks_freed(free_before: int, result: Any, pool: Any, blocks: list[Any]) -> None:
    """References were dropped; the free count tells how many blocks really went back."""
    state = state_of(pool)
    free_after = pool.get_num_free_blocks()
    returned = free_after - free_before
    if returned != len(blocks) and len(_pools) > 1:  # each that went back is this pool's
        blocks = [block for block in blocks if getattr(block, "pool", None) in (None, pool)]
    state.released += len(blocks) - sum(map(IS_NULL, blocks))
    if not returned:
        return
    state.freed += returned
    if pool.enable_caching:
        free = blocks if returned == len(blocks) else free_ones(blocks, returned)
        state.cached_free += len(free) - [*map(state.hash_of, free)].count(None)
    count_operation(state, state.total - free_after, monotonic_ns())


def free_ones(blocks: list[Any], returned: int) -> list[Any]:
    """Those of the blocks that went back, each once: one may come twice in one call."""
    free = [*compress(blocks, map(operator.not_, map(REFERENCES, blocks)))]
    if len(free) != returned:
        free = [*{block.block_id: block for block in free if not block.is_null}.values()]
    return free


def invalidation_begins(pool: Any) -> PoolState:
    """`evict_blocks`: a connector found blocks to be wrong."""
    settle_others(take_dropped())
    return state_of(pool)


def invalidation_ends(state: PoolState, pool: Any) -> None:
    """Later evictions have other causes."""
    dropped = take_dropped()
    if dropped:
        settle_in_place(state, dropped, "invalidation")


def prefix_cache_reset(result: bool, pool: Any) -> None:
    """All content was dropped at once, which is no eviction. A row now, since no step may follow."""
    state = state_of(pool)
    settle(state)
    state.resets += 1
    state.seldom = ""
    state.cached_free = 0
    if state.engine is not None:
        STEP_CELLS.text = state.step_cells(pool)
        add_row(state.engine, monotonic_ns())
        THIS.flush()


# -- KVCacheManager -----------------------------------------------------------------------------------------------------


def allocation_failed(manager: Any, request: Any, num_new_tokens: int) -> None:
    """`allocate_slots` found no room for a request."""
    state_of(manager.block_pool).failed_allocations += 1


watch_failures("kv_cache", allocation_failed)


def lookup_recorded(result: Any, manager: Any, request: Any, num_hits: int) -> None:
    """VLLM 0.28 and later: a look-up is counted once, when the request is admitted."""
    count_lookup(manager, request, num_hits)


def lookup_done(result: Any, manager: Any, request: Any) -> None:
    """VLLM 0.26 and earlier: every look-up is counted, also of a request that then finds no room."""
    count_lookup(manager, request, result[1])


def count_lookup(manager: Any, request: Any, hit_tokens: int) -> None:
    """Count one look-up as vLLM's PrefixCacheStats does: requests that come back from a preemption apart."""
    if not manager.enable_caching or getattr(request, "skip_reading_prefix_cache", False):
        return
    state = state_of(manager.block_pool)
    state.seldom = ""
    if getattr(request, "num_preemptions", 0) > 0:
        state.preempted_query_tokens += request.num_tokens
        state.preempted_hit_tokens += hit_tokens
        return
    state.query_requests += 1
    state.query_tokens += request.num_tokens
    state.hit_tokens += hit_tokens


# -- Scheduler ----------------------------------------------------------------------------------------------------------


def scheduler_made(result: None, scheduler: Any) -> None:
    """The pool of a scheduler is the KV cache of an engine; any other pool is not."""
    state = state_of(scheduler.kv_cache_manager.block_pool)
    if state.engine is None:
        state.engine = engine_of(scheduler)
        if not hasattr(scheduler, "_preempt_request"):  # vLLM 0.11 preempts in the middle of `schedule`
            state.preemptions = None


def request_preempted(result: Any, scheduler: Any) -> None:
    """A running request lost its blocks."""
    state = state_of(scheduler.kv_cache_manager.block_pool)
    state.preemptions = (state.preemptions or 0) + 1
    state.seldom = ""


def step_scheduled(scheduled: Any, scheduler: Any) -> None:
    """A batch was chosen. Under the V2 runner the "new" requests include those that come back from a preemption."""
    for new in scheduled.scheduled_new_reqs:
        request = scheduler.requests.get(new.req_id)
        if request is not None and not getattr(request, "num_preemptions", 0):
            state = state_of(scheduler.kv_cache_manager.block_pool)
            state.prompt_tokens += request.num_prompt_tokens
            state.seldom = ""


def step_finished(outputs: dict[int, Any], scheduler: Any, scheduler_output: Any) -> None:
    """The output of an engine step was processed: our cells of its row."""
    pool = scheduler.kv_cache_manager.block_pool
    state = _pools.get(id(pool)) or meet(pool)
    if state.engine is None:  # a scheduler that was there before us
        state.engine = engine_of(scheduler)
    state.step += 1
    tokens = scheduler_output.total_num_scheduled_tokens
    if tokens:
        state.busy_steps += 1
        state.scheduled_tokens += tokens
        for of_client in outputs.values():
            if of_client.outputs:
                state.output_steps += 1
                break
    if _dropped:
        settle_others(take_dropped())
    if state.evictions:
        settle(state)
    STEP_CELLS.text = state.step_cells(pool)
    if state.peak > state.peak_reported:
        state.peak_reported = state.peak
        USAGE.add((state.peak_time_ns, state.engine.number, "peak", state.peak, state.total))
    if len(_pools) > 1:
        report_other_pools(monotonic_ns())


def report_other_pools(now_ns: int) -> None:
    """Counters of the pools that belong to no scheduler, once a second at most."""
    global _next_other_pools_ns
    if now_ns < _next_other_pools_ns:
        return
    _next_other_pools_ns = now_ns + 1_000_000_000
    for key, state in list(_pools.items()):
        pool = _pools.owner_of(key)
        if pool is not None and state.engine is None:
            settle(state)
            medium = "".join(c for c in str(getattr(pool, "medium", "")) if c.isalnum())
            OTHER_POOLS.add(
                (now_ns, state.number, state.num_blocks, medium, state.allocated, state.freed, state.evicted)
            )


def after_fork() -> None:
    """A forked child has no pools of its own yet."""
    global _pools_met
    _pools.clear()
    _dropped.clear()
    _pools_met = 0


POOL = "vllm.v1.core.block_pool"
MANAGER = "vllm.v1.core.kv_cache_manager"
SCHEDULER = "vllm.v1.core.sched.scheduler"


def _hook(module: str, target: str, *rest: Any, **options: Any) -> Hook:
    name = f"{module.rpartition('.')[2]}.{target.partition('.')[2].strip('_')}"
    return Hook(name, "kv_cache", module, target, *rest, **options)


HOOKS = (
    _hook(POOL, "BlockPool.__init__", FOLLOWING, None, pool_made, (SELF,)),
    _hook(POOL, "BlockPool.get_new_blocks", FOLLOWING, None, blocks_allocated, (SELF,)),
    _hook(POOL, "BlockPool._maybe_evict_cached_block", NOTING_TRUE, None, _dropped.append, ("block",)),
    _hook(POOL, "BlockPool.touch", AROUND, touch_begins, blocks_touched, (SELF, "blocks")),
    _hook(POOL, "BlockPool.free_blocks", AROUND_LISTED, free_begins, blocks_freed, (SELF, "ordered_blocks")),
    _hook(
        POOL, "BlockPool.unpin_blocks", AROUND_LISTED, free_begins, blocks_freed, (SELF, "blocks"), optional=True
    ),
    _hook(POOL, "BlockPool.evict_blocks", SCOPE, invalidation_begins, invalidation_ends, (SELF,), optional=True),
    _hook(POOL, "BlockPool.reset_prefix_cache", FOLLOWING_TRUE, None, prefix_cache_reset, (SELF,)),
    ALLOCATION_FAILED,
    _hook(
        MANAGER, "KVCacheManager.record_prefix_cache_stats", FOLLOWING, None, lookup_recorded,
        (SELF, "request", "num_hits"), optional=True,
    ),
    _hook(
        MANAGER, "KVCacheManager.get_computed_blocks", FOLLOWING, None, lookup_done, (SELF, "request"),
        unless="KVCacheManager.record_prefix_cache_stats",
    ),
    _hook(SCHEDULER, "Scheduler.__init__", FOLLOWING, None, scheduler_made, (SELF,)),
    _hook(SCHEDULER, "Scheduler._preempt_request", FOLLOWING, None, request_preempted, (SELF,), optional=True),
    _hook(SCHEDULER, "Scheduler.schedule", FOLLOWING, None, step_scheduled, (SELF,)),
    _hook(
        SCHEDULER, "Scheduler.update_from_output", FOLLOWING, None, step_finished, (SELF, "scheduler_output")
    ),
)  # fmt: skip
