"""Everything the exports need of a session, read once."""

from __future__ import annotations

from dataclasses import dataclass

from profilemate.session.health import Health, read_health
from profilemate.session.own_cost import ProcessCost, read_own_cost
from profilemate.session.session import Session
from profilemate.session.views import EngineSpan
from profilemate.trackers.cuda_graphs import analyze as cuda_graphs
from profilemate.trackers.kv_cache import analyze as kv_cache


@dataclass(frozen=True)
class Analysis:
    """A session and its summaries."""

    session: Session
    health: Health
    graphs: cuda_graphs.GraphSummary
    kv: kv_cache.KvSummary
    spans: tuple[EngineSpan, ...]
    own_cost: tuple[ProcessCost, ...]


def analyze(session: Session) -> Analysis:
    """Run every tracker's analysis."""
    spans = kv_cache.spans_of(session)
    health = read_health(session)
    return Analysis(
        session,
        health,
        cuda_graphs.analyze(session),
        kv_cache.analyze(session, spans),
        spans,
        read_own_cost(session, health),
    )
