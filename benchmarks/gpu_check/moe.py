"""MoE routing: what our counter counted under graphs and in an eager engine, and what the eager engine's gates said.

A captured counter that is not replayed, or that counts padding, shows in the totals, which are exact: top_k for every
scheduled token. Which experts they are is held against the gates' logits in the eager engine, and the two engines against
each other: graphs are of compiled code and padded batches, whose last bits differ, so a few tokens choose otherwise.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from gpu_check.compare import Check
from gpu_check.load import batch_arrivals, drive, window_arrivals
from gpu_check.places import helper
from gpu_check.rows import Cells

EXPERTS, TOP_K = 64, 8
SHAPE = {
    "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "hidden_size": 1024, "intermediate_size": 2048,
    "moe_intermediate_size": 512, "num_hidden_layers": 6, "num_attention_heads": 16, "num_key_value_heads": 4,
    "head_dim": 64, "num_experts": EXPERTS, "num_experts_per_tok": TOP_K, "mlp_only_layers": [2],
    "decoder_sparse_step": 1, "norm_topk_prob": True,
}  # fmt: skip
"""0.6 billion parameters; one layer is dense, so that a layer's number is not its place among the MoE layers."""

ON = {"PROFILEMATE_TRACKERS": "default,moe_routing"}
MOST_TIES = 0.005
"""Share of choices that may differ between gates and router: equal logits may be told apart in another order."""

MOST_DIFFERENT = 0.05
"""The same between two engines."""

Chosen = dict[int, Counter[int]]


def prepare() -> None:
    """Before the model is loaded: dummy weights are the same in every gate."""
    helper("run_moe").tell_gates_apart()


def run(llm: Any, spec: dict[str, Any]) -> dict[str, Any]:
    """Serve a fixed load while the gates are watched; under graphs the watcher only sees what runs eagerly."""
    passes: list[dict[str, Any]] = []
    steps: list[int] = []
    helper("run_moe").watch_gates(llm, passes, llm.llm_engine.model_config.hf_config.num_experts_per_tok)
    helper("run_engine").watch_scheduler(llm, [], steps)
    answers = drive(llm, window_arrivals(spec["vocabulary"])).answers
    answers |= drive(llm, batch_arrivals(spec["batch"], spec["output_tokens"], spec["vocabulary"], seed=3)).answers
    chosen: Chosen = {}
    for one in passes:
        chosen.setdefault(one["layer"], Counter()).update(expert for row in one["ids"] for expert in row)
    return {"answers": answers, "tokens": sum(steps), "chosen": chosen}


def counted(rows: Sequence[Cells]) -> Chosen:
    """The totals of each layer in our rows."""
    newest = {int(row["layer_idx"]): row["counts"].split() for row in rows}
    return {
        layer: Counter({expert: int(count) for expert, count in enumerate(cells)}) for layer, cells in newest.items()
    }


def gates(result: Mapping[str, Any], rows: Sequence[Cells]) -> Check:
    """Our counts in an eager engine against the experts that its gates' logits name."""
    theirs = {
        int(layer): Counter({int(expert): count for expert, count in counts.items()})
        for layer, counts in result["chosen"].items()
    }
    return _alike("moe_gates", counted(rows), theirs, MOST_TIES)


def engines(under_graphs: Sequence[Cells], eager: Sequence[Cells]) -> Check:
    """Our counts under graphs against those of the eager engine with the same load."""
    return _alike("moe_graphs_against_eager", counted(under_graphs), counted(eager), MOST_DIFFERENT)


def _alike(name: str, ours: Chosen, theirs: Chosen, most: float) -> Check:
    """Whether two counts have the same layers, and in each all but a share of the choices in common."""
    shares = {
        layer: sum(((ours[layer] - theirs[layer]) + (theirs[layer] - ours[layer])).values())
        / max(1, ours[layer].total() + theirs[layer].total())
        for layer in ours.keys() & theirs.keys()
    }
    worst = max(shares.values(), default=1.0)
    holds = bool(shares) and ours.keys() == theirs.keys() and worst <= most
    says = f"{len(ours)} and {len(theirs)} layers, at most {worst:.2%} of a layer's choices differ"
    return Check(name, holds, says, {"layers": sorted(ours), "differing_share": worst})


def totals(name: str, result: Mapping[str, Any], rows: Sequence[Cells], top_k: int) -> Check:
    """That every scheduled token, and no padding, was counted top_k times in every layer."""
    expected = result["tokens"] * top_k
    sums = {layer: counts.total() for layer, counts in counted(rows).items()}
    wrong = {layer: total for layer, total in sums.items() if total != expected}
    says = f"{len(wrong)} of {len(sums)} layers do not have the {expected} choices of {result['tokens']} tokens"
    return Check(name, bool(sums) and not wrong, says, {"expected": expected, "wrong": wrong})
