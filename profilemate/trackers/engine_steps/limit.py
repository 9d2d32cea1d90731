"""Which limit kept a step from taking more, told from what `Scheduler.schedule` left behind.

The loop of vLLM 0.32 schedules the running requests, then admits waiting ones (unless it preempted), and ends at the first of:
no token left, nobody left that could run, as many requests as it may run, a prefill that it defers, no room in the KV cache.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from profilemate.trackers.engine_steps.events import (
    KV_SPACE,
    NO_WORK,
    OTHER,
    SEQUENCE_CAP,
    THROTTLED,
    TOKEN_BUDGET,
)

UNPAUSED = "UNPAUSED"


class Caps(NamedTuple):
    """What bounds a step of one scheduler; none of it changes while it lives."""

    max_requests: int
    """max_num_seqs."""
    max_active: int
    """Requests that may run at a time; max_num_seqs but for a setting of vLLM 0.32."""
    max_step_tokens: int
    """max_num_batched_tokens."""
    budget: int
    """Tokens that may be scheduled in a step; max_num_batched_tokens but for drafters in older versions."""
    draft_slots: int
    """Of max_num_batched_tokens, what each request takes for its drafts (vLLM 0.32)."""
    is_chunked: bool
    plain_tokens: int
    """Below so many tokens the budget is not used up, however many requests there are."""
    holds_back: bool
    """Prefills may be cut short by other things than the budget: encoder inputs, Mamba blocks, a long-prefill threshold."""

    @classmethod
    def of(cls, scheduler: Any) -> Caps:
        """Read them by name; what a version lacks does not bound."""
        config = scheduler.scheduler_config
        batched = int(config.max_num_batched_tokens)
        speculative = getattr(getattr(scheduler, "vllm_config", None), "speculative_config", None)
        most = int(scheduler.max_num_running_reqs)
        budget = int(getattr(scheduler, "max_num_scheduled_tokens", batched))
        draft_slots = int(getattr(speculative, "max_num_new_slots_for_drafting", 0) or 0)
        return cls(
            max_requests=most,
            max_active=int(getattr(scheduler, "max_num_active_reqs", most)),
            max_step_tokens=batched,
            budget=budget,
            draft_slots=draft_slots,
            plain_tokens=min(budget, batched - (most + 1) * draft_slots),
            is_chunked=bool(getattr(config, "enable_chunked_prefill", True)),
            holds_back=bool(
                getattr(scheduler, "max_num_encoder_input_tokens", 0)
                or getattr(scheduler, "need_mamba_block_aligned_split", False)
                or getattr(scheduler, "num_prefill_lookahead", 0)
                or getattr(config, "long_prefill_token_threshold", 0)
            ),
        )

    def is_used_up(self, tokens: int, requests: int) -> bool:
        """Whether fewer tokens are left than the next request needs at least."""
        slots = self.draft_slots
        return tokens >= self.budget or (slots > 0 and self.max_step_tokens - tokens - requests * slots <= slots)


def binding_limit(
    caps: Caps, scheduler: Any, scheduled: Any, eligible: int, context: int | None, no_space: bool, deferring: bool
) -> str:
    """One of events.LIMITS. `eligible` requests wait that were not skipped, `context` of the batch are in prefill.

    In the order in which the loop meets them, but that a failed allocation or a preemption comes first.
    """
    if no_space:
        return KV_SPACE
    tokens, requests = scheduled.total_num_scheduled_tokens, len(scheduled.num_scheduled_tokens)
    idle = len(scheduler.running) - requests
    if caps.is_used_up(tokens, requests):
        return TOKEN_BUDGET if eligible or idle or last_is_cut(scheduler, scheduled) else NO_WORK
    if (deferring or is_paused(scheduler)) and (eligible or idle):
        return THROTTLED
    if not eligible:
        held_back = caps.holds_back and (context or idle) and any(goes_on(request) for request in scheduler.running)
        return OTHER if held_back else NO_WORK
    active = len(scheduler.running) + getattr(scheduler, "num_waiting_for_streaming_input", 0)
    if active >= caps.max_active:
        return SEQUENCE_CAP
    if not caps.is_chunked and first_waiting(scheduler).num_tokens > caps.budget - tokens:
        return TOKEN_BUDGET
    return OTHER


def is_paused(scheduler: Any) -> bool:
    """Whether the engine was told to admit nobody, or to run nothing (sleep, weight updates)."""
    return getattr(getattr(scheduler, "_pause_state", None), "name", UNPAUSED) != UNPAUSED


def last_is_cut(scheduler: Any, scheduled: Any) -> bool:
    """Whether the request that was scheduled last has more prefill to do: only that one can meet the end of the budget."""
    last = next(reversed(scheduled.num_scheduled_tokens), None)
    request = scheduler.requests.get(last)
    return request is not None and goes_on(request)


def goes_on(request: Any) -> bool:
    """Whether prefill follows after this step. Versions before 0.18 do not say so."""
    known = getattr(request, "is_prefill_chunk", None)
    return bool(request.num_computed_tokens < request.num_tokens if known is None else known)


def first_waiting(scheduler: Any) -> Any:
    """The request at which admission ended."""
    return (getattr(scheduler, "kv_holding_waiting", None) or scheduler.waiting).peek_request()


def defers_prefills(scheduler: Any) -> bool:
    """Whether a step that data-parallel balancing asked to throttle does so, as `schedule` itself decides."""
    return not getattr(scheduler, "prefill_capacity_bound", False) and any(
        not goes_on(request) for request in scheduler.running
    )
