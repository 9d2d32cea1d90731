"""Blocks as memory, and the flags that change how many there are."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from profilemate.session.records import items_of, number, table_of, text
from profilemate.session.views import engine_config, graph_workers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from profilemate.session.session import Session

SIXTEEN_BITS = {"float16", "bfloat16", "half"}
MODEL_TYPE = "auto"
HIGHEST_UTILIZATION = 0.97
"""More than this leaves no room for what vLLM does not count; it is not advised."""

GIGABYTES = re.compile(r"(\d{2,3})\s?GB\b", re.IGNORECASE)


@dataclass(frozen=True)
class Memory:
    """What the session tells of the memory behind the blocks; None where it does not.

    `bytes_per_block` is of one worker; `device_bytes` is read from the device's name, where that ends in its size.
    """

    config: Mapping[str, object]
    bytes_per_block: int | None
    device_bytes: int | None

    @property
    def is_overridden(self) -> bool:
        """Whether the number of blocks was given by hand."""
        return bool(self.config.get("num_gpu_blocks_override"))

    @property
    def is_cpu(self) -> bool:
        """Whether the model runs on a CPU."""
        return self.config.get("device") == "cpu"

    @property
    def is_sixteen_bit(self) -> bool:
        """Whether a cache of 8 bits would have twice the blocks in the same memory."""
        kind = text(self.config.get("cache_dtype")).removeprefix("torch.")
        model = text(self.config.get("dtype")).removeprefix("torch.")
        return (model if kind == MODEL_TYPE else kind) in SIXTEEN_BITS

    def utilization(self, more_blocks: int) -> float | None:
        """`--gpu-memory-utilization` for so many more blocks, to a hundredth above; None where it cannot be computed."""
        now = number(self.config.get("gpu_memory_utilization"))
        if self.bytes_per_block is None or self.device_bytes is None or not now:
            return None
        return math.ceil(100 * (now + more_blocks * self.bytes_per_block / self.device_bytes) - 1e-9) / 100


def memory_of(session: Session) -> Memory:
    """Of the first engine core's configuration and the first worker's KV layers (tracker bandwidth)."""
    config = engine_config(session)
    workers = graph_workers(session)
    facts = workers[0].process.engine_config if workers else {}
    layers = [table_of(one) for one in items_of(facts.get("kv_layers"))]
    per_token = sum(number(one.get("layers")) * number(one.get("bytes")) for one in layers)
    is_plain = len(layers) == 1 and not layers[0].get("window") and config.get("pipeline_parallel_size", 1) == 1
    block_size = number(config.get("block_size"))
    named = GIGABYTES.search(text(facts.get("device_name")))
    return Memory(
        config,
        int(per_token * block_size) if is_plain and per_token and block_size else None,
        int(named[1]) << 30 if named else None,
    )


def command_lines(memory: Memory, blocks: int, usable_blocks: int) -> list[str]:
    """Ways to have so many usable blocks instead of `usable_blocks`, the one to be preferred first.

    `num_gpu_blocks` counts the null block, which nobody can use. A cache of 8 bits has twice the blocks in the same memory,
    unless their number is given by hand.
    """
    override = f"--num-gpu-blocks-override {blocks + 1}"
    found = [override]
    utilization = memory.utilization(blocks - usable_blocks)
    if not memory.is_overridden and utilization is not None and 0 < utilization <= HIGHEST_UTILIZATION:
        found.insert(0, f"--gpu-memory-utilization {utilization:.2f}")
    if usable_blocks < blocks <= 2 * usable_blocks + 1 and memory.is_sixteen_bit and not memory.is_cpu:
        found.append(f"--kv-cache-dtype fp8{f' {override}' if memory.is_overridden else ''}")
    return found


def memory_text(memory: Memory, blocks: int, usable_blocks: int) -> str:
    """What so many blocks mean for memory and for `--gpu-memory-utilization`."""
    more = blocks - usable_blocks
    change = "more" if more > 0 else "less"
    parts = []
    if memory.bytes_per_block is not None:
        gib = abs(more) * memory.bytes_per_block / (1 << 30)
        parts.append(f"It takes {gib:.3g} GiB {change} on each worker, {memory.bytes_per_block:,} bytes for a block.")
    parts.append(_utilization_text(memory, more))
    if more > 0:
        parts.append("An override makes no memory: where it is not there, the server does not start.")
    return " ".join(parts)


def _utilization_text(memory: Memory, more: int) -> str:
    change = "more" if more > 0 else "fewer"
    if memory.is_overridden:
        return "The number of blocks is set by --num-gpu-blocks-override, beside which --gpu-memory-utilization has no say."
    utilization = memory.utilization(more)
    if utilization is None:
        return (
            f"{'A higher' if more > 0 else 'A lower'} --gpu-memory-utilization gives {change} blocks too: by those bytes "
            "divided by the memory of the device, which the session does not tell"
            + (
                ", nor the size of a block (the tracker bandwidth records it)."
                if memory.bytes_per_block is None
                else "."
            )
        )
    if utilization > HIGHEST_UTILIZATION:
        return f"--gpu-memory-utilization would have to be {utilization:.2f}, which this device does not have."
    return f"As --gpu-memory-utilization it is {utilization:.2f}, the memory of the device taken from its name."
