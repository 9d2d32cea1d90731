"""Sizes of one worker's share of a model from the configuration alone: where the loaded model did not tell them.

The shapes are those of vLLM's own layers (Llama's attention with three matrices in the feed-forward part, DeepSeek's MLA),
divided as its column- and row-parallel layers are; vllm/v1/metrics/perf.py takes the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from profilemate.session.records import table_of, text, whole

ELEMENT_BYTES = {"float32": 4.0, "float16": 2.0, "half": 2.0, "bfloat16": 2.0, "float64": 8.0}
ONE_BYTE = {"fp8", "fbgemm_fp8", "ptpc_fp8", "modelopt", "modelopt_mxfp8", "experts_int8"}
HALF_BYTE = {"awq", "awq_marlin", "gptq", "gptq_marlin", "mxfp4", "modelopt_fp4", "moe_wna16"}
"""Methods that store a weight in 8 or 4 bits; vLLM's perf.py has the same figures. An unknown method counts as none."""

MATRICES = 3
"""Of a gated feed-forward part: gate, up and down."""


def size(dimensions: Mapping[str, Any], name: str) -> int:
    """A size that was recorded; 0 where it was not."""
    return whole(dimensions.get(name))


def parallel(dimensions: Mapping[str, Any], kind: str) -> int:
    """Size of a parallel group ("tensor", "pipeline", "data"), at least 1."""
    return max(1, size(dimensions, f"{kind}_parallel_size"))


def head_size(dimensions: Mapping[str, Any]) -> int:
    """Of a key or value head."""
    heads = size(dimensions, "num_attention_heads")
    return (
        size(dimensions, "head_size")
        or size(dimensions, "head_dim")
        or (size(dimensions, "hidden_size") // heads if heads else 0)
    )


def kv_heads(dimensions: Mapping[str, Any]) -> int:
    """Key and value heads of the whole model."""
    return (
        size(dimensions, "total_num_kv_heads")
        or size(dimensions, "num_key_value_heads")
        or size(dimensions, "num_attention_heads")
    )


def activation_bytes(dimensions: Mapping[str, Any]) -> float:
    """Bytes of one number in the model's own type."""
    return ELEMENT_BYTES.get(text(dimensions.get("dtype")).removeprefix("torch."), 2.0)


def weight_bytes(dimensions: Mapping[str, Any]) -> float:
    """Bytes of one weight of a linear layer."""
    method = text(dimensions.get("quantization"))
    return 1.0 if method in ONE_BYTE else 0.5 if method in HALF_BYTE else activation_bytes(dimensions)


def cache_bytes(dimensions: Mapping[str, Any]) -> float:
    """Bytes of one number in the KV cache; `auto` is the model's own type."""
    name = text(dimensions.get("cache_dtype"))
    if name.startswith(("fp8", "int8")):
        return 1.0
    return ELEMENT_BYTES.get(name, activation_bytes(dimensions))


def layers_of_worker(dimensions: Mapping[str, Any]) -> float:
    """Of this pipeline stage; an even share where the stage did not tell."""
    return size(dimensions, "layers_of_worker") or size(dimensions, "num_hidden_layers") / parallel(
        dimensions, "pipeline"
    )


def kv_layers(dimensions: Mapping[str, Any]) -> list[tuple[str, float, float, int]]:
    """Kind, layers, bytes per token and window, as `KvLayers` takes them."""
    if dimensions.get("is_mla") is True:
        values = size(dimensions, "kv_lora_rank") + size(dimensions, "qk_rope_head_dim")
    else:
        values = 2 * max(1, kv_heads(dimensions) // parallel(dimensions, "tensor")) * head_size(dimensions)
    num_bytes, layers = values * cache_bytes(dimensions), layers_of_worker(dimensions)
    window = size(dimensions, "sliding_window")
    types = table_of(dimensions.get("layer_types"))
    known = sum(whole(count) for count in types.values())
    sliding = sum(whole(count) for name, count in types.items() if "sliding" in name)
    share = (sliding / known if known else 1.0) if window else 0.0
    both = [("attention", layers * (1 - share), num_bytes, 0), ("attention", layers * share, num_bytes, window)]
    return [layer for layer in both if layer[1]]


def expert_layers(dimensions: Mapping[str, Any]) -> float:
    """Layers of this worker with routed experts, by the rules of the models' own code (as vLLM's perf.py: Llama 4's and
    DeepSeek's), and Qwen's `decoder_sparse_step`.
    """
    if not size(dimensions, "num_experts"):
        return 0.0
    total = size(dimensions, "num_hidden_layers")
    every = size(dimensions, "interleave_moe_layer_step") or size(dimensions, "decoder_sparse_step") or 1
    sparse = total // every
    frequency = size(dimensions, "moe_layer_freq")
    if frequency and "first_k_dense_replace" in dimensions:
        first = size(dimensions, "first_k_dense_replace")
        sparse = max(0, _multiples(frequency, total) - _multiples(frequency, first))
    return sparse * layers_of_worker(dimensions) / total if total else 0.0


def _multiples(of: int, below: int) -> int:
    """How many of 0, 1, ... are below a number and multiples of another."""
    return -(-below // of)


def experts_of_worker(dimensions: Mapping[str, Any]) -> int:
    """All of them, or a share under expert parallelism."""
    shared_by = parallel(dimensions, "tensor") * parallel(dimensions, "data")
    return size(dimensions, "num_experts") // (shared_by if dimensions.get("enable_expert_parallel") is True else 1)


def weights(dimensions: Mapping[str, Any], is_last_stage: bool) -> dict[str, dict[str, float]]:
    """Bytes and elements of one worker's matrices, by what reads them; norms and biases are left out."""
    hidden, tensor = size(dimensions, "hidden_size"), parallel(dimensions, "tensor")
    layers, sparse = layers_of_worker(dimensions), expert_layers(dimensions)
    dense = layers * attention_elements(dimensions)
    dense += (layers - sparse) * MATRICES * hidden * size(dimensions, "intermediate_size") / tensor
    dense += sparse * (shared_elements(dimensions) / tensor + hidden * size(dimensions, "num_experts"))
    experts = sparse * experts_of_worker(dimensions) * expert_elements(dimensions)
    head = hidden * size(dimensions, "vocab_size") / tensor if is_last_stage else 0.0
    each, plain = weight_bytes(dimensions), activation_bytes(dimensions)
    return {
        "dense": {"elements": dense, "bytes": dense * each},
        "experts": {"elements": experts, "bytes": experts * each},
        "head": {"elements": head, "bytes": head * plain},
    }


def attention_elements(dimensions: Mapping[str, Any]) -> float:
    """Weights of the projections of one attention layer of one worker."""
    hidden, tensor = size(dimensions, "hidden_size"), parallel(dimensions, "tensor")
    heads = max(1, size(dimensions, "num_attention_heads") // tensor)
    if dimensions.get("is_mla") is not True:
        head = head_size(dimensions)
        return hidden * head * (2 * heads + 2 * max(1, kv_heads(dimensions) // tensor))
    nope, rotary = size(dimensions, "qk_nope_head_dim"), size(dimensions, "qk_rope_head_dim")
    latent, value, rank = (size(dimensions, name) for name in ("kv_lora_rank", "v_head_dim", "q_lora_rank"))
    query = heads * (nope + rotary)
    queries = rank * (hidden + query) if rank else hidden * query
    return queries + hidden * (latent + rotary) + latent * heads * (nope + value) + heads * value * hidden


def shared_elements(dimensions: Mapping[str, Any]) -> float:
    """Weights of the experts that every token goes through, in one layer of the whole model."""
    each = size(dimensions, "moe_intermediate_size") or size(dimensions, "intermediate_size")
    count = size(dimensions, "n_shared_experts") or size(dimensions, "num_shared_experts")
    width = size(dimensions, "shared_expert_intermediate_size") or count * each
    return MATRICES * size(dimensions, "hidden_size") * width


def expert_elements(dimensions: Mapping[str, Any]) -> float:
    """Weights of one routed expert in one layer, as one worker holds them."""
    width = size(dimensions, "moe_intermediate_size") or size(dimensions, "intermediate_size")
    tensor = parallel(dimensions, "tensor") * parallel(dimensions, "data")
    shared_by = 1 if dimensions.get("enable_expert_parallel") is True else tensor
    return MATRICES * size(dimensions, "hidden_size") * width / shared_by
