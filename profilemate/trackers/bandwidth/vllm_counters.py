"""What `--enable-mfu-metrics` would have counted: vllm/v1/metrics/perf.py of vLLM 0.32 for dense models, in closed form.

It differs from `formulas` on purpose: every token of a prompt is paired with the whole context (no causal mask), the
activations that a layer takes and gives are read and written, prompts read keys and values in the model's type, the
pipeline's stages are an even share, and sizes are the configuration's, without biases and norms.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from profilemate.session.records import table_of
from profilemate.trackers.bandwidth import sizes
from profilemate.trackers.bandwidth.formulas import Batch


@dataclass(frozen=True)
class Counted:
    """Of one forward pass, per GPU, as `PerfStats`."""

    flops: float
    read_bytes: float
    write_bytes: float


def is_covered(dimensions: Mapping[str, Any]) -> bool:
    """A dense model with full attention whose weights are in the model's own type."""
    others = ("num_experts", "sliding_window", "quantization")
    has_other = any(dimensions.get(name) for name in others) or dimensions.get("is_mla") is True
    has_other = has_other or bool(set(table_of(dimensions.get("layer_types"))) - {"full_attention"})
    return bool(sizes.size(dimensions, "intermediate_size")) and not has_other


@dataclass(frozen=True)
class VllmCounters:
    """One model's sizes per GPU, in perf.py's letters: D hidden, q and kv heads of size d, DI feed-forward, V vocabulary."""

    hidden: int
    query: int
    key: int
    feed_forward: int
    vocabulary: int
    layers: float
    element: float
    cache: float

    @classmethod
    def of(cls, dimensions: Mapping[str, Any]) -> VllmCounters:
        """`query` and `key` are all heads of one worker times their size."""
        tensor, head = sizes.parallel(dimensions, "tensor"), sizes.head_size(dimensions)
        return cls(
            hidden=sizes.size(dimensions, "hidden_size"),
            query=max(1, sizes.size(dimensions, "num_attention_heads") // tensor) * head,
            key=max(1, sizes.kv_heads(dimensions) // tensor) * head,
            feed_forward=sizes.size(dimensions, "intermediate_size") // (tensor * sizes.parallel(dimensions, "data")),
            vocabulary=sizes.size(dimensions, "vocab_size") // tensor,
            layers=sizes.size(dimensions, "num_hidden_layers") / sizes.parallel(dimensions, "pipeline"),
            element=sizes.activation_bytes(dimensions),
            cache=sizes.cache_bytes(dimensions),
        )

    def count(self, batch: Batch) -> Counted:
        """The components attn, ffn and unembed."""
        tokens, rows = batch.tokens, batch.requests
        projections = self.hidden * (2 * self.query + 2 * self.key)
        layer = projections + sizes.MATRICES * self.hidden * self.feed_forward
        head = self.hidden * self.vocabulary
        flops = 2 * tokens * layer * self.layers + 4 * self.query * batch.attention_products * self.layers
        return Counted(
            flops + 2 * rows * head,
            self._weights_read(layer, head) + self._others_read(batch),
            self._written(tokens) + rows * self.vocabulary * self.element,
        )

    def _weights_read(self, layer: float, head: float) -> float:
        return (layer * self.layers + head) * self.element

    def _others_read(self, batch: Batch) -> float:
        values = batch.tokens * (2 * self.hidden + 2 * self.query + 3 * self.feed_forward) * self.element
        prompt = 2 * batch.prompt_kv_tokens * self.key * self.element
        decode = 2 * batch.decode_pairs * self.key * self.cache
        return (values + prompt + decode) * self.layers + batch.requests * self.hidden * self.element

    def _written(self, tokens: int) -> float:
        values = (self.query + 2 * self.key + 2 * self.hidden + 3 * self.feed_forward) * self.element
        return tokens * (values + 2 * self.key * self.cache) * self.layers
