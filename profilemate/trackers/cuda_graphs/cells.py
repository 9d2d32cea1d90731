"""Cells of a graph's descriptor."""

from __future__ import annotations

from functools import lru_cache

from profilemate.export.cells import number, word
from profilemate.trackers.cuda_graphs.graph import Descriptor

DESCRIPTOR_HEADER = ("runtime_mode", "num_tokens", "num_reqs", "uniform", "has_lora")
FURTHER_HEADER = ("num_active_loras", "uniform_token_count", "max_query_len", "num_ubatches")


@lru_cache(4096)
def descriptor_cells(descriptor: Descriptor) -> tuple[str, ...]:
    """The columns that users know; `num_reqs` is None where vLLM's is."""
    return (
        word(descriptor.runtime_mode),
        number(descriptor.num_tokens),
        "None" if descriptor.num_reqs is None else str(descriptor.num_reqs),
        str(descriptor.is_uniform),
        str(descriptor.uses_lora),
    )


@lru_cache(4096)
def further_cells(descriptor: Descriptor) -> tuple[str, ...]:
    """The other fields of the descriptor, appended on the right."""
    return tuple(number(value) for value in descriptor[5:])
