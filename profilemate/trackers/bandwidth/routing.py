"""How many of a layer's experts a batch is expected to hit, from uniform routing or from what moe_routing counted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from statistics import fmean

from profilemate.session.session import Session
from profilemate.trackers.moe_routing.analyze import analyze
from profilemate.trackers.view import was_on

UNIFORM = "uniform routing, assumed"
MEASURED = "each expert's share of the tokens, measured by moe_routing"

HitShare = Callable[[int], float]
"""Tokens of a batch -> expected share of the experts of a layer that at least one of them chooses."""


def uniform(total: int, per_token: int) -> HitShare:
    """A token misses one expert with probability 1 - k/E, and T tokens all do with its T-th power (occupancy problem:
    Feller, An Introduction to Probability Theory, volume I, II.5). vLLM's perf.py takes min(T k, E).
    """
    miss = max(0.0, 1 - per_token / total)
    return lambda tokens: 1.0 - miss**tokens


def measured(layers: Sequence[Sequence[float]]) -> HitShare:
    """The same with each expert's own probability, mean over layers. Tokens are taken to choose independently."""
    misses = [[max(0.0, 1 - share) for share in layer] for layer in layers]

    @lru_cache(4096)
    def hit_share(tokens: int) -> float:
        return fmean(1 - fmean(miss**tokens for miss in layer) for layer in misses)

    return hit_share


def measured_shares(session: Session) -> dict[str, list[list[float]]]:
    """By the name of the process and for each of its layers: of the tokens, the share that chose each expert."""
    shares: dict[str, list[list[float]]] = {}
    if not was_on(session, "moe_routing"):
        return shares
    for total in analyze(session).counted:
        if total.row.tokens and sum(total.row.counts):
            layer = [count / total.row.tokens for count in total.row.counts]
            shares.setdefault(total.source.process.name, []).append(layer)
    return shares
