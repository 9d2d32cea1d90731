"""A failed allocation of KV blocks: one hook for every tracker that wants to know.

vLLM calls `allocate_slots` for every request of every step, and a wrapper more costs that often.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from profilemate.probe.guarded import Guarded
from profilemate.probe.hook import FOLLOWING_NONE, SELF, Hook

_watchers: list[Guarded] = []


def watch_failures(tracker: str, function: Callable[[Any, Any, int], None]) -> None:
    """Call `function` with the KV cache manager, the request for which there was no room, and the tokens that it asked for."""
    _watchers.append(Guarded(tracker, "failed allocations", function))


def allocation_failed(result: None, manager: Any, request: Any, num_new_tokens: int) -> None:
    """`allocate_slots` found no room for a request."""
    for told in _watchers:
        told(manager, request, num_new_tokens)


ALLOCATION_FAILED = Hook(
    "kv_cache_manager.allocate_slots", "probe", "vllm.v1.core.kv_cache_manager", "KVCacheManager.allocate_slots",
    FOLLOWING_NONE, None, allocation_failed, (SELF, "request", "num_new_tokens"),
)  # fmt: skip
