"""Columns of engine_steps, and the scheduler oracle's names for the same."""

from __future__ import annotations

COUNTS = {
    "allocated": "allocated",
    "evicted": "evicted",
    "touched": "touched",
    "touched_free": "touched_from_free",
    "freed": "freed",
    "released": "references_dropped",
    "peak": "peak_used",
    "step": "steps",
    "preemptions": "preemptions",
    "failed_allocations": "failed_allocations",
    "resets": "resets",
    "operations": "operations",
    "total_blocks": "total_blocks",
}
"""Cumulative columns of engine_steps, and the oracle's names for the same."""

PREFIX = {
    "query_requests": "requests",
    "query_tokens": "queries",
    "hit_tokens": "hits",
    "preempted_query_tokens": "preempted_queries",
    "preempted_hit_tokens": "preempted_hits",
}
