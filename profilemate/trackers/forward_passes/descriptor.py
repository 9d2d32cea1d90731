"""vLLM's graph descriptors as a row's cells, whichever runner and version they come from: fields are read by name."""

from __future__ import annotations

from typing import Any

Descriptor = tuple[Any, ...]
"""runtime_mode, num_tokens, num_reqs, uniform, has_lora, num_active_loras, uniform_token_count, max_query_len,
num_ubatches: the columns of events.DESCRIPTOR."""


def mode_name(mode: Any) -> str:
    """FULL, PIECEWISE or NONE."""
    return str(getattr(mode, "name", mode))


def of_batch(mode: Any, batch: Any) -> Descriptor:
    """From the V1 runner's BatchDescriptor and the runtime mode beside it. vLLM 0.11 has `uniform_decode` instead."""
    uniform = getattr(batch, "uniform", None)
    if uniform is None:
        uniform = getattr(batch, "uniform_decode", False)
    return (
        mode_name(mode),
        getattr(batch, "num_tokens", None),
        getattr(batch, "num_reqs", None),
        bool(uniform),
        bool(getattr(batch, "has_lora", False)),
        getattr(batch, "num_active_loras", None),
        None,
        None,
        None,
    )


def of_execution(desc: Any) -> Descriptor:
    """From the V2 runner's BatchExecutionDescriptor, which carries its own mode."""
    loras = getattr(desc, "num_active_loras", None)
    uniform_token_count = getattr(desc, "uniform_token_count", None)
    return (
        mode_name(desc.cg_mode),
        desc.num_tokens,
        desc.num_reqs,
        uniform_token_count is not None,
        bool(loras),
        loras,
        uniform_token_count,
        getattr(desc, "max_query_len", None),
        getattr(desc, "num_ubatches", None),
    )


def of_v2_piece(mode: Any, batch: Any, execution_fields: set[str]) -> Descriptor:
    """From the BatchDescriptor that the V2 runner puts in the forward context of a PIECEWISE pass.

    Written as the BatchExecutionDescriptor that was dispatched, so that captures and replays have one key: there
    `has_lora` says that adapters are active, here that LoRA is configured. `execution_fields` are the fields that this
    version's BatchExecutionDescriptor has.
    """
    loras = getattr(batch, "num_active_loras", None) if "num_active_loras" in execution_fields else None
    return (
        mode_name(mode),
        batch.num_tokens,
        None,
        False,
        bool(loras),
        loras,
        None,
        None,
        1 if "num_ubatches" in execution_fields else None,
    )


def of_size(num_tokens: Any, mode: str = "FULL") -> Descriptor:
    """A graph that vLLM knows by a size alone (encoder budgets, micro-batches, sampler graphs)."""
    return (mode, num_tokens, None, False, False, None, None, None, None)


def without_graph(descriptor: Descriptor) -> Descriptor:
    """The key under which passes without a graph are added up: any number of sizes would make a table without end."""
    return (descriptor[0], *(None,) * (len(descriptor) - 1))
