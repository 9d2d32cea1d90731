"""What a replay gives, and a request on its way through it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

OWN_CONTENT = 1 << 40
"""Contents from here on are outputs that no prompt has: the request's place, then the block's."""


@dataclass
class Outcome:
    """What a cache of `usable_blocks` gives. Hits are those of first admissions, as in vLLM's metric.

    `taken` are blocks given out for something to compute, `most_filled` those that were ever used: so many, and nothing is
    evicted. `is_too_small` says that a request did not fit even alone, so that the server would refuse to start or to answer.
    """

    usable_blocks: int
    asked_tokens: int = 0
    hit_tokens: int = 0
    evictions: int = 0
    preemptions: int = 0
    recomputed_tokens: int = 0
    taken: int = 0
    peak_blocks: int = 0
    most_filled: int = 0
    steps: int = 0
    seconds: float = 0.0
    block_seconds: float = 0.0
    finished: int = 0
    is_too_small: bool = False

    @property
    def hit_rate(self) -> float:
        """Share of the tokens that were looked up."""
        return self.hit_tokens / self.asked_tokens if self.asked_tokens else 0.0

    @property
    def mean_blocks(self) -> float:
        """Blocks in use, over time."""
        return self.block_seconds / self.seconds if self.seconds else 0.0


@dataclass(eq=False, slots=True)
class Request:
    """One request. `tokens` are known, `computed` have keys and values; while it decodes both grow with the step."""

    place: int
    prompt_blocks: list[int]
    continued: Sequence[int]
    tokens: int
    target_tokens: int
    is_looked_up: bool
    number: int = 0
    computed: int = 0
    decodes_since: int = -1
    last_step: int = -1
    held: list[int] = field(default_factory=list)
    unfilled: int = 0
    num_preemptions: int = 0
    lost_tokens: int = 0

    def contents(self, first: int, end: int) -> list[int]:
        """Of its blocks from index `first` to before `end`."""
        blocks = self.prompt_blocks
        if end <= len(blocks):
            return blocks[first:end]
        own = OWN_CONTENT + (self.place << 24)
        known = [*blocks[first:], *self.continued[max(0, first - len(blocks)) : end - len(blocks)]]
        return [*known, *(own + index for index in range(first + len(known), end))]
