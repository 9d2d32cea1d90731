"""The truth about a scheduler's block pool and steps, by means that every vLLM version since 0.11 has.

Shares nothing with ProfileMate and little with vLLM's bookkeeping: free blocks are every value that the free queue's counter
is given, evictions are hashes that are gone from blocks which were handed out. The driver counts preemptions by what becomes
of each request's status.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any


class PoolTruth:
    """Watches one scheduler; `counts` has the names of columns of engine_steps."""

    def __init__(self, scheduler: Any) -> None:
        """Replaces methods on the instances; what a profiler put on the classes still runs."""
        self.counts: Counter[str] = Counter()
        self.scheduler = scheduler
        self.pool = scheduler.kv_cache_manager.block_pool
        self.total = self.pool.num_gpu_blocks - 1
        self._watch_free(self.pool.free_block_queue)
        for name in ("get_new_blocks", "touch", "free_blocks"):
            self._replace(self.pool, name, getattr(self, f"_{name}"))
        self._replace(scheduler.kv_cache_manager, "allocate_slots", self._allocate_slots)
        self._replace(scheduler, "update_from_output", self._update)
        self._replace(scheduler, "schedule", self._schedule)

    def _replace(self, owner: Any, name: str, body: Callable[..., Any]) -> None:
        setattr(owner, name, lambda *args, **kwargs: body(getattr(type(owner), name), owner, *args, **kwargs))

    def _watch_free(self, queue: Any) -> None:
        def read(this: Any) -> int:
            return int(this.__dict__["watched"])

        def write(this: Any, value: int) -> None:
            this.__dict__["watched"] = value
            self.counts["peak"] = max(self.counts["peak"], self.total - value)

        queue.__dict__["watched"] = queue.__dict__.pop("num_free_blocks")
        queue.__class__ = type("WatchedQueue", (type(queue),), {"num_free_blocks": property(read, write)})

    def _get_new_blocks(self, original: Any, pool: Any, *args: Any, **kwargs: Any) -> Any:
        hashed = {block.block_id for block in pool.blocks if block.block_hash is not None}
        blocks = original(pool, *args, **kwargs)
        self.counts["allocated"] += len(blocks)
        self.counts["evicted"] += sum(block.block_id in hashed for block in blocks)
        return blocks

    def _touch(self, original: Any, pool: Any, blocks: Any, *args: Any, **kwargs: Any) -> Any:
        given = list(blocks)
        self.counts["touched"] += sum(block.block_id != pool.null_block.block_id for block in flat(given))
        return original(pool, type(blocks)(given) if isinstance(blocks, (list, tuple)) else given, *args, **kwargs)

    def _free_blocks(self, original: Any, pool: Any, blocks: Any, *args: Any, **kwargs: Any) -> Any:
        given = [block for block in blocks]
        free_before = self._free_now()
        result = original(pool, given, *args, **kwargs)
        self.counts["released"] += sum(block.block_id != pool.null_block.block_id for block in given)
        self.counts["freed"] += self._free_now() - free_before
        return result

    def _free_now(self) -> int:
        return int(self.pool.free_block_queue.num_free_blocks)

    def _allocate_slots(self, original: Any, manager: Any, *args: Any, **kwargs: Any) -> Any:
        blocks = original(manager, *args, **kwargs)
        self.counts["failed_allocations"] += blocks is None
        return blocks

    def _schedule(self, original: Any, scheduler: Any, *args: Any, **kwargs: Any) -> Any:
        scheduled = original(scheduler, *args, **kwargs)
        self.counts["scheduled_tokens"] += sum(scheduled.num_scheduled_tokens.values())
        return scheduled

    def _update(self, original: Any, scheduler: Any, *args: Any, **kwargs: Any) -> Any:
        result = original(scheduler, *args, **kwargs)
        self.counts["step"] += 1
        return result


def flat(blocks: Any) -> Iterator[Any]:
    """Blocks of a list, or of the lists of several KV groups."""
    for one in blocks:
        if isinstance(one, (list, tuple)):
            yield from flat(one)
        else:
            yield one
