"""What is written once of the loaded model: its dimensions, its parameters and its KV layers, as plain numbers.

Parameters and KV layers are read from the worker's own objects, so that tensor, pipeline and expert parallelism, quantisation
and the KV cache's type are in the numbers. Everything is standard attribute access; no tensor is kept or computed with.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Mapping
from typing import Any

from profilemate.probe.engine_config import plain, read

TEXT_FIELDS = (
    "model_type", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim",
    "intermediate_size", "vocab_size", "moe_intermediate_size", "n_shared_experts", "num_shared_experts",
    "shared_expert_intermediate_size", "kv_lora_rank", "q_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim",
    "v_head_dim", "sliding_window", "attention_chunk_size", "first_k_dense_replace", "moe_layer_freq",
    "interleave_moe_layer_step", "decoder_sparse_step", "tie_word_embeddings",
)  # fmt: skip
"""Of the Hugging Face text configuration; a list of what may be written."""

ASKED = {
    "total_num_kv_heads": "get_total_num_kv_heads",
    "head_size": "get_head_size",
    "num_experts": "get_num_experts",
    "num_experts_per_token": "get_num_experts_per_tok",
}
"""Of vLLM's ModelConfig, which knows the many names of these; methods that some versions lack."""

OTHER_FIELDS = {
    "dtype": "model_config.dtype",
    "quantization": "model_config.quantization",
    "is_mla": "model_config.is_deepseek_mla",
    "cache_dtype": "cache_config.cache_dtype",
    "tensor_parallel_size": "parallel_config.tensor_parallel_size",
    "pipeline_parallel_size": "parallel_config.pipeline_parallel_size",
    "data_parallel_size": "parallel_config.data_parallel_size",
    "enable_expert_parallel": "parallel_config.enable_expert_parallel",
}

LARGE = "dense", "head", "embedding", "experts", "encoder"
ENCODERS = ("visual", "vision", "audio_tower", "multi_modal_projector", "mm_projector")
LAYER = re.compile(r"\.(\d+)\.")
DRAFTER = "draft_model."
MLA_COPIES = ("W_UK", "W_UV")
"""Of kv_b_proj, which MLA decodes with instead: a pass reads the one or the other, and they are as large."""


def dimensions(vllm_config: Any) -> dict[str, Any]:
    """Sizes from the configuration: of the whole model, not of one worker."""
    found = {
        name: plain(value) for name, path in OTHER_FIELDS.items() if (value := read(vllm_config, path)) is not None
    }
    text = read(vllm_config, "model_config.hf_text_config")
    for name in TEXT_FIELDS:
        value = getattr(text, name, None)
        if isinstance(value, (int, str)):
            found[name] = value
    types = getattr(text, "layer_types", None)
    if isinstance(types, (list, tuple)):
        found["layer_types"] = dict(Counter(str(one) for one in types))
    model_config = getattr(vllm_config, "model_config", None)
    for name, method in ASKED.items():
        value = ask(model_config, method)
        if isinstance(value, int):
            found[name] = value
    layers = ask(model_config, "get_num_layers", getattr(vllm_config, "parallel_config", None))
    if isinstance(layers, int):
        found["layers_of_worker"] = layers
    return found


def ask(config: Any, method: str, *arguments: Any) -> Any:
    """What a method of vLLM's configuration says; None where it is absent or does not like this model."""
    try:
        return getattr(config, method)(*arguments)
    except Exception:
        return None


def device_name() -> str:
    """Name of the accelerator as vLLM's platform tells it; "cpu" on the CPU build."""
    platform = getattr(sys.modules.get("vllm.platforms"), "current_platform", None)
    name = ask(platform, "get_device_name")
    return "".join(c for c in str(name or "") if c.isprintable() and c not in ',"')[:80]


# -- parameters ---------------------------------------------------------------------------------------------------------


def parameters(model: Any) -> dict[str, Any]:
    """Bytes of the parameters of a loaded model, and their elements where one element is one weight, by what reads them.

    `packed_bytes` are those whose elements hold several weights (4-bit types in integers); `emptied` counts parameters that
    a backend has taken into a layout of its own, as vLLM's CPU build does.
    """
    kinds = {kind: {"bytes": 0, "elements": 0, "packed_bytes": 0} for kind in LARGE}
    seen: set[int] = set()
    emptied = experts = 0
    expert_layers: set[str] = set()
    for path, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if id(parameter) in seen or name.startswith(MLA_COPIES):
                continue
            seen.add(id(parameter))
            count = parameter.numel()
            emptied += not count
            kind = kind_of(path, module, name)
            if kind == "experts":
                expert_layers.add(path)
                experts = max(experts, parameter.shape[0] if parameter.dim() >= 2 else 0)
            add_parameter(kinds[kind], name, parameter, count)
    return {**kinds, "emptied": emptied, "experts_of_worker": experts, "expert_layers": len(expert_layers)}


def kind_of(path: str, module: Any, name: str) -> str:
    """Whether a parameter belongs to the routed experts, an embedding, the head, an encoder, or the rest of the layers."""
    if name.startswith(("w13_", "w2_")):  # FusedMoE, later RoutedExperts: the names are the same in every version
        return "experts"
    if path.startswith(ENCODERS) or any(f".{part}" in path for part in ENCODERS):
        return "encoder"
    bases = {base.__name__ for base in type(module).__mro__}
    if "ParallelLMHead" in bases:
        return "head"
    return "embedding" if bases & {"VocabParallelEmbedding", "Embedding"} else "dense"


def add_parameter(kind: dict[str, int], name: str, parameter: Any, count: int) -> None:
    """Count one parameter."""
    num_bytes = count * parameter.element_size()
    kind["bytes"] += num_bytes
    if parameter.dim() < 2 or "scale" in name or "zero" in name:
        return
    if parameter.dtype.is_floating_point or str(parameter.dtype) == "torch.int8":
        kind["elements"] += count
    else:
        kind["packed_bytes"] += num_bytes


# -- KV layers ----------------------------------------------------------------------------------------------------------


def kv_layers(specs: Mapping[str, Any], num_layers: int) -> list[dict[str, Any]]:
    """Layers of this worker with equal KV caches: how many, bytes of one layer per token (of a state: per request), window.

    `specs` is what the worker's `get_kv_cache_spec` returned, by the name of the layer. A drafter's layers, which are
    numbered after the model's or have a prefix, are left out.
    """
    counted: Counter[tuple[str, float, int]] = Counter()
    for name, spec in specs.items():
        number = LAYER.search(name)
        if name.startswith(DRAFTER) or (number and num_layers and int(number[1]) >= num_layers):
            continue
        counted[kv_layer(spec)] += 1
    return [
        {"kind": kind, "layers": layers, "bytes": num_bytes, "window": window}
        for (kind, num_bytes, window), layers in sorted(counted.items())
    ]


def kv_layer(spec: Any) -> tuple[str, float, int]:
    """Kind, bytes and window of one layer, by the fields that every version's KVCacheSpec has."""
    name = type(spec).__name__
    page = getattr(spec, "real_page_size_bytes", None) or spec.page_size_bytes
    if hasattr(spec, "shapes"):  # Mamba and linear attention: a state of fixed size for each request
        return "state", float(page), 0
    window = getattr(spec, "sliding_window", None) or getattr(spec, "attention_chunk_size", None) or 0
    return "cross" if "Cross" in name else "attention", page / spec.block_size, int(window)


def window_of(layers: list[dict[str, Any]]) -> int:
    """The window of most layers that have one; 0 where none has."""
    windows: Counter[int] = Counter()
    for layer in layers:
        if layer["window"]:
            windows[layer["window"]] += layer["layers"]
    return windows.most_common(1)[0][0] if windows else 0
