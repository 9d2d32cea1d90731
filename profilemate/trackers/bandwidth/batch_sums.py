"""What the formulas need of a batch beside its tokens and requests: a few sums over the requests, as text of a row's cells.

A plain decode step (one token for each request) costs two sums in C. Only steps with a prompt, drafts or a window go
through the requests. `num_computed_tokens` of a SchedulerOutput are the values before the step, in every version.
"""

from __future__ import annotations

from itertools import compress, repeat
from operator import add, mul
from typing import Any

HAS_SEVERAL = (1).__lt__


def cells(scheduled: Any, window: int) -> str:
    """The seven cells of `events.PASS`; `window` is the model's sliding window in tokens, 0 for none."""
    computed = scheduled.scheduled_cached_reqs.num_computed_tokens
    tokens = scheduled.total_num_scheduled_tokens
    if len(computed) == tokens and not scheduled.scheduled_new_reqs:
        context = sum(computed) + tokens
        if not window:
            return f"{context},0,{context},{context},,,{tokens}"
        in_window = sum(map(min, map(add, computed, repeat(1)), repeat(window)))
        return f"{context},0,{context},{context},{in_window},{in_window},{tokens}"
    return mixed_cells(scheduled, window)


def mixed_cells(scheduled: Any, window: int) -> str:
    """The same for a step in which some requests have several tokens."""
    counts_by_id, new, cached = (
        scheduled.num_scheduled_tokens,
        scheduled.scheduled_new_reqs,
        scheduled.scheduled_cached_reqs,
    )
    counts = [counts_by_id.get(request_id, 0) for request_id in cached.req_ids]
    contexts = list(map(add, cached.num_computed_tokens, counts))
    prompt_context = sum(compress(contexts, map(HAS_SEVERAL, counts)))
    for request in new:
        count = counts_by_id.get(request.req_id, 0)
        counts.append(count)
        contexts.append(request.num_computed_tokens + count)
        prompt_context += contexts[-1]
    products = sum(map(mul, counts, contexts))
    pairs = products - (sum(map(mul, counts, counts)) - sum(counts)) // 2
    rows = len(counts) - counts.count(0) + sum(map(len, scheduled.scheduled_spec_decode_tokens.values()))
    in_window = window_cells(counts, contexts, window) if window else ","
    return f"{sum(contexts)},{prompt_context},{pairs},{products},{in_window},{rows}"


def window_cells(counts: list[int], contexts: list[int], window: int) -> str:
    """Tokens that lie in the window of any of a request's query tokens, and pairs of a query token with one in its window."""
    tokens = sum(map(min, contexts, map(add, counts, repeat(window - 1))))
    last = sum(map(pairs_up_to, contexts, repeat(window)))
    first = sum(pairs_up_to(context - count, window) for context, count in zip(contexts, counts))  # noqa: B905 (3.10)
    return f"{tokens},{last - first}"


def pairs_up_to(position: int, window: int) -> int:
    """Pairs of the first so many tokens of a request, each with the tokens of its window, itself included."""
    if position <= window:
        return position * (position + 1) // 2
    return window * (window + 1) // 2 + (position - window) * window
