"""Whose output a cached block was that no earlier prompt has: the next turn of a conversation begins with it.

prefix_blocks has the blocks of prompts alone. A block that a look-up found, or that had been evicted, and that is in no earlier
prompt, was written by the output of a request whose prompt is the beginning of this one.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from profilemate.advise.kv.trace import Asked, Trace

CANDIDATES = 8
"""So many requests with the same prompt are asked whose output it was, the latest first."""

Continued = Mapping[int, tuple[int, ...]]
"""By the place of a request in the trace: the blocks that follow those of its prompt."""


def continued_prompts(trace: Trace) -> Continued:
    """Requests whose output is the beginning of a later prompt."""
    tree, size = trace.tree, trace.limits.block_size
    seen = bytearray(len(tree.parents))
    by_end: dict[int, deque[int]] = {}
    found: dict[int, tuple[int, ...]] = {}
    for place, one in enumerate(trace.asked):
        in_cache = min(one.in_cache_tokens // size, tree.depth(one.end))
        known = _ancestor(tree.parents, one.end, tree.depth(one.end) - in_cache)
        if known >= 0 and not seen[known]:
            path = tree.path(known)
            owner = _owner(trace, path, seen, by_end)
            if owner is not None:
                start = tree.depth(trace.asked[owner].end)
                if len(found.get(owner, ())) < len(path) - start:
                    found[owner] = tuple(path[start:])
        for block in _unseen(tree.parents, one.end, seen):
            seen[block] = 1
        by_end.setdefault(one.end, deque(maxlen=CANDIDATES)).append(place)
    return found


def _unseen(parents: array[int], end: int, seen: bytearray) -> Iterator[int]:
    """Blocks of a prompt that no earlier one has: those before a seen one are seen."""
    while end >= 0 and not seen[end]:
        yield end
        end = parents[end]


def _ancestor(parents: array[int], end: int, steps: int) -> int:
    for _ in range(steps):
        end = parents[end]
    return end


def _owner(trace: Trace, path: list[int], seen: bytearray, by_end: Mapping[int, deque[int]]) -> int | None:
    """The latest request with the longest prompt that is the beginning of `path` and whose tokens reach to its end."""
    first_unseen = next(place for place, block in enumerate(path) if not seen[block])
    for length in range(first_unseen, -1, -1):
        for place in reversed(by_end.get(path[length - 1] if length else -1, ())):
            if computed_tokens(trace.asked[place]) // trace.limits.block_size >= len(path):
                return place
    return None


def computed_tokens(one: Asked) -> int:
    """Tokens that get keys and values: all but the last of the output, which no step computes; of an open end no limit."""
    if one.output_tokens is None:
        return 1 << 60
    return one.prompt_tokens + max(one.output_tokens, 1) - 1
