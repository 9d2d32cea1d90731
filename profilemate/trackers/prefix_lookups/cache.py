"""What one engine's prefix cache holds and held, asked block by block at the moment of a look-up."""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

from profilemate.trackers.prefix_lookups.remembered import Remembered

GONE_PER_PART = 1 << 15
"""Eight parts remember the last 262,144 blocks that left the cache, in 23 MiB."""

BLOCKS_PER_STEP = 256
"""So many missed blocks are looked at in an engine step, 0.6 to 4 microseconds each; of more, every n-th."""

FEWEST_BLOCKS = 16
"""So many even if the others of the step have used that up."""

UNKNOWN_IN_A_ROW = 32
"""After so many that cannot be told, the rest is taken for unknown too: later blocks of a prompt are evicted first."""

NEW = 0
UNKNOWN = None
UNTAKEN = "untaken"
UNKEPT = "unkept"

Found = int | str | None
"""Of a missed block: NEW, UNKNOWN, UNTAKEN, UNKEPT, or when it was evicted; minus the time where a reset dropped it."""


class Missed(NamedTuple):
    """Blocks that a look-up did not find, from index `first` to before `end`.

    `found` is of every `every`-th one, each standing for those up to the next; the others are `rest`.
    """

    first: int
    end: int
    every: int
    found: list[Found]
    rest: Found
    reach_ns: int

    @property
    def is_settled(self) -> bool:
        """Whether what follows is `rest` too."""
        return len(self.found) * self.every < self.end - self.first


class PrefixCache:
    """One BlockPool's hashes. A block is here what a hit can end after: `unit` tokens, of which vLLM hashes `hash_unit`.

    What leaves it is noted in `leaving` and gets its time at the next look, in the same call of schedule() as a rule.
    """

    __slots__ = ("budget", "gone", "hash_unit", "is_dense", "leaving", "losses", "suffixes", "unit")

    def __init__(self, manager: Any, now_ns: int) -> None:
        """`manager` is the KVCacheManager, of which nothing is kept."""
        pool = manager.block_pool
        self.unit = hit_unit(manager)
        self.hash_unit = int(getattr(pool, "hash_block_size", self.unit))
        self.suffixes, self.is_dense = group_suffixes(manager)
        self.gone = Remembered(GONE_PER_PART, now_ns if cached(pool) else 0)
        self.leaving: list[bytes] = []
        self.losses = 0
        self.budget = BLOCKS_PER_STEP

    def settle(self, now_ns: int) -> None:
        """What was noted since the last look left the cache by now; minus the time if a reset dropped it."""
        if self.leaving:
            self.losses += 1
            self.gone.add(list(map(hash, self.leaving)), now_ns)
            self.leaving.clear()

    def missed(self, pool: Any, hashes: list[bytes], hit_tokens: int, asked_tokens: int) -> list[Missed]:
        """Look at the blocks that a look-up could have found and did not: the first ones each, of too many others some."""
        first = hit_tokens // self.unit
        end = min((asked_tokens - 1) // self.unit, len(hashes) * self.hash_unit // self.unit)
        if end <= first:
            return []
        may_look_at = max(FEWEST_BLOCKS, self.budget // len(self.suffixes))
        if end - first <= may_look_at:
            return [self._look_at(pool, hashes, first, end, 1)]
        half = may_look_at // 2
        dense = self._look_at(pool, hashes, first, first + half, 1)
        if dense.is_settled:
            return [dense._replace(end=end)]
        return [dense, self._look_at(pool, hashes, first + half, end, -(-(end - first - half) // half))]

    def begins_as(self, pool: Any, hashes: list[bytes], missed: list[Missed]) -> bool:
        """Whether the first missed block is still missed for the reason that was found before."""
        if not missed:
            return True
        was, step = missed[0], self.unit // self.hash_unit
        is_now = self._ask(hashes[(was.first + 1) * step - 1], cached(pool))
        return is_now == (was.found[0] if was.found else was.rest)

    def _look_at(self, pool: Any, hashes: list[bytes], first: int, end: int, every: int) -> Missed:
        """What is known of each, until the rest can be told without looking."""
        step = self.unit // self.hash_unit
        found: list[Found] = []
        rest: Found = UNKNOWN
        in_a_row = 0
        live = cached(pool)
        for block_hash in hashes[(first + 1) * step - 1 : end * step : step * every]:
            what = self._ask(block_hash, live)
            if what == NEW and self.is_dense:  # what follows a block that never was there never was there either
                rest = NEW
                break
            found.append(what)
            in_a_row = in_a_row + 1 if what is UNKNOWN else 0
            if in_a_row == UNKNOWN_IN_A_ROW:
                break
        self.budget -= (len(found) + 1) * len(self.suffixes)
        return Missed(first, end, every, found, rest, self.gone.reach)

    def _ask(self, block_hash: bytes, live: Any) -> Found:
        """What is known of a block. With several KV groups the latest loss among those that do not hold it."""
        if len(self.suffixes) == 1:
            key = block_hash + self.suffixes[0]
            return UNTAKEN if key in live else self.gone.value_of(hash(key))
        keys = [block_hash + suffix for suffix in self.suffixes]
        absent = [key for key in keys if key not in live]
        if not absent:
            return UNTAKEN
        times = [self.gone.value_of(hash(key)) for key in absent]
        latest = max((time for time in times if time), key=abs, default=NEW)
        if latest:
            return latest
        if UNKNOWN in times:
            return UNKNOWN
        return UNKEPT if len(absent) < len(keys) else NEW


def hit_unit(manager: Any) -> int:
    """Tokens of which every hit is a multiple: the block, or with several KV groups what their blocks have in common.

    Raises AttributeError where none is found.
    """
    coordinator, pool = getattr(manager, "coordinator", None), manager.block_pool
    places = (
        (coordinator, "_cache_hit_alignment_tokens"),  # several groups
        (coordinator, "lcm_block_size"),  # the same up to vLLM 0.2x
        (coordinator, "block_size"),
        (pool, "hash_block_size"),
        (manager, "block_size"),  # vLLM 0.11
    )
    for owner, name in places:
        unit = getattr(owner, name, None)
        if isinstance(unit, int) and unit > 0:
            return unit
    raise AttributeError("no block size of the KV cache")


def group_suffixes(manager: Any) -> tuple[tuple[bytes, ...], bool]:
    """What vLLM appends to a hash for each KV group that is cached, full attention first.

    The second value is whether that group keeps every block of a prompt, so that none follows one that never was there.
    """
    groups = getattr(getattr(manager, "kv_cache_config", None), "kv_cache_groups", None) or [None]
    numbered = [(index, getattr(group, "kv_cache_spec", None)) for index, group in enumerate(groups)]
    kept = [(index, spec) for index, spec in numbered if getattr(spec, "prefix_cacheable", True)] or numbered[:1]
    kept.sort(key=lambda one: not is_full_attention(one[1]))
    with_group = sys.modules["vllm.v1.core.kv_cache_utils"].make_block_hash_with_group_id
    suffixes = tuple(with_group(b"", index) + b"" for index, _ in kept)  # raises where the key is no bytes
    return suffixes, kept[0][1] is None or is_full_attention(kept[0][1])


def is_full_attention(spec: Any) -> bool:
    """Told by the names of its classes: nothing of vLLM is imported."""
    return any(one.__name__ == "FullAttentionSpec" for one in type(spec).__mro__)


def cached(pool: Any) -> Any:
    """The mapping from hashes with their group to blocks, whose keys are what is cached now."""
    held = pool.cached_block_hash_to_block
    return getattr(held, "_cache", held)
