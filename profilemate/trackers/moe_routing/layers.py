"""The MoE layers of a loaded model: where their routers are, and which of them cannot be counted and why."""

from __future__ import annotations

import re
from types import FunctionType
from typing import Any, NamedTuple

from profilemate.probe.engine_config import read

COUNTED_METHOD = "_apply_eplb_mapping"
"""Every router of vLLM 0.16 and later passes its logical expert ids to this method of its own."""

TRACED = "traced"
MONOLITHIC = "monolithic"
MICRO_BATCHES = "micro_batches"
CONTEXT_PARALLEL = "context_parallel"
SEQUENCE_PARALLEL = "sequence_parallel"
OTHER_ROUTER = "other_router"
NO_HOOK = "no_hook"

LAYER_NUMBER = re.compile(r"(?:^|\.)(?:layers|blocks|h)\.(\d+)(?:\.|$)")


class MoeLayer(NamedTuple):
    """One MoE layer. `key` is the id of its router, `unseen` one of the words above or empty."""

    layer_idx: int
    key: int
    router: str
    num_experts: int
    top_k: int
    unseen: str


def layers_of(model: Any, config: Any) -> list[MoeLayer]:
    """The MoE layers of a model in their order; `config` is vLLM's whole configuration."""
    found: dict[int, tuple[str, Any]] = {}
    for name, module in model.named_modules():
        router = getattr(module, "router", None)
        if router is not None and hasattr(module, "moe_config"):
            found.setdefault(id(router), (str(getattr(module, "layer_name", name)), module))
    numbers = _numbers([name for name, _ in found.values()])
    unseen = _unseen_everywhere(config)
    return [_layer(number, module, unseen, config) for number, (_, module) in zip(numbers, found.values(), strict=True)]


def _numbers(names: list[str]) -> list[int]:
    """Layer numbers out of the modules' names; the order where a name has none or two have the same."""
    matches = [LAYER_NUMBER.findall(name) for name in names]
    numbers = [int(match[-1]) for match in matches if match]
    return numbers if len(set(numbers)) == len(names) else list(range(len(names)))


def _layer(number: int, module: Any, unseen: str, config: Any) -> MoeLayer:
    router = module.router
    experts = (
        read(module, "moe_config.num_logical_experts")
        or read(module, "moe_config.num_experts")
        or getattr(router, "global_num_experts", 0)
    )
    top_k = getattr(router, "top_k", 0) or read(module, "moe_config.experts_per_token") or 0
    if not hasattr(router, COUNTED_METHOD) or not experts or not top_k:
        unseen = OTHER_ROUTER
    elif not unseen:
        unseen = _unseen(module, config)
    return MoeLayer(number, id(router), type(router).__name__, int(experts), int(top_k), unseen)


def _unseen_everywhere(config: Any) -> str:
    """What of the configuration makes a router's rows others than the first ones of the batch."""
    parallel = getattr(config, "parallel_config", None)
    if read(parallel, "enable_dbo") or (read(parallel, "ubatch_size") or 0) > 1:
        return MICRO_BATCHES
    if (read(parallel, "prefill_context_parallel_size") or 1) > 1:
        return CONTEXT_PARALLEL
    return ""


def _unseen(module: Any, config: Any) -> str:
    if read(module, "is_monolithic") or read(module, "quant_method.is_monolithic"):
        return MONOLITHIC
    if read(module, "moe_config.moe_parallel_config.is_sequence_parallel"):
        return SEQUENCE_PARALLEL
    return TRACED if is_traced(module, config) else ""


def is_traced(module: Any, config: Any) -> bool:
    """Whether torch.compile traces the router's Python, so that it runs once and never again.

    On a GPU the layer is an opaque operator to the compiler. On a CPU (and a TPU) vLLM calls a Python function instead.
    """
    compilation = getattr(config, "compilation_config", None)
    mode = getattr(compilation, "mode", getattr(compilation, "level", 0))
    if not int(mode or 0):
        return False
    entry = getattr(module, "_forward_entry", None)
    if entry is None:
        return read(config, "device_config.device_type") in ("cpu", "tpu")
    return isinstance(entry, FunctionType)
