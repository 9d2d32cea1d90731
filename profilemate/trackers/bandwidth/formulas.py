"""Bytes and floating-point operations of one forward pass of one worker. One multiplication and addition are 2 operations.

Every weight and every key and value is counted once per pass: what a kernel reads again comes from the caches at best.
"""

from __future__ import annotations

from dataclasses import dataclass

from profilemate.trackers.bandwidth.model import KvLayers, Model


@dataclass(frozen=True)
class Batch:
    """A forward pass: the columns of events.READ. The window's are None where none was recorded."""

    tokens: int
    requests: int
    kv_tokens: int
    prompt_kv_tokens: int
    attention_pairs: int
    attention_products: int
    window_kv_tokens: int | None
    window_pairs: int | None
    output_rows: int

    @property
    def decode_pairs(self) -> int:
        """Pairs of the requests with one token, whose pairs are their context."""
        return self.kv_tokens - self.prompt_kv_tokens


@dataclass(frozen=True)
class Work:
    """Of one forward pass of one worker."""

    weight_read_bytes: float
    kv_read_bytes: float
    kv_write_bytes: float
    attention_flops: float
    dense_flops: float
    moe_flops: float
    head_flops: float

    @property
    def read_bytes(self) -> float:
        """Weights and KV cache."""
        return self.weight_read_bytes + self.kv_read_bytes

    @property
    def flops(self) -> float:
        """All parts."""
        return self.attention_flops + self.dense_flops + self.moe_flops + self.head_flops

    @property
    def intensity(self) -> float | None:
        """Operations per byte read and written (Williams, Waterman, Patterson: Roofline, CACM 52(4), 2009)."""
        moved = self.read_bytes + self.kv_write_bytes
        return self.flops / moved if moved else None


def work_of(model: Model, batch: Batch) -> Work:
    """All of it."""
    return Work(
        weight_read_bytes(model, batch),
        kv_read_bytes(model, batch),
        kv_write_bytes(model, batch),
        attention_flops(model, batch),
        dense_flops(model, batch),
        moe_flops(model, batch),
        head_flops(model, batch),
    )


def hit_experts(model: Model, batch: Batch) -> float:
    """Expected number of this worker's experts that at least one token chooses in one layer; see `routing`."""
    experts = model.experts
    return 0.0 if experts is None else experts.of_worker * experts.hit_share(batch.tokens * experts.batches)


def weight_read_bytes(model: Model, batch: Batch) -> float:
    """Every weight outside the experts once, and the experts that were hit. Rows of the embedding are not counted."""
    weights, experts = model.weights, model.experts
    num_bytes = weights.dense_bytes + weights.head_bytes
    if experts is not None and experts.of_worker:
        num_bytes += weights.expert_bytes * hit_experts(model, batch) / experts.of_worker
    return num_bytes


def kv_read_bytes(model: Model, batch: Batch) -> float:
    """The context of every request once per layer (2 x KV heads x head size x bytes, or MLA's latent), its own new tokens
    included, since attention reads them from the cache as well; a layer with a window reads the window. A state is read
    once per request.
    """
    return sum(one.layers * one.num_bytes * _read(one, batch) for one in model.kv_layers)


def _read(layers: KvLayers, batch: Batch) -> int:
    if layers.kind == "state":
        return batch.requests
    if layers.kind != "attention":
        return 0
    return batch.window_kv_tokens if layers.window and batch.window_kv_tokens is not None else batch.kv_tokens


def kv_write_bytes(model: Model, batch: Batch) -> float:
    """Keys and values of every scheduled token in every layer; a state once per request."""
    counts = {"attention": batch.tokens, "state": batch.requests}
    return sum(one.layers * one.num_bytes * counts.get(one.kind, 0) for one in model.kv_layers)


def attention_flops(model: Model, batch: Batch) -> float:
    """Scores and weighted values: 2 x (key size + value size) x query heads for each pair and layer, with the causal mask
    (as counted in Dao: FlashAttention-2, 2023, section 4.1). The projections are in the dense part.

    MLA decodes on the latent itself: 2 x (2 x latent + rotary) (DeepSeek-V2, 2024, section 2.1, absorbed matrices).
    """
    size = model.attention
    plain = 2 * (size.key_size + size.value_size) * size.heads
    absorbed = 2 * (2 * size.latent_size + size.rotary_size) * size.heads
    flops = 0.0
    for one in model.kv_layers:
        if one.kind != "attention":
            continue
        if one.window and batch.window_pairs is not None:
            flops += one.layers * plain * batch.window_pairs
        elif size.latent_size:
            flops += one.layers * (absorbed * batch.decode_pairs + plain * (batch.attention_pairs - batch.decode_pairs))
        else:
            flops += one.layers * plain * batch.attention_pairs
    return flops


def dense_flops(model: Model, batch: Batch) -> float:
    """2 for each weight outside experts and head and each token (Kaplan et al.: Scaling Laws, 2020, table 1)."""
    return 2 * model.weights.dense_elements * batch.tokens


def moe_flops(model: Model, batch: Batch) -> float:
    """2 for each weight of an expert and each token that goes through it: k of E experts, of which the worker has some."""
    experts = model.experts
    if experts is None or not experts.of_worker:
        return 0.0
    one_expert = model.weights.expert_elements / experts.of_worker
    here = min(1.0, experts.of_worker / experts.total)
    return 2 * one_expert * batch.tokens * experts.batches * experts.per_token * here


def head_flops(model: Model, batch: Batch) -> float:
    """2 for each weight of the head and each row of logits: vLLM makes one for each request and each drafted token."""
    return 2 * model.weights.head_elements * batch.output_rows
