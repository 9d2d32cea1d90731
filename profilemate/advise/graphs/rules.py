"""Which CUDA graphs vLLM captures from a list of sizes, and which of them a batch runs in.

Sources, in vLLM 0.32: `VllmConfig._set_cudagraph_sizes` (config/vllm.py), `adjust_cudagraph_sizes_for_spec_decode`
(config/compilation.py), `CudagraphDispatcher` (v1/cudagraph_dispatcher.py), `CudaGraphManager._init_candidates`
(v1/worker/gpu/cudagraph_utils.py). tests/unit/test_advise_graphs_rules.py holds these functions against those classes.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

FULL, PIECEWISE, NONE = "FULL", "PIECEWISE", "NONE"
V1, V2 = "V1", "V2"


@dataclass(frozen=True)
class Ladder:
    """Graphs without LoRA: token counts of decode graphs (FULL, uniform) and of graphs for any batch, ascending."""

    decode: tuple[int, ...]
    mixed: tuple[int, ...]
    mixed_mode: str
    """FULL or PIECEWISE; NONE where only decode batches have graphs."""

    @property
    def sizes(self) -> tuple[int, ...]:
        """Every size once."""
        return tuple(sorted({*self.decode, *self.mixed}))

    @property
    def graphs(self) -> int:
        """Descriptors, of one LoRA case."""
        return len(self.decode) + len(self.mixed)

    def dispatch(self, tokens: int, uniform: bool) -> tuple[str, int]:
        """Runtime mode and padded tokens of a batch. `uniform`: each request brings the decode query length.

        The padded size is the smallest captured one that is not below `tokens`. V1 looks up one padded size and then asks
        whether its FULL graph exists; V2 asks the FULL sizes first. The FULL sizes are those of all sizes that do not
        exceed the largest decode batch, so both find the same graph.
        """
        if uniform and (size := at_least(self.decode, tokens)):
            return FULL, size
        if size := at_least(self.mixed, tokens):
            return self.mixed_mode, size
        return NONE, tokens

    @property
    def decode_reach(self) -> int:
        """The largest decode batch that has a graph, in tokens; 0 without one."""
        return max([*self.decode[-1:], *self.mixed[-1:]], default=0)


@dataclass(frozen=True)
class Rules:
    """What, beside the sizes, decides which graphs there are. `max_batched_tokens` is None where it is not known."""

    runner: str
    full_decode: bool
    """Decode batches have FULL graphs of their own (FULL_AND_PIECEWISE, FULL_DECODE_ONLY)."""
    mixed_mode: str
    query_len: int
    """Tokens of a decoding request: 1 + num_speculative_tokens."""
    max_num_seqs: int
    max_batched_tokens: int | None
    lora_cases: int = 1
    """Graphs per size and mode: one without LoRA, and those for active adapters."""

    @property
    def decode_cap(self) -> int:
        """Tokens of the largest decode batch that the scheduler can make."""
        cap = self.query_len * self.max_num_seqs
        if self.max_batched_tokens is None:
            return cap
        return min(cap, self.max_batched_tokens // self.query_len * self.query_len)

    @property
    def step(self) -> int:
        """Sizes that are advised are multiples of it.

        The V1 runner rounds every size up to a multiple of the query length where decode graphs are FULL, and drops those
        that then exceed the largest; the V2 runner does so for decode graphs.
        """
        decode_is_full = self.full_decode or self.mixed_mode == FULL
        return self.query_len if decode_is_full else 1

    def ladder(self, sizes: Iterable[int]) -> Ladder:
        """The graphs that vLLM makes of configured sizes."""
        kept = sorted({size for size in sizes if self.max_batched_tokens is None or size <= self.max_batched_tokens})
        if self.runner == V1 and self.step > 1 and kept:
            rounded = {up for size in kept if (up := round_up(size, self.step)) <= kept[-1]}
            kept = sorted(rounded) or [self.step] * (self.step <= kept[-1])
        return Ladder(
            tuple(self._decode_sizes(kept)) if self.full_decode else (),
            tuple(kept) if self.mixed_mode != NONE else (),
            self.mixed_mode,
        )

    def _decode_sizes(self, kept: Sequence[int]) -> list[int]:
        cap = self.query_len * self.max_num_seqs
        rounded = sorted({round_up(size, self.query_len) for size in kept})
        return [size for size in rounded if size <= cap and size <= kept[-1]]

    def graphs_of(self, size: int) -> int:
        """Graphs that one size brings, LoRA cases included. `size` is a multiple of `step`."""
        return self.lora_cases * (len(self.ladder([size]).decode) + (self.mixed_mode != NONE))


def round_up(value: int, multiple: int) -> int:
    """The smallest multiple that is not below."""
    return -(-value // multiple) * multiple


def at_least(sizes: Sequence[int], tokens: int) -> int:
    """The smallest of ascending sizes that is not below `tokens`, or 0."""
    place = bisect_left(sizes, tokens)
    return sizes[place] if place < len(sizes) else 0
