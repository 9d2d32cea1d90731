"""Independent truth about a vLLM scheduler's KV block pool.

Shares no code with the profiler, and sees things another way wherever there is another way:

* the number of free blocks: the free queue's counter becomes a property, so every single assignment
  to it is seen, whatever method makes it;
* evictions: from a mirror of reference counts and hashes kept by block id; vLLM's own answer of
  `_maybe_evict_cached_block` is only compared with it;
* in use / cached free / empty: full scan of `pool.blocks` after every step, compared with the mirror;
* preemptions: summed from the request objects.

Methods are replaced on the instances only and call the class's current attribute, so whatever a
profiler put on the classes, before or after, still runs.

Keys of the result; the null block never counts, times are time.monotonic() seconds:

    total_blocks          usable blocks of the pool
    allocated             blocks handed out by get_new_blocks
    distinct_blocks       different ones among them
    evicted, evictions    cached blocks that lost their hash to an allocation or to evict_blocks, in order:
                          block, time, lifetime_s (since allocation), idle_s (since last touch, else allocation), and
                          between which both lie whenever within vLLM's own calls a clock was read
    touched               blocks passed to touch, touched_from_free of them were free
    references_dropped    blocks passed to free_blocks, freed of them went back to the free queue
    null_entries          null blocks passed to touch and free_blocks
    operations            calls of get_new_blocks, touch, free_blocks that changed the number of free blocks
    peak_used             most blocks in use at any moment
    failed_allocations    allocate_slots calls that returned None
    resets, resets_failed reset_prefix_cache calls of the pool, by answer
    steps, schedules      calls of update_from_output, of schedule
    rows                  per step [used, cached free, empty, peak used since the step before]
    preemptions, requests summed num_preemptions of the requests added, and their number
    prefix                sums of every PrefixCacheStats vLLM made, in tokens (queries, hits) and requests;
                          preempted_* is apart, not included; prefix_recorded: the same from the calls
    used_at_end, cached_at_end, empty_at_end   of the last scan
    mismatch_count, mismatches   disagreements of mirror, scan and vLLM's answers (the first 20); must be none
    unmirrored            calls of pool methods the mirror does not follow; must be empty
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import MethodType
from typing import Any

UNMIRRORED = ("cache_partial_block", "move_block_hashes", "unpin_blocks")
"""Pool methods that change hashes or reference counts and which no driver configuration reaches."""

PREFIX_FIELDS = ("requests", "queries", "hits", "preempted_requests", "preempted_queries", "preempted_hits")


def attach(scheduler: Any) -> Oracle:
    """Start observing `scheduler`, which must not have scheduled anything yet."""
    oracle = Oracle(scheduler)
    oracle.install()
    return oracle


def _replace(instance: Any, name: str, make: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Give `instance` its own method `name`; the original is looked up on the class at every call."""

    def original(*args: Any, **kwargs: Any) -> Any:
        return getattr(type(instance), name)(instance, *args, **kwargs)

    body = make(original)
    setattr(instance, name, MethodType(lambda _self, *args, **kwargs: body(*args, **kwargs), instance))


def _watch_counter(queue: Any, seen: Callable[[int], None]) -> None:
    """Report every value assigned to `queue.num_free_blocks`."""

    def read(self: Any) -> int:
        return int(self.__dict__["_watched_free"])

    def write(self: Any, value: int) -> None:
        self.__dict__["_watched_free"] = value
        seen(value)

    queue.__dict__["_watched_free"] = queue.__dict__.pop("num_free_blocks")
    queue.__class__ = type("WatchedQueue", (type(queue),), {"num_free_blocks": property(read, write)})


@dataclass
class Mirror:
    """What the oracle believes of one block."""

    references: int = 0
    hash: bytes | None = None
    birth: float = 0.0
    access: float = 0.0
    birth_began: float = 0.0
    access_began: float = 0.0


@dataclass
class Eviction:
    """One cached block that lost its hash other than by a reset."""

    block: int
    time: float
    lifetime_s: float
    idle_s: float
    lifetime_bounds_s: tuple[float, float]
    idle_bounds_s: tuple[float, float]


@dataclass
class Counts:
    """Totals; the module's text explains each."""

    allocated: int = 0
    distinct_blocks: int = 0
    touched: int = 0
    touched_from_free: int = 0
    freed: int = 0
    references_dropped: int = 0
    null_entries: int = 0
    operations: int = 0
    failed_allocations: int = 0
    resets: int = 0
    resets_failed: int = 0
    peak_used: int = 0
    schedules: int = 0
    steps: int = 0


@dataclass
class Oracle:
    """Observer of one scheduler; see the module's text."""

    scheduler: Any
    counts: Counts = field(default_factory=Counts)
    evictions: list[Eviction] = field(default_factory=list)
    rows: list[tuple[int, int, int, int]] = field(default_factory=list)
    mismatches: list[str] = field(default_factory=list)
    unmirrored: Counter[str] = field(default_factory=Counter)
    prefix: Counter[str] = field(default_factory=Counter)
    prefix_recorded: Counter[str] = field(default_factory=Counter)
    requests: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.manager = self.scheduler.kv_cache_manager
        self.pool = self.manager.block_pool
        self.total = self.pool.num_gpu_blocks - 1
        self.mirror = [Mirror() for _ in self.pool.blocks]
        self.step_peak = 0
        self.born: set[int] = set()
        self.reported_evicted: list[int] = []

    # -- installation ---------------------------------------------------------------------------------

    def install(self) -> None:
        """Replace methods on the scheduler's, the manager's and the pool's instance."""
        _watch_counter(self.pool.free_block_queue, self._free_changed)
        for name in ("get_new_blocks", "touch", "free_blocks", "evict_blocks"):
            _replace(self.pool, name, getattr(self, f"_wrap_{name}"))
        for name in ("_maybe_evict_cached_block", "cache_full_blocks"):
            _replace(self.pool, name, getattr(self, f"_wrap_{name.lstrip('_')}"))
        _replace(self.pool, "reset_prefix_cache", self._wrap_reset)
        for name in UNMIRRORED:
            if hasattr(self.pool, name):
                _replace(self.pool, name, self._guard(name))
        for name in ("allocate_slots", "make_prefix_cache_stats", "record_prefix_cache_stats"):
            _replace(self.manager, name, getattr(self, f"_wrap_{name}"))
        for name in ("add_request", "schedule", "update_from_output"):
            _replace(self.scheduler, name, getattr(self, f"_wrap_{name}"))

    def _guard(self, name: str) -> Callable[..., Any]:
        def make(original: Callable[..., Any]) -> Callable[..., Any]:
            def call(*args: Any, **kwargs: Any) -> Any:
                self.unmirrored[name] += 1
                return original(*args, **kwargs)

            return call

        return make

    # -- the pool -------------------------------------------------------------------------------------

    def _free_changed(self, free: int) -> None:
        used = self.total - free
        self.step_peak = max(self.step_peak, used)
        self.counts.peak_used = max(self.counts.peak_used, used)

    def _operation(self, original: Callable[..., Any], *args: Any) -> Any:
        """Call, and count it as an operation if the number of free blocks is another one afterwards."""
        before = self.pool.free_block_queue.num_free_blocks
        try:
            return original(*args)
        finally:
            self.counts.operations += before != self.pool.free_block_queue.num_free_blocks

    def _wrap_get_new_blocks(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def get_new_blocks(num_blocks: int) -> Any:
            self.reported_evicted.clear()
            start = time.monotonic()
            blocks = self._operation(original, num_blocks)
            self.counts.allocated += len(blocks)
            now = time.monotonic()
            self._evicted([block.block_id for block in blocks], start, now)
            for block in blocks:
                self._born(block, start, now)
            return blocks

        return get_new_blocks

    def _born(self, block: Any, began: float, now: float) -> None:
        mirror = self.mirror[block.block_id]
        self._check(mirror.references == 0, f"block {block.block_id} allocated while referenced")
        mirror.references = 1
        mirror.birth = mirror.access = now
        mirror.birth_began = mirror.access_began = began
        self.born.add(block.block_id)

    def _evicted(self, block_ids: list[int], now: float, ended: float) -> None:
        """Blocks of `block_ids` that the mirror holds a hash for have lost it in a call from `now` to `ended`."""
        lost = [number for number in block_ids if self.mirror[number].hash is not None]
        for number in lost:
            mirror = self.mirror[number]
            lived = now - mirror.birth, ended - mirror.birth_began
            idled = now - mirror.access, ended - mirror.access_began
            self.evictions.append(Eviction(number, now, lived[0], idled[0], lived, idled))
            mirror.hash = None
        self._check(lost == self.reported_evicted, f"vLLM says evicted {self.reported_evicted}, mirror says {lost}")

    def _wrap_maybe_evict_cached_block(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def maybe_evict(block: Any) -> bool:
            dropped = bool(original(block))
            if dropped:
                self.reported_evicted.append(block.block_id)
            return dropped

        return maybe_evict

    def _wrap_evict_blocks(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def evict_blocks(block_ids: set[int]) -> None:
            self.reported_evicted.clear()
            now = time.monotonic()
            original(block_ids)
            self._evicted(list(block_ids), now, time.monotonic())

        return evict_blocks

    def _wrap_touch(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def touch(blocks: Any) -> None:
            blocks = list(blocks)
            began = time.monotonic()
            self._operation(original, blocks)
            now = time.monotonic()
            for block in self._without_null(blocks):
                mirror = self.mirror[block.block_id]
                self.counts.touched += 1
                self.counts.touched_from_free += mirror.references == 0
                mirror.references += 1
                mirror.access = now
                mirror.access_began = began

        return touch

    def _wrap_free_blocks(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def free_blocks(ordered_blocks: Any) -> None:
            blocks = list(ordered_blocks)
            self._operation(original, blocks)
            for block in self._without_null(blocks):
                mirror = self.mirror[block.block_id]
                mirror.references -= 1
                self.counts.references_dropped += 1
                self.counts.freed += mirror.references == 0

        return free_blocks

    def _without_null(self, blocks: list[Any]) -> list[Any]:
        real = [block for block in blocks if block.block_id != self.pool.null_block.block_id]
        self.counts.null_entries += len(blocks) - len(real)
        return real

    def _wrap_cache_full_blocks(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def cache_full_blocks(
            request: Any,
            blocks: Any,
            num_cached_blocks: int,
            num_full_blocks: int,
            block_size: int,
            kv_cache_group_id: int,
            block_mask: list[bool] | None = None,
        ) -> None:
            original(
                request=request,
                blocks=blocks,
                num_cached_blocks=num_cached_blocks,
                num_full_blocks=num_full_blocks,
                block_size=block_size,
                kv_cache_group_id=kv_cache_group_id,
                block_mask=block_mask,
            )
            fine = block_size // self.pool.hash_block_size
            for index in range(num_cached_blocks, num_full_blocks):
                masked = block_mask is not None and not block_mask[index - num_cached_blocks]
                if masked or blocks[index].block_id == self.pool.null_block.block_id:
                    continue
                block_hash = bytes(request.block_hashes[(index + 1) * fine - 1])
                self.mirror[blocks[index].block_id].hash = block_hash + kv_cache_group_id.to_bytes(4, "big")

        return cache_full_blocks

    def _wrap_reset(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def reset_prefix_cache() -> bool:
            done = bool(original())
            self.counts.resets += done
            self.counts.resets_failed += not done
            if done:
                for mirror in self.mirror:
                    mirror.hash = None
            return done

        return reset_prefix_cache

    # -- manager and scheduler ------------------------------------------------------------------------

    def _wrap_allocate_slots(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def allocate_slots(*args: Any, **kwargs: Any) -> Any:
            blocks = original(*args, **kwargs)
            self.counts.failed_allocations += blocks is None
            return blocks

        return allocate_slots

    def _wrap_make_prefix_cache_stats(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def make_prefix_cache_stats() -> Any:
            stats = original()
            self._add_prefix(stats)
            return stats

        return make_prefix_cache_stats

    def _add_prefix(self, stats: Any) -> None:
        for name in PREFIX_FIELDS:
            self.prefix[name] += getattr(stats, name, 0)

    def _wrap_record_prefix_cache_stats(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def record_prefix_cache_stats(request: Any, num_hits: int) -> None:
            if self.manager.enable_caching and self.manager.log_stats:
                kind = "preempted_" if request.num_preemptions else ""
                self.prefix_recorded[f"{kind}requests"] += 1
                self.prefix_recorded[f"{kind}queries"] += request.num_tokens
                self.prefix_recorded[f"{kind}hits"] += num_hits
            original(request, num_hits)

        return record_prefix_cache_stats

    def _wrap_add_request(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def add_request(request: Any, *args: Any, **kwargs: Any) -> Any:
            self.requests.append(request)
            return original(request, *args, **kwargs)

        return add_request

    def _wrap_schedule(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def schedule(*args: Any, **kwargs: Any) -> Any:
            self.counts.schedules += 1
            return original(*args, **kwargs)

        return schedule

    def _wrap_update_from_output(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def update_from_output(*args: Any, **kwargs: Any) -> Any:
            outputs = original(*args, **kwargs)
            self._end_of_step()
            return outputs

        return update_from_output

    # -- per step -------------------------------------------------------------------------------------

    def _end_of_step(self) -> None:
        self.counts.steps += 1
        used, cached, empty = self.scan()
        self.rows.append((used, cached, empty, self.step_peak))
        self.step_peak = used

    def scan(self) -> tuple[int, int, int]:
        """Count blocks (in use, cached and free, empty) from the pool itself; compare each with the mirror."""
        used = cached = 0
        for block, mirror in zip(self.pool.blocks, self.mirror, strict=True):
            if block is self.pool.null_block:
                continue
            held, block_hash = block.ref_cnt, block.block_hash
            if held != mirror.references or block_hash != mirror.hash:
                self._check(False, f"block {block.block_id}: {held} {block_hash!r}, mirror {mirror}")
            used += held > 0
            cached += held == 0 and block_hash is not None
        free = self.pool.get_num_free_blocks()
        self._check(used == self.total - free, f"{used} blocks referenced, {free} of {self.total} free")
        return used, cached, self.total - used - cached

    def _check(self, fine: bool, text: str) -> None:
        if not fine:
            self.mismatches.append(f"step {self.counts.steps}: {text}")

    # -- result ---------------------------------------------------------------------------------------

    def result(self) -> dict[str, Any]:
        """Everything found, as plain JSON types; the module's text explains the keys."""
        used, cached, empty = self.scan()
        prefix = Counter(self.prefix)
        leftover = getattr(self.manager, "prefix_cache_stats", None)
        for name in PREFIX_FIELDS:
            prefix[name] += getattr(leftover, name, 0)
        self.counts.distinct_blocks = len(self.born)
        return {
            "total_blocks": self.total,
            **vars(self.counts),
            "evicted": len(self.evictions),
            "evictions": [vars(eviction) for eviction in self.evictions],
            "preemptions": sum(request.num_preemptions for request in self.requests),
            "requests": len(self.requests),
            "rows": self.rows,
            "prefix": {name: prefix[name] for name in PREFIX_FIELDS},
            "prefix_recorded": {name: self.prefix_recorded[name] for name in PREFIX_FIELDS},
            "used_at_end": used,
            "cached_at_end": cached,
            "empty_at_end": empty,
            "mismatch_count": len(self.mismatches),
            "mismatches": self.mismatches[:20],
            "unmirrored": dict(self.unmirrored),
        }

    def write(self, path: str | Path) -> None:
        """Write `result()` as JSON."""
        Path(path).write_text(json.dumps(self.result()), encoding="utf-8")
