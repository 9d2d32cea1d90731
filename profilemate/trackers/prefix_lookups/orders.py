"""The blocks of prompts in order, written a bounded number at an engine step, and each only once while it is remembered."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from profilemate.probe.request_ids import hash_texts
from profilemate.probe.stream import Stream
from profilemate.trackers.prefix_lookups.remembered import Remembered

BLOCKS_PER_STEP = 128
"""So many hashes are keyed at the end of a schedule() call, 0.5 to 0.8 microseconds each."""

ROW_COSTS_BLOCKS = 4
"""A row takes as long as so many blocks."""

WAITING_BLOCKS = 1 << 16
"""So many hashes may wait: 5 MiB, eight prompts of 128k tokens."""

WRITTEN_PER_PART = 1 << 14
"""Eight parts remember the last 131,072 blocks that were written, in 12 MiB."""

WRITTEN = 1


class Order(NamedTuple):
    """The blocks of an admitted request: vLLM's hashes, the objects themselves."""

    engine: int
    lookup: int
    request: str
    hashes: list[bytes]


class Orders:
    """Prompts whose blocks are to be written, the first to come first."""

    def __init__(self, stream: Stream) -> None:
        """Nothing is waiting."""
        self.stream = stream
        self.forget()

    def forget(self) -> None:
        """As at the beginning: for a forked child."""
        self.waiting: deque[Order] = deque()
        self._waiting_blocks = 0
        self._next = -1
        self._written = Remembered(WRITTEN_PER_PART)

    def add(self, order: Order) -> int:
        """Let the blocks of a request wait for their turn. Returns how many had to be left out."""
        if not order.hashes:
            return 0
        if self._waiting_blocks + len(order.hashes) > WAITING_BLOCKS:
            return len(order.hashes)
        self._waiting_blocks += len(order.hashes)
        self.waiting.append(order)
        return 0

    def write_some(self, now_ns: int) -> None:
        """Make rows of the next blocks, as many as a step may have."""
        left = BLOCKS_PER_STEP
        while self.waiting and left > 0:
            order = self.waiting[0]
            hashes = order.hashes
            first = self._next if self._next >= 0 else self._known(hashes)
            some = hashes[first : first + left]
            left -= ROW_COSTS_BLOCKS + len(some)
            self._write(order, first, some, now_ns)
            self._next = first + len(some)
            if self._next == len(hashes):
                self._next = -1
                self._waiting_blocks -= len(hashes)
                self.waiting.popleft()

    def _write(self, order: Order, first: int, some: list[bytes], now_ns: int) -> None:
        texts = hash_texts(order.hashes[first - 1 : first] + some) if first else ["", *hash_texts(some)]
        self.stream.add(
            f"{now_ns},{order.engine},{order.lookup},{order.request},{len(order.hashes)},{first},"
            f"{texts[0]},{' '.join(texts[1:])}\n"
        )
        self._written.add(list(map(hash, some)), WRITTEN)

    def _known(self, hashes: list[bytes]) -> int:
        """How many of the first blocks were written before, as far as is remembered: a block comes after all before it."""
        low, high = 0, len(hashes)
        while low < high:
            middle = (low + high) // 2
            if self._written.value_of(hash(hashes[middle])):
                low = middle + 1
            else:
                high = middle
        return low
