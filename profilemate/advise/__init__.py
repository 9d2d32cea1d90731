"""Advice: which flag to change, to what, why, what it should bring, and how sure that is.

A topic is a module here with `advise(session) -> list[Finding]`, and `verify(finding, after) -> list[Verdict]` where what it
predicts can be looked up in a session that was run with the advice.
"""

from __future__ import annotations

TOPICS = (
    "capture_sizes",
    "graph_use",
    "kv_cache_size",
    "prefix_caching",
    "lengths",
    "scheduling",
    "healthy_ranges",
)
"""Modules of this folder, in the order in which their findings are shown."""
