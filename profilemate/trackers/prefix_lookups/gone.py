"""Which block hashes left the cache, and when: a table of fixed size, without pauses for growing."""

from __future__ import annotations

from array import array


class GoneBlocks:
    """Entries are found by a 64-bit number. A full place gives up its older entry and remembers when that one was made.

    So what a place does not hold either was never there, or is older than the newest entry that it gave up.
    """

    __slots__ = ("_mask", "_numbers", "_reach", "_since_ns", "_times")

    def __init__(self, places: int, since_ns: int = 0) -> None:
        """`places` is a power of two. Nothing is known from before `since_ns`; 0 where there is nothing to know."""
        self._mask = places - 1
        self._numbers = array("q", bytes(16 * places))
        self._times = array("q", bytes(16 * places))
        self._reach = array("q", bytes(8 * places))
        self._since_ns = since_ns

    def add(self, number: int, time_ns: int) -> None:
        """A block left the cache: evicted at this monotonic time, or dropped by a reset at minus this time."""
        numbers, times = self._numbers, self._times
        at = (number & self._mask) << 1
        if numbers[at] != number:
            if numbers[at + 1] == number or abs(times[at + 1]) < abs(times[at]):
                at += 1
            if times[at] and numbers[at] != number:
                self._reach[at >> 1] = max(self._reach[at >> 1], abs(times[at]))
            numbers[at] = number
        times[at] = time_ns

    def time_of(self, number: int) -> int | None:
        """When it last left, as in `add`; 0 if it never did, None if that cannot be told."""
        at = (number & self._mask) << 1
        if self._numbers[at] == number and self._times[at]:
            return self._times[at]
        if self._numbers[at + 1] == number and self._times[at + 1]:
            return self._times[at + 1]
        return None if self._reach[at >> 1] or self._since_ns else 0

    def reach_ns(self, number: int) -> int:
        """A block that cannot be told about did not leave after this moment."""
        return max(self._reach[number & self._mask], self._since_ns)
