"""What a SchedulerOutput holds, counted as vLLM counts it, without a loop over the requests of a plain decode step."""

from __future__ import annotations

from typing import Any


def context_of(scheduler_output: Any) -> tuple[int, int]:
    """Requests still in their context phase (prefill), and their scheduled tokens; all others generate (decode).

    The definition is `compute_iteration_details` of vllm/v1/utils.py: new requests, and cached ones without an output token.
    Under the V2 runner a request that comes back from a preemption is a new one. Raises AttributeError with vLLM 0.11, whose
    cached requests do not tell their output tokens.
    """
    scheduled = scheduler_output.num_scheduled_tokens
    new = scheduler_output.scheduled_new_reqs
    requests, tokens = len(new), 0
    for request in new:
        tokens += scheduled[request.req_id]
    cached = scheduler_output.scheduled_cached_reqs
    if 0 in cached.num_output_tokens:
        for request_id, num_output_tokens in zip(cached.req_ids, cached.num_output_tokens):  # noqa: B905 (3.10: as long)
            if num_output_tokens == 0:
                requests += 1
                tokens += scheduled[request_id]
    return requests, tokens
