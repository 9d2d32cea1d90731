"""The model as one worker holds it, from what was written of it: weights, KV layers, attention and experts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from profilemate.session.records import ProcessInfo, items_of, number, table_of, text, whole
from profilemate.trackers.bandwidth import routing, sizes

PARAMETERS = "parameters of the loaded model"
AS_LOADED = "parameters of the model as loaded"
CONFIGURATION = "model configuration"


@dataclass(frozen=True)
class Weights:
    """Of one worker. Elements are single weights; `experts` is of all routed experts that the worker holds."""

    dense_bytes: float
    head_bytes: float
    expert_bytes: float
    dense_elements: float
    head_elements: float
    expert_elements: float
    bytes_from: str
    elements_from: str


@dataclass(frozen=True)
class KvLayers:
    """Equal layers of one worker. `num_bytes` of one layer: per token, or of a "state" per request; `window` 0 for none."""

    kind: str
    layers: float
    num_bytes: float
    window: int


@dataclass(frozen=True)
class Attention:
    """Sizes of one query head, and how many this worker has; `latent_size` is that of MLA's cache without the rotary part."""

    heads: int
    key_size: int
    value_size: int
    latent_size: int = 0
    rotary_size: int = 0


@dataclass(frozen=True)
class Experts:
    """Routed experts. `batches` is how many engines' tokens meet at one worker's experts."""

    total: int
    per_token: int
    of_worker: int
    layers: float
    batches: int
    hit_share: routing.HitShare
    routing: str


@dataclass(frozen=True)
class Model:
    """What the formulas take. `element_bytes` of a weight decides which peak of the device counts."""

    weights: Weights
    kv_layers: tuple[KvLayers, ...]
    kv_from: str
    attention: Attention
    experts: Experts | None
    dimensions: Mapping[str, Any]

    @property
    def kv_bytes_per_token(self) -> float:
        """Written for each token in all layers of this worker, states not counted."""
        return sum(one.layers * one.num_bytes for one in self.kv_layers if one.kind == "attention")

    @property
    def has_other_layers(self) -> bool:
        """Whether it has layers whose own work is not counted: states and cross attention."""
        return any(one.kind != "attention" for one in self.kv_layers)


def model_of(process: ProcessInfo, shares: Sequence[Sequence[float]] = ()) -> Model | None:
    """The model of a worker; None where its dimensions were not recorded. `shares` as `routing.measured` takes them."""
    facts = process.engine_config
    dimensions = table_of(facts.get("model_dimensions"))
    if not whole(dimensions.get("hidden_size")):
        return None
    is_last = process.rank("pp") >= sizes.parallel(dimensions, "pipeline") - 1
    layers = tuple(_kv_layer(table_of(item)) for item in items_of(facts.get("kv_layers")))
    experts = _experts(dimensions, table_of(facts.get("model_parameters")), shares)
    return Model(
        weights=_weights(facts, dimensions, is_last),
        kv_layers=layers or tuple(KvLayers(*layer) for layer in sizes.kv_layers(dimensions)),
        kv_from="KV layers of the worker" if layers else CONFIGURATION,
        attention=_attention(dimensions),
        experts=experts,
        dimensions=dimensions,
    )


def _kv_layer(item: Mapping[str, Any]) -> KvLayers:
    return KvLayers(
        text(item.get("kind")), whole(item.get("layers")), number(item.get("bytes")), whole(item.get("window"))
    )


def _attention(dimensions: Mapping[str, Any]) -> Attention:
    heads = max(1, sizes.size(dimensions, "num_attention_heads") // sizes.parallel(dimensions, "tensor"))
    if dimensions.get("is_mla") is True:
        nope, rotary = sizes.size(dimensions, "qk_nope_head_dim"), sizes.size(dimensions, "qk_rope_head_dim")
        value, latent = sizes.size(dimensions, "v_head_dim"), sizes.size(dimensions, "kv_lora_rank")
        return Attention(heads, nope + rotary, value, latent, rotary)
    head = sizes.head_size(dimensions)
    return Attention(heads, head, head)


def _experts(
    dimensions: Mapping[str, Any], parameters: Mapping[str, Any], shares: Sequence[Sequence[float]]
) -> Experts | None:
    total, per_token = sizes.size(dimensions, "num_experts"), sizes.size(dimensions, "num_experts_per_token")
    if not total or not per_token:
        return None
    return Experts(
        total,
        per_token,
        whole(parameters.get("experts_of_worker")) or sizes.experts_of_worker(dimensions),
        whole(parameters.get("expert_layers")) or sizes.expert_layers(dimensions),
        sizes.parallel(dimensions, "data"),
        routing.measured(shares) if shares else routing.uniform(total, per_token),
        routing.MEASURED if shares else routing.UNIFORM,
    )


def _weights(facts: Mapping[str, Any], dimensions: Mapping[str, Any], is_last_stage: bool) -> Weights:
    """Bytes of the model as it runs; where a backend emptied its parameters, of the model as loaded, which is as large.

    Elements of packed types cannot be counted from the parameters: then they are the configuration's.
    """
    loaded = table_of(facts.get("model_parameters"))
    source = PARAMETERS
    if loaded.get("emptied"):
        loaded, source = table_of(facts.get("model_parameters_as_loaded")), AS_LOADED
    configured = sizes.weights(dimensions, is_last_stage)
    if not table_of(loaded.get("dense")).get("bytes"):
        loaded, source = configured, CONFIGURATION
    is_packed = any(table_of(loaded.get(kind)).get("packed_bytes") for kind in ("dense", "head", "experts"))
    counted = configured if is_packed else loaded
    head, counted_head = _head(loaded, dimensions), _head(counted, dimensions)
    return Weights(
        dense_bytes=_of(loaded, "dense", "bytes"),
        head_bytes=_of(loaded, head, "bytes"),
        expert_bytes=_of(loaded, "experts", "bytes"),
        dense_elements=_of(counted, "dense", "elements"),
        head_elements=_of(counted, counted_head, "elements"),
        expert_elements=_of(counted, "experts", "elements"),
        bytes_from=source,
        elements_from=CONFIGURATION if is_packed else source,
    )


def _head(parameters: Mapping[str, Any], dimensions: Mapping[str, Any]) -> str:
    """Where the head's weights are: a tied one is the embedding itself, which is then read whole."""
    is_tied = dimensions.get("tie_word_embeddings") is True and not _of(parameters, "head", "bytes")
    return "embedding" if is_tied else "head"


def _of(parameters: Mapping[str, Any], kind: str, what: str) -> float:
    return number(table_of(parameters.get(kind)).get(what))
