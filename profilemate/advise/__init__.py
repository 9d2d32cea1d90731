"""Advice: which flag to change, to what, why, what it should bring, and how sure that is.

A topic is a module here with `advise(session) -> list[Finding]`. It may have `verify(finding, after) -> list[Verdict]` where
what it predicts can be looked up in a session that was run with the advice, and `differences(finding, after) -> list[str]`
where comparing flags with the other session's configuration (`flags.py`) is not the right way to tell whether it was: it
gives sentences about what was not done as advised, and none where all was.
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
"""Modules of this folder, in the order in which their findings of one level are shown."""
