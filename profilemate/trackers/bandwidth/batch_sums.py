"""What the formulas need of a batch beside its tokens and requests: a few sums over the requests, as text of a row's cells.

A plain decode step (one token for each request) costs one sum in C, unless the model has a window. Otherwise the requests
that are gone through one by one are the new ones, and all if some older one has several tokens. `num_computed_tokens` of a
SchedulerOutput are the values before the step, in every version.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def cells(scheduled: Any, window: int) -> str:
    """The seven cells of `events.PASS`; `window` is the model's sliding window in tokens, 0 for none."""
    computed = scheduled.scheduled_cached_reqs.num_computed_tokens
    tokens = scheduled.total_num_scheduled_tokens
    if len(computed) != tokens or scheduled.scheduled_new_reqs:
        return mixed_cells(scheduled, window)
    context = sum(computed) + tokens
    if not window:
        return f"{context},0,{context},{context},,,{tokens}"
    in_window = seen_by_one_token(computed, window)
    return f"{context},0,{context},{context},{in_window},{in_window},{tokens}"


def mixed_cells(scheduled: Any, window: int) -> str:
    """The same for a step in which some requests are new or have several tokens."""
    decodes, prompts = parted(scheduled)
    context = products = pairs = sum(decodes) + len(decodes)
    prompt_context = 0
    for length, count in prompts:
        prompt_context += length
        products += count * length
        pairs += count * length - count * (count - 1) // 2
    context += prompt_context
    rows = len(decodes) + len(prompts) + sum(map(len, scheduled.scheduled_spec_decode_tokens.values()))
    in_window = window_cells(decodes, prompts, window) if window else ","
    return f"{context},{prompt_context},{pairs},{products},{in_window},{rows}"


def parted(scheduled: Any) -> tuple[Sequence[int], list[tuple[int, int]]]:
    """Computed tokens of the requests that go on by one token; context and tokens of the others, new ones among them."""
    counts, cached = scheduled.num_scheduled_tokens, scheduled.scheduled_cached_reqs
    prompts = []
    older_tokens = scheduled.total_num_scheduled_tokens
    for request in scheduled.scheduled_new_reqs:
        count = counts.get(request.req_id, 0)
        older_tokens -= count
        prompts.append((request.num_computed_tokens + count, count))
    if older_tokens == len(cached.num_computed_tokens):
        return cached.num_computed_tokens, prompts
    decodes = []
    for request_id, before in zip(cached.req_ids, cached.num_computed_tokens):  # noqa: B905 (3.10: as long)
        count = counts.get(request_id, 0)
        if count == 1:
            decodes.append(before)
        elif count:
            prompts.append((before + count, count))
    return decodes, prompts


def window_cells(decodes: Sequence[int], prompts: list[tuple[int, int]], window: int) -> str:
    """Tokens that lie in the window of any of a request's query tokens, and pairs of a query token with one in its window."""
    tokens = pairs = seen_by_one_token(decodes, window)
    for length, count in prompts:
        tokens += min(length, window - 1 + count)
        pairs += pairs_up_to(length, window) - pairs_up_to(length - count, window)
    return f"{tokens},{pairs}"


def seen_by_one_token(computed: Sequence[int], window: int) -> int:
    """Sum over requests of what one more token sees: the window, itself included, or all that there is."""
    edge = window - 1
    return sum([before if before < edge else edge for before in computed]) + len(computed)


def pairs_up_to(position: int, window: int) -> int:
    """Pairs of the first so many tokens of a request, each with the tokens of its window, itself included."""
    if position <= window:
        return position * (position + 1) // 2
    return window * (window + 1) // 2 + (position - window) * window
