"""The numbers of the ladder's finding: plain data, from which another session can be held against it."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from profilemate.advise.graphs.batches import Batches
    from profilemate.advise.graphs.costs import CostModel
    from profilemate.advise.graphs.ladder_gains import Ranges
    from profilemate.advise.graphs.plan import Choice, Plan
    from profilemate.advise.graphs.reading import GraphData


def numbers_of(data: GraphData, model: CostModel, found: Plan, ranges: Ranges) -> dict[str, Any]:
    """`numbers` of capture_sizes.ladder; docs/advice-cuda-graphs.md explains them."""
    setup, batches = data.setup, data.batches
    return {
        "present": _choice(found.present), "advised": _choice(found.advised), "best_within_budget": _choice(found.best),
        "forced_sizes": list(found.forced), "reach_tokens": found.reach, "budget_raised": found.raised,
        "curve": [_point(one) for one in found.curve], "cost_unit": model.unit, "cost_from": model.why,
        "runner": setup.rules.runner, "query_len": setup.rules.query_len, "max_num_seqs": setup.rules.max_num_seqs,
        "max_num_batched_tokens": setup.rules.max_batched_tokens, "mixed_mode": setup.rules.mixed_mode,
        "full_decode_graphs": setup.rules.full_decode, "lora_cases": setup.rules.lora_cases, "engines": setup.engines,
        "passes": batches.passes, "passes_without_rows": batches.lost, "passes_unclear": batches.unclear,
        "passes_not_by_rule": batches.not_by_rule, "same_batches": digest(batches),
        "padding_share_range": [ranges.padding_share.low, ranges.padding_share.high],
        "uncovered_share_range": [ranges.uncovered_share.low, ranges.uncovered_share.high],
    }  # fmt: skip


def _choice(one: Choice) -> dict[str, Any]:
    return {"sizes": list(one.sizes), "decode_sizes": list(one.ladder.decode), **_point(one)}


def _point(one: Choice) -> dict[str, Any]:
    return {
        "num_sizes": len(one.sizes), "graphs": one.price.graphs, "capture_seconds": one.price.seconds,
        "memory_bytes": one.price.memory_bytes, "padded_tokens": one.count.padded, "padding_tokens": one.count.padding,
        "uncovered_passes": one.count.uncovered, "uncovered_within_reach": one.count.uncovered_within, "cost": one.cost,
    }  # fmt: skip


def digest(batches: Batches) -> str:
    """The same for two sessions if and only if the same batches came, in whatever order."""
    ordered = sorted(batches.multiset().items())
    return hashlib.sha256(repr(ordered).encode()).hexdigest()[:16]
