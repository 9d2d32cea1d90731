"""vLLM's block pool with another number of blocks: what is cached, held, and evicted next.

From vLLM 0.32, `v1/core/block_pool.py`: a freed block without a hash goes to the front of the free queue, one with a hash to
its end; new blocks are taken from the front. So blocks without content, never used ones included, always come first and need
only be counted; the others are a queue in order of the moment at which they were freed. Equal blocks that two requests
computed at once are both kept.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence


class Pool:
    """Blocks are named by their content, a number from 0 on; a second block with the same content has a negative name."""

    __slots__ = (
        "_copies", "_copy_of", "_next_copy", "_queue", "_users", "empty", "evictions", "fewest_empty", "frees", "size", "taken",
    )  # fmt: skip

    def __init__(self, size: int) -> None:
        """`size` is without the null block."""
        self.size = size
        self.empty = self.fewest_empty = size
        self.taken = 0
        self.evictions = 0
        self.frees = 0
        self._users: dict[int, int] = {}
        self._queue: OrderedDict[int, None] = OrderedDict()
        self._copies: dict[int, list[int]] = {}
        self._copy_of: dict[int, int] = {}
        self._next_copy = -1

    @property
    def free(self) -> int:
        """Blocks that nobody holds."""
        return self.empty + len(self._queue)

    @property
    def in_use(self) -> int:
        """Blocks that somebody holds."""
        return self.size - self.free

    def find(self, contents: Sequence[int], most: int) -> list[int]:
        """The cached blocks with which a request begins, at most so many: a hit ends at the first that is not cached."""
        users, copies = self._users, self._copies
        found: list[int] = []
        for content in contents[:most]:
            if content in users:
                found.append(content)
            elif content in copies:
                found.append(copies[content][0])
            else:
                break
        return found

    def num_idle(self, blocks: Sequence[int]) -> int:
        """Of cached blocks those that nobody holds."""
        users = self._users
        return sum(not users[block] for block in blocks)

    def hold(self, blocks: Sequence[int]) -> None:
        """Cached blocks get one more user."""
        users, queue = self._users, self._queue
        for block in blocks:
            if not users[block]:
                del queue[block]
            users[block] += 1

    def take(self, count: int) -> None:
        """So many blocks for new content, evicting what was freed first. The caller has seen that there are enough."""
        from_empty = min(count, self.empty)
        self.taken += count
        self.empty -= from_empty
        if self.empty < self.fewest_empty:
            self.fewest_empty = self.empty
        users, copies, first = self._users, self._copy_of, self._queue.popitem
        for _ in range(count - from_empty):
            block, _ = first(last=False)
            del users[block]
            if block in copies:
                self._forget_copy(block)
        self.evictions += count - from_empty

    def keep(self, contents: Sequence[int]) -> list[int]:
        """Blocks that were taken are full now and can be found; their names."""
        users = self._users
        names = []
        for content in contents:
            name = self._copy(content) if content in users else content
            users[name] = 1
            names.append(name)
        return names

    def _copy(self, content: int) -> int:
        """Another block with a content that is cached."""
        name = self._next_copy
        self._next_copy -= 1
        self._copy_of[name] = content
        self._copies.setdefault(content, []).append(name)
        return name

    def give_back(self, blocks: Sequence[int], num_without_content: int) -> None:
        """A request's blocks, in the order of its tokens: the last one is evicted first."""
        users, queue = self._users, self._queue
        for block in reversed(blocks):
            left = users[block] = users[block] - 1
            if not left:
                queue[block] = None
        self.empty += num_without_content
        self.frees += 1

    def reset(self) -> None:
        """Forget everything that nobody holds; vLLM refuses a reset while blocks are held, which a replay cannot."""
        for block in self._queue:
            del self._users[block]
            if block in self._copy_of:
                self._forget_copy(block)
        self.empty += len(self._queue)
        self._queue.clear()
        self.frees += 1

    def _forget_copy(self, block: int) -> None:
        content = self._copy_of.pop(block)
        copies = self._copies[content]
        copies.remove(block)
        if not copies:
            del self._copies[content]
