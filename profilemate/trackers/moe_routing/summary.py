"""What the summary says about MoE routing: as plain data for metadata.json, and as lines for people."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from profilemate.export.values import in_seconds, rounded
from profilemate.export.words import count_text, names_text, seconds_text, share_text
from profilemate.session.records import table_of, text
from profilemate.trackers.moe_routing.analyze import Layer, LayerTotal, MoeSummary, added, spread_of, summed
from profilemate.trackers.moe_routing.layers import (
    CONTEXT_PARALLEL,
    MICRO_BATCHES,
    MONOLITHIC,
    NO_HOOK,
    OTHER_ROUTER,
    SEQUENCE_PARALLEL,
    TRACED,
)
from profilemate.trackers.view import Record

WORST_LAYERS = 3

REASONS = {
    TRACED: "torch.compile traces the router's Python on this platform, so that it does not run while serving; "
    "--enforce-eager shows it",
    MONOLITHIC: "a monolithic kernel routes inside itself and never asks the router",
    MICRO_BATCHES: "micro-batches (DBO) split the batch, and which rows are padding is not known then",
    CONTEXT_PARALLEL: "prefill context parallelism splits the tokens among ranks",
    SEQUENCE_PARALLEL: "each tensor-parallel rank routes a part of the tokens (sequence parallelism)",
    OTHER_ROUTER: "its router is not one that ProfileMate knows",
    NO_HOOK: "the hook on the router is not in place, see `profilemate doctor`",
}


def moe_record(moe: MoeSummary) -> Record:
    """By layer, all engines together."""
    by_layer = summed(moe.counted)
    return {
        "num_layers": len({layer.layer_idx for _, layer in moe.layers if layer.layer_idx is not None}),
        "layers_counted": len(by_layer),
        "unseen": dict(Counter(layer.unseen for _, layer in moe.layers if layer.unseen)),
        "as_of_sec": in_seconds(moe.as_of_ns),
        "tokens": max((sum(total.row.tokens for total in totals) for totals in by_layer.values()), default=0),
        "layers": {f"layer_{layer_idx}": _layer_record(totals) for layer_idx, totals in by_layer.items()},
    }


def _layer_record(totals: Sequence[LayerTotal]) -> Record:
    counts = added(totals)
    spread = spread_of(counts)
    total, expected = sum(counts), sum(one.expected for one in totals)
    return {
        "num_experts": len(counts),
        "top_k": totals[0].layer.top_k,
        "total_activations": total,
        "unique_experts_activated": spread.num_chosen,
        "activation_coverage_pct": round(100 * spread.num_chosen / len(counts), 4),
        "mean_activations_per_expert": rounded(spread.mean),
        "std_dev_activations": rounded(spread.std_dev),
        "min_activations": spread.least,
        "max_activations": spread.most,
        "load_balance_ratio": _finite(spread.max_min_ratio),
        "max_over_mean": rounded(spread.max_over_mean),
        "tokens": sum(one.row.tokens for one in totals),
        "outside_activations": sum(one.row.outside for one in totals),
        "seen_pct": round(100 * sum(one.seen for one in totals) / expected, 4) if expected else None,
        "engines": len(totals),
        "as_of_sec": in_seconds(min(one.row.time_ns for one in totals)),
    }


def _finite(ratio: float | None) -> float | None:
    """JSON has no infinity: a ratio to an expert that was never chosen is null."""
    return None if ratio is None or math.isinf(ratio) else rounded(ratio)


def moe_summary(record: Record) -> str:
    """moe_summary.json."""
    moe = table_of(table_of(record.get("summary")).get("moe_routing"))
    return json.dumps(table_of(moe.get("layers")), indent=1) + "\n"


def lines(moe: Record) -> list[str]:
    """Coverage, the most uneven layers, experts that nobody chose."""
    layers = {name: table_of(layer) for name, layer in table_of(moe.get("layers")).items()}
    unseen = table_of(moe.get("unseen"))
    if not moe.get("num_layers") and not unseen:
        return ["the model has no MoE layer, or none was loaded"]
    told = [
        f"{count_text(moe.get('layers_counted'))} of {count_text(moe.get('num_layers'))} MoE layers counted, "
        f"{count_text(moe.get('tokens'))} tokens as of {seconds_text(moe.get('as_of_sec'))}"
    ]
    told += [
        f"not seen in {count_text(count)} layers: {REASONS.get(text(word), text(word))}"
        for word, count in unseen.items()
    ]
    uneven = sorted(layers.items(), key=lambda item: -(_number(item[1].get("max_over_mean"))))[:WORST_LAYERS]
    if uneven:
        told.append(
            "most uneven, busiest expert over the mean: "
            + ", ".join(f"{text(name)} {_number(layer.get('max_over_mean')):.2f}" for name, layer in uneven)
        )
    idle = [text(name) for name, layer in layers.items() if not layer.get("min_activations")]
    if idle:
        told.append(f"layers with an expert that no token chose: {names_text(idle)}")
    partly = [text(name) for name, layer in layers.items() if layer.get("seen_pct") not in (100, None)]
    if partly:
        told.append(f"layers of which not every choice was seen: {names_text(partly)}")
    return told


def _number(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) else 0.0


def notes(moe: MoeSummary) -> list[str]:
    """What was not seen, and of which layers."""
    said = []
    by_word: dict[str, list[Layer]] = {}
    for _, layer in moe.layers:
        if layer.unseen:
            by_word.setdefault(layer.unseen, []).append(layer)
    for word, layers in by_word.items():
        which = f"{len(layers)} MoE layers ({layers[0].router or 'of the model itself'})"
        said.append(f"MoE routing was not seen in {which}: {REASONS.get(word, word)}")
    if not moe.layers:
        said.append("MoE routing: no model with MoE layers was loaded")
    if any("ZeroExpert" in layer.router for _, layer in moe.layers):
        said.append("MoE routing: vLLM's router of this model writes choices of a zero expert as expert 0")
    for total in moe.counted:
        if total.seen != total.expected:
            said.append(
                f"MoE routing, engine {total.source.engine}, layer {total.row.layer_idx}: {total.seen} of {total.expected} "
                f"choices were seen ({share_text(total.seen, total.expected)})"
            )
    if any(layer.pairs == "too_large" for _, layer in moe.layers):
        said.append(
            "MoE routing: pairs of experts were not counted, the tables would be over 64 MiB or differ by layer"
        )
    return said
