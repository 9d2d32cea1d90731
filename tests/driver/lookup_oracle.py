"""Independent truth about prefix-cache look-ups: shares no code with the profiler.

* `Watcher` keeps, without any bound, what vLLM's map from hashes to blocks holds and when each hash left it, and goes through
  every block of every look-up;
* `Lru` is a model of the cache as a queue of blocks that hold prefixes, which vLLM is not asked about at all.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

REASONS = ("short", "last", "new", "evicted", "reset", "untaken", "unkept", "unknown", "off")


class Watcher:
    """Watches one scheduler of vLLM 0.32. `rows` are the admitted requests in order."""

    def __init__(self, scheduler: Any, block_size: int) -> None:
        self.manager = scheduler.kv_cache_manager
        self.pool = self.manager.block_pool
        self.block_size = block_size
        self.live: dict[bytes, set[int]] = {}
        self.gone: dict[bytes, tuple[str, int, int]] = {}
        self.ends: list[int] = []
        self.looked: dict[str, dict[str, Any]] = {}
        self.rows: list[dict[str, Any]] = []
        self.lookups = 0
        self.stats: Counter[str] = Counter()
        self._watch_map()
        self._watch_reset()
        self._watch_lookups()
        self._watch_schedule(scheduler)

    def _watch_map(self) -> None:
        held = self.pool.cached_block_hash_to_block
        insert, pop = held.insert, held.pop

        def watched_insert(key: bytes, block: Any) -> None:
            self.live.setdefault(key, set()).add(block.block_id)
            insert(key, block)

        def watched_pop(key: bytes, block_id: int) -> Any:
            popped = pop(key, block_id)
            if popped is not None:
                self._left(key, block_id)
            return popped

        held.insert, held.pop = watched_insert, watched_pop

    def _left(self, key: bytes, block_id: int) -> None:
        self.live[key].discard(block_id)
        if not self.live[key]:
            del self.live[key]
        self.gone[key] = ("evicted", time.monotonic_ns(), len(self.ends))

    def _watch_schedule(self, scheduler: Any) -> None:
        schedule = scheduler.schedule

        def watched(*arguments: Any) -> Any:
            result = schedule(*arguments)
            self.ends.append(time.monotonic_ns())
            return result

        scheduler.schedule = watched

    def _watch_reset(self) -> None:
        reset = self.pool.reset_prefix_cache

        def watched() -> bool:
            done = reset()
            if done:
                now = time.monotonic_ns()
                self.gone.update({key: ("reset", now, len(self.ends)) for key in self.live})
                self.live = {}
                self._watch_map()
            return bool(done)

        self.pool.reset_prefix_cache = watched

    def _watch_lookups(self) -> None:
        look, admit = self.manager.get_computed_blocks, self.manager.record_prefix_cache_stats

        def watched_look(request: Any) -> Any:
            result = look(request)
            self.lookups += 1
            self.looked[request.request_id] = self._expect(request, result[1])
            return result

        def watched_admit(request: Any, num_hits: int) -> None:
            admit(request, num_hits)
            row = self.looked.pop(request.request_id)
            assert row["hit"] == num_hits
            self.rows.append(row)

        self.manager.get_computed_blocks, self.manager.record_prefix_cache_stats = watched_look, watched_admit

    def _expect(self, request: Any, hit: int) -> dict[str, Any]:
        asked = request.num_tokens
        missed: Counter[str] = Counter()
        evicted: list[tuple[int, int]] = []
        if not self.manager.enable_caching or request.skip_reading_prefix_cache:
            missed["off"] = asked
        else:
            for end in range(hit + self.block_size, asked, self.block_size):
                reason, when, call = self._why(request.block_hashes[end // self.block_size - 1])
                missed[reason] += self.block_size
                evicted += [(when, call)] if reason == "evicted" else []
            rest = asked % self.block_size
            missed["short" if rest else "last"] += rest or self.block_size
        return {
            "resumed": request.num_preemptions > 0,
            "asked": asked,
            "hit": hit,
            **{name: missed[name] for name in REASONS},
            "newest": max(evicted, default=None),
            "oldest": min(evicted, default=None),
        }

    def dated_rows(self) -> list[dict[str, Any]]:
        """With the times between which the evictions must be dated: their own, and the end of their schedule() call."""
        for row in self.rows:
            for name in ("newest", "oldest"):
                if row[name] is not None:
                    row[name] = (row[name][0], self.ends[row[name][1]])
        return self.rows

    def _why(self, block_hash: bytes) -> tuple[str, int, int]:
        keys = [block_hash + group.to_bytes(4, "big") for group in range(self.manager.num_kv_cache_groups)]
        absent = [key for key in keys if key not in self.live]
        if not absent:
            return "untaken", 0, 0
        left = [self.gone[key] for key in absent if key in self.gone]
        if left:
            return max(left, key=lambda one: one[1])
        return ("unkept" if len(absent) < len(keys) else "new"), 0, 0


class Lru:
    """Blocks in the order in which they are handed out next, each with the prefix that it holds or None.

    For requests that run one after the other and whose prompt is one batch.
    """

    def __init__(self, blocks: int, block_size: int) -> None:
        self.block_size = block_size
        self.queue = list(range(1, blocks))
        self.content: dict[int, tuple[int, ...] | None] = dict.fromkeys(self.queue)
        self.holders: dict[tuple[int, ...], list[int]] = {}
        self.gone: dict[tuple[int, ...], str] = {}

    def run(self, prompt: list[int]) -> dict[str, int]:
        """One request with a single output token: what it finds and misses."""
        size = self.block_size
        prefixes = [tuple(prompt[: end + size]) for end in range(0, len(prompt) - size + 1, size)]
        may_hit = prefixes[: (len(prompt) - 1) // size]
        hits = 0
        while hits < len(may_hit) and may_hit[hits] in self.holders:
            hits += 1
        missed: Counter[str] = Counter()
        for prefix in may_hit[hits:]:
            missed["untaken" if prefix in self.holders else self.gone.get(prefix, "new")] += size
        missed["short" if len(prompt) % size else "last"] += len(prompt) % size or size
        self._hold(prefixes, hits, -(-len(prompt) // size))
        return {"hit": hits * size, **missed}

    def _hold(self, prefixes: list[tuple[int, ...]], hits: int, blocks: int) -> None:
        taken = [self.holders[prefix][0] for prefix in prefixes[:hits]]
        for block in taken:
            self.queue.remove(block)
        fresh = [self.queue.pop(0) for _ in range(blocks - hits)]
        for block in fresh:
            self._empty(block)
        for block, prefix in zip(fresh, prefixes[hits:], strict=False):
            self.content[block] = prefix
            self.holders.setdefault(prefix, []).append(block)
        back = [*taken, *fresh][::-1]
        self.queue = [b for b in back if self.content[b] is None] + self.queue + [b for b in back if self.content[b]]

    def _empty(self, block: int) -> None:
        prefix = self.content[block]
        if prefix is not None:
            self.content[block] = None
            self.holders[prefix].remove(block)
            self.gone[prefix] = "evicted"
            if not self.holders[prefix]:
                del self.holders[prefix]

    def reset(self) -> None:
        """Nothing is held any more."""
        self.gone.update(dict.fromkeys(self.holders, "reset"))
        self.holders.clear()
        self.content = dict.fromkeys(self.content)
