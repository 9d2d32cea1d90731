"""Hooks on look-ups, evictions and resets of the scheduler's own prefix cache, and the rows that they make.

A look-up is made for a request that waits, in every step until it finds room, and its missing blocks are cached again in
the same call of schedule(). So what was missing is told when the look-up is made, and becomes a row when schedule() has
admitted the request.
"""

from __future__ import annotations

from time import monotonic_ns
from typing import Any

from profilemate.probe.engine_step import STEP, engine_of
from profilemate.probe.hook import AROUND, FOLLOWING, FOLLOWING_TRUE, SELF, Hook
from profilemate.probe.per_object import PerObject
from profilemate.probe.process import THIS
from profilemate.probe.request_ids import written_id
from profilemate.trackers.prefix_lookups import events
from profilemate.trackers.prefix_lookups.cache import BLOCKS_PER_STEP, PrefixCache, cached
from profilemate.trackers.prefix_lookups.lookup import Lookup, Reasons, why_off
from profilemate.trackers.prefix_lookups.orders import Order, Orders

KEPT_LOOKUPS = 256
"""Look-ups of requests that found no room yet: their next look-up need not look at the same blocks again."""

FEW_BLOCKS = 64
"""So many missed blocks are looked at again when something has left the cache; more only where the first one tells."""

MOST_LEAVING = 1 << 16
"""More than leave in a step: for the case that the handlers that settle them are switched off."""

FRESH_LOOKUPS = 4096
"""More than a schedule() call makes: for a scheduler of the user's own whose schedule() is not vLLM's."""

_caches: PerObject[PrefixCache] = PerObject()
_kept: dict[str, Lookup] = {}
_fresh: dict[str, Lookup] = {}
"""Made in this call of schedule()."""

_totals: dict[tuple[int, bool], list[int]] = {}
"""By engine and whether resumed: number of the last look-up, how many, and the sums of events.TOKENS."""

_numbers: dict[int, int] = {}
"""Look-ups by engine."""

LOOKUPS = THIS.writer.stream(events.LOOKUPS)
BLOCKS = THIS.writer.stream(events.BLOCKS)
TOTALS = THIS.writer.stream(events.TOTALS, detail=False, newest_counts=True)
ORDERS = Orders(BLOCKS)

STEP.write_with(LOOKUPS, BLOCKS)


def cache_of(manager: Any) -> PrefixCache:
    """What is known of the prefix cache of a KVCacheManager."""
    pool = manager.block_pool
    return _caches.get(id(pool)) or _caches.keep(pool, PrefixCache(manager, monotonic_ns()))


def scheduler_made(result: None, scheduler: Any) -> None:
    """Know the pool from its first block on; other pools of the process are no engine's prefix cache."""
    cache_of(scheduler.kv_cache_manager)


# -- what leaves the cache ----------------------------------------------------------------------------------------------


def hashes_removed(keys: list[bytes], pool: Any) -> None:
    """VLLM 0.24 and later: a block lost its hashes, whatever for. Called for every eviction."""
    cache = _caches.get(id(pool))
    if cache is not None:
        cache.leaving += keys
        if len(cache.leaving) > MOST_LEAVING:
            cache.settle(monotonic_ns())


def eviction_begins(pool: Any, block: Any) -> Any:
    """Before vLLM 0.24: the hash is gone after the call."""
    return block.block_hash


def eviction_ends(key: Any, evicted: bool, pool: Any, block: Any) -> None:
    """It was evicted or was not cached at all."""
    if evicted and key is not None:
        hashes_removed([key], pool)


def reset_begins(pool: Any) -> list[bytes]:
    """Everything that is cached, if the reset will succeed: nothing but the null block is in use."""
    if id(pool) not in _caches or pool.get_num_free_blocks() != pool.num_gpu_blocks - 1:
        return []
    return list(cached(pool))


def reset_ends(keys: list[bytes], done: bool, pool: Any) -> None:
    """All of it is gone."""
    if done and keys:
        cache, now = _caches[id(pool)], monotonic_ns()
        cache.settle(now)
        cache.leaving += keys
        cache.settle(-now)


# -- look-ups -----------------------------------------------------------------------------------------------------------


def looked_up(result: tuple[Any, ...], manager: Any, request: Any) -> None:
    """A waiting request was looked up. It may be for the tenth time, and twice in a step beside some KV connectors."""
    name, asked, hit = request.request_id, request.num_tokens, result[1]
    pool, cache, hashes = manager.block_pool, cache_of(manager), request.block_hashes
    if cache.leaving:
        cache.settle(monotonic_ns())
    lookup = _kept.get(name)
    if (
        lookup is None
        or (lookup.hit, lookup.asked, lookup.cache) != (hit, asked, cache)
        or is_stale(lookup, pool, hashes)
    ):
        lookup = _kept[name] = Lookup(cache, asked, hit, why_off(manager, request))
        if not lookup.off:
            lookup.missed = cache.missed(pool, hashes, hit, asked)
    _fresh[name] = lookup
    for lookups, most in ((_kept, KEPT_LOOKUPS), (_fresh, FRESH_LOOKUPS)):
        if len(lookups) > most:
            del lookups[next(iter(lookups))]


def is_stale(lookup: Lookup, pool: Any, hashes: list[bytes]) -> bool:
    """Whether what was missed has to be looked at again."""
    cache = lookup.cache
    if lookup.losses == cache.losses or lookup.off:
        return False
    return sum(len(part.found) for part in lookup.missed) <= FEW_BLOCKS or not cache.begins_as(
        pool, hashes, lookup.missed
    )


def hit_counted(result: Any, manager: Any, request: Any, num_hits: int) -> None:
    """VLLM 0.28 and later: what is taken from this cache, where a KV connector brings the last of the hit and more."""
    lookup = _fresh.get(request.request_id)
    if lookup is not None:
        lookup.hit = num_hits


def step_scheduled(scheduled: Any, scheduler: Any) -> None:
    """A batch was chosen: rows of the requests that were admitted, and of blocks that wait for their turn."""
    if _fresh:
        admit(scheduled, scheduler)
    if ORDERS.waiting:
        ORDERS.write_some(monotonic_ns())
    for cache in _caches.values():
        if cache.leaving:
            cache.settle(monotonic_ns())


def admit(scheduled: Any, scheduler: Any) -> None:
    """Of the requests looked up in this call, those that now compute, or wait for a KV connector with their blocks in hand."""
    cache = cache_of(scheduler.kv_cache_manager)
    cache.budget = BLOCKS_PER_STEP
    ours = [name for name, lookup in _fresh.items() if lookup.cache is cache]
    engine = engine_of(scheduler).number
    now = monotonic_ns()
    for name in ours:
        lookup = _fresh.pop(name)
        request = scheduler.requests.get(name)
        if request is None:
            continue
        tokens = scheduled.num_scheduled_tokens.get(name, 0)
        computed = request.num_computed_tokens - tokens  # schedule() has moved it on
        if tokens or computed:
            _kept.pop(name, None)
            write(lookup, request, max(computed, lookup.hit), engine, now)


def write(lookup: Lookup, request: Any, computed: int, engine: int, now_ns: int) -> None:
    """The row of a look-up; `computed` tokens were found or are brought."""
    number = _numbers[engine] = _numbers.get(engine, 0) + 1
    resumed = getattr(request, "num_preemptions", 0) > 0
    name = written_id(request.request_id)
    blocks = request.num_prompt_tokens // lookup.cache.hash_unit
    hashes = request.block_hashes[:blocks]
    unwritten = 0 if resumed else ORDERS.add(Order(engine, number, name, hashes))
    reasons = Reasons(lookup, computed)
    tokens = [lookup.asked, lookup.hit, computed - lookup.hit, *reasons.tokens, unwritten]
    LOOKUPS.add(
        f"{now_ns},{engine},{number},{name},{resumed},{lookup.off},{request.num_prompt_tokens},{len(hashes)},"
        f"{','.join(map(str, tokens))},{reasons.cells()}\n"
    )
    total = _totals.get((engine, resumed))
    if total is None:
        total = _totals[engine, resumed] = [0] * (2 + len(tokens))
    total[0] = number
    total[1] += 1
    for place, count in enumerate(tokens, 2):
        total[place] += count


def write_totals() -> None:
    """Old rows are about to go: their sums stay."""
    now = monotonic_ns()
    for (engine, resumed), total in _totals.items():
        TOTALS.add((now, engine, resumed, *total))


def after_fork() -> None:
    """A forked child has no caches and no requests of its own yet."""
    for state in (_caches, _kept, _fresh, _totals, _numbers):
        state.clear()
    ORDERS.forget()


POOL = "vllm.v1.core.block_pool"
MANAGER = "vllm.v1.core.kv_cache_manager"
SCHEDULER = "vllm.v1.core.sched.scheduler"


def _hook(module: str, target: str, *rest: Any, **options: Any) -> Hook:
    name = f"prefix_lookups.{target.partition('.')[2].strip('_')}"
    return Hook(name, "prefix_lookups", module, target, *rest, **options)


HOOKS = (
    _hook(SCHEDULER, "Scheduler.__init__", FOLLOWING, None, scheduler_made, (SELF,)),
    _hook(POOL, "BlockPool._remove_cached_block_hashes", FOLLOWING_TRUE, None, hashes_removed, (SELF,), optional=True),
    _hook(
        POOL, "BlockPool._maybe_evict_cached_block", AROUND, eviction_begins, eviction_ends, (SELF, "block"),
        unless="BlockPool._remove_cached_block_hashes",
    ),
    _hook(POOL, "BlockPool.reset_prefix_cache", AROUND, reset_begins, reset_ends, (SELF,)),
    _hook(MANAGER, "KVCacheManager.get_computed_blocks", FOLLOWING, None, looked_up, (SELF, "request")),
    _hook(
        MANAGER, "KVCacheManager.get_computed_blocks_for_connector", FOLLOWING, None, looked_up, (SELF, "request"),
        optional=True,
    ),
    _hook(
        MANAGER, "KVCacheManager.record_prefix_cache_stats", FOLLOWING, None, hit_counted,
        (SELF, "request", "num_hits"), optional=True,
    ),
    _hook(SCHEDULER, "Scheduler.schedule", FOLLOWING, None, step_scheduled, (SELF,)),
)  # fmt: skip
