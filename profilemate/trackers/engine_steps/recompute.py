"""Tokens that a preemption made vLLM compute a second time."""

from __future__ import annotations

from typing import Any

MOST_REQUESTS = 1 << 16
"""Preempted requests that are remembered at a time; a waiting queue of so many is out of reach."""


def note_preempted(lost: dict[str, int], request: Any) -> None:
    """A request is about to lose its blocks: what it had computed will be computed again, as far as no cached block has it.

    Preempted once more before it was there again, it has still to go as far as the first time.
    """
    request_id, computed = request.request_id, request.num_computed_tokens
    if computed > lost.get(request_id, 0) and len(lost) < MOST_REQUESTS:
        lost[request_id] = computed


def recomputed_tokens(lost: dict[str, int], requests: Any, scheduled: Any) -> int:
    """Tokens of this batch that were computed before; forgets the requests that have caught up or ended.

    `schedule` has moved num_computed_tokens on by the batch already.
    """
    for request_id in lost.keys() & scheduled.finished_req_ids:
        del lost[request_id]
    tokens = 0
    batch = scheduled.num_scheduled_tokens
    for request_id in lost.keys() & batch.keys():
        after = requests[request_id].num_computed_tokens
        before = after - batch[request_id]
        tokens += max(0, min(after, lost[request_id]) - before)
        if after >= lost[request_id]:
            del lost[request_id]
    return tokens
