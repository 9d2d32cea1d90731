"""In the engine core: what the scheduler does with its requests, and the rows of it."""

from __future__ import annotations

from time import monotonic_ns
from typing import Any

from profilemate.probe.allocation import watch_failures
from profilemate.probe.engine_step import STEP
from profilemate.probe.process import THIS
from profilemate.probe.request_ids import written_id
from profilemate.trackers.requests import events
from profilemate.trackers.requests.state import (
    MOST_WAITING,
    STATES,
    TOTALS,
    Prefill,
    Recovery,
    State,
    meet,
    state_of,
)

IN_ENGINE = THIS.writer.stream(events.IN_ENGINE)
PREEMPTIONS = THIS.writer.stream(events.PREEMPTIONS)
STEP.write_with(IN_ENGINE, PREEMPTIONS)

WITHOUT_TOKEN = ("ABORTED", "ERROR")
"""A request that ends so while its first token is awaited never got it."""

_failed: tuple[int, str, int] | None = None
"""Of the last allocation that found no room in the schedule() under way: id of the manager, request, tokens."""


def moment(request: Any, event: str) -> int:
    """When vLLM says that this happened to a request; now, where it keeps no statistics."""
    for told in reversed(getattr(request, "events", None) or ()):
        if told.type.name == event:
            return int(told.timestamp * 1e9)
    return monotonic_ns()


def request_added(result: None, scheduler: Any, request: Any) -> None:
    """`add_request`; the next part of a streamed prompt comes the same way and is no request of its own."""
    waiting = state_of(scheduler).waiting
    if scheduler.requests.get(request.request_id) is request and len(waiting) < MOST_WAITING:
        waiting[request.request_id] = moment(request, "QUEUED")


def allocation_failed(manager: Any, request: Any, num_new_tokens: int) -> None:
    """Remember for whom there was no room: the preemptions that follow are for that request."""
    global _failed
    _failed = (id(manager), request.request_id, num_new_tokens)


watch_failures("requests", allocation_failed)


# -- a step is scheduled ------------------------------------------------------------------------------------------------


def step_scheduled(output: Any, scheduler: Any) -> None:
    """A batch was chosen. A plain decode step has nothing to look at."""
    global _failed
    _failed = None
    state = STATES.get(id(scheduler)) or meet(scheduler)
    state.in_flight += 1
    if output.scheduled_new_reqs or state.prefilling or state.preempted or state.recovering:
        look_at(state, output, scheduler.requests)


def look_at(state: State, output: Any, requests: dict[str, Any]) -> None:
    """Follow what is in prefill, was preempted, or is new; under the V2 runner resumed requests are among the new ones."""
    tokens = output.num_scheduled_tokens
    step = state.engine.step + state.in_flight
    resumed = state.preempted.keys() & tokens.keys()
    for request_id in resumed:
        resume(state, step, requests[request_id], tokens[request_id])
    for request_id, prefill in state.prefilling.items():
        if not prefill.done_step and request_id in tokens:
            count_prefill(state, step, request_id, prefill, requests[request_id].num_computed_tokens)
    for new in output.scheduled_new_reqs:
        if new.req_id not in resumed and new.req_id not in state.prefilling:
            begin_prefill(state, step, requests[new.req_id], new.num_computed_tokens)
    for request_id, recovery in state.recovering.items():
        if not recovery.done_step and requests[request_id].num_computed_tokens >= recovery.lost_tokens:
            recovery.done_step = step
            state.awaited.append((step, request_id))


def begin_prefill(state: State, step: int, request: Any, cached_tokens: int) -> None:
    """A request runs for the first time."""
    request_id = request.request_id
    queued_ns = state.waiting.pop(request_id, None)
    prefill = Prefill(queued_ns, moment(request, "SCHEDULED"), request.num_prompt_tokens, cached_tokens)
    state.prefilling[request_id] = prefill
    count_prefill(state, step, request_id, prefill, request.num_computed_tokens)


def count_prefill(state: State, step: int, request_id: str, prefill: Prefill, computed_tokens: int) -> None:
    """This step runs a part of a prompt, or what is left of it."""
    prefill.steps += 1
    if computed_tokens >= prefill.prompt_tokens:
        prefill.done_step = step
        state.awaited.append((step, request_id))


def resume(state: State, step: int, request: Any, scheduled_tokens: int) -> None:
    """A preempted request runs again, from the tokens that the prefix cache still has."""
    request_id = request.request_id
    number, lost_tokens = state.preempted.pop(request_id)
    kept_tokens = request.num_computed_tokens - scheduled_tokens
    state.recovering[request_id] = Recovery(number, lost_tokens, kept_tokens)
    if not request.num_output_tokens and request_id not in state.prefilling:  # its first token was thrown away
        state.prefilling[request_id] = Prefill(None, None, request.num_prompt_tokens, None)
    PREEMPTIONS.add(
        (monotonic_ns(), state.engine.number, step, written_id(request_id), "resumed", number, "", "", None, lost_tokens,
         None, kept_tokens, None)
    )  # fmt: skip


# -- its output is processed --------------------------------------------------------------------------------------------


def step_finished(outputs: Any, scheduler: Any) -> None:
    """`update_from_output`: the first tokens and the recoveries of this step are there."""
    state = STATES.get(id(scheduler)) or meet(scheduler)
    if state.in_flight:
        state.in_flight -= 1
    if state.awaited:
        settle(state, monotonic_ns())


def settle(state: State, now: int) -> None:
    """Make the rows that waited for this step."""
    step, awaited = state.ending_step, state.awaited
    while awaited and awaited[0][0] <= step:
        request_id = awaited.popleft()[1]
        prefill = state.prefilling.get(request_id)
        if prefill is not None and 0 < prefill.done_step <= step:
            del state.prefilling[request_id]
            IN_ENGINE.add(
                (now, state.engine.number, step, written_id(request_id), "prefilled",
                 *prefill_cells(prefill, now), None, None, None, "")
            )  # fmt: skip
        recovery = state.recovering.get(request_id)
        if recovery is not None and 0 < recovery.done_step <= step:
            del state.recovering[request_id]
            add_recovery(state, now, request_id, "recovered", recovery, recovery.lost_tokens)


def prefill_cells(prefill: Prefill, first_token_ns: int | None) -> tuple[int | None, ...]:
    """Cells from `queued_ns` to `prefill_steps`."""
    return (
        prefill.queued_ns, prefill.scheduled_ns, first_token_ns, prefill.prompt_tokens, prefill.cached_tokens, prefill.steps,
    )  # fmt: skip


def add_recovery(state: State, now: int, request_id: str, event: str, recovery: Recovery, computed_tokens: int) -> None:
    """The row of a recovery that is over."""
    PREEMPTIONS.add(
        (now, state.engine.number, state.ending_step, written_id(request_id), event, recovery.number, "", "", None,
         recovery.lost_tokens, None, recovery.kept_tokens, recovery.recomputed(computed_tokens))
    )  # fmt: skip


# -- preempted, finished ------------------------------------------------------------------------------------------------


def reset_begins(scheduler: Any) -> State:
    """`reset_prefix_cache` may preempt every running request."""
    state = state_of(scheduler)
    state.is_resetting = True
    return state


def reset_ends(state: State, scheduler: Any) -> None:
    """Later preemptions have other reasons."""
    state.is_resetting = False


def preemption_begins(scheduler: Any, request: Any) -> tuple[int, int]:
    """Computed tokens and free blocks, before vLLM sets the one to nothing and frees blocks."""
    return request.num_computed_tokens, scheduler.kv_cache_manager.block_pool.get_num_free_blocks()


def request_preempted(before: tuple[int, int], result: Any, scheduler: Any, request: Any) -> None:
    """A running request lost its blocks and waits again."""
    state, request_id, now = state_of(scheduler), request.request_id, monotonic_ns()
    lost_tokens, free_blocks = before
    recovery = state.recovering.pop(request_id, None)
    if recovery is not None:
        add_recovery(state, now, request_id, "cut_short", recovery, lost_tokens)
    prefill = state.prefilling.get(request_id)
    if prefill is not None and getattr(request, "drop_stale_output", False):
        prefill.done_step = 0
    number = request.num_preemptions
    state.preempted[request_id] = (number, lost_tokens)
    TOTALS.preempted += 1
    PREEMPTIONS.add(
        (now, state.engine.number, state.next_step, written_id(request_id), "preempted", number,
         *reason_cells(state, scheduler), lost_tokens, free_blocks, None, None)
    )  # fmt: skip


def reason_cells(state: State, scheduler: Any) -> tuple[str, str, int | None]:
    """Why, for which request, and how many tokens that asked for."""
    if state.is_resetting:
        return "prefix_cache_reset", "", None
    if _failed is not None and _failed[0] == id(scheduler.kv_cache_manager):
        return "no_blocks", written_id(_failed[1]), _failed[2]
    return "other", "", None


def request_freed(scheduler: Any, request: Any) -> None:
    """The scheduler is done with a request: it finished, or it was aborted wherever it was."""
    state, request_id, now = state_of(scheduler), request.request_id, monotonic_ns()
    status = request.status.name.removeprefix("FINISHED_")
    state.preempted.pop(request_id, None)
    recovery = state.recovering.pop(request_id, None)
    if recovery is not None:
        is_over = 0 < recovery.done_step <= state.ending_step
        event = "recovered" if is_over and status not in WITHOUT_TOKEN else "cut_short"
        add_recovery(state, now, request_id, event, recovery, request.num_computed_tokens)
    TOTALS.freed += 1
    IN_ENGINE.add(
        (now, state.engine.number, state.ending_step, written_id(request_id), "finished",
         *open_cells(state, request, status, now), request.num_output_tokens, request.num_preemptions, request.priority, status)
    )  # fmt: skip


def open_cells(state: State, request: Any, status: str, now: int) -> tuple[int | None, ...]:
    """Cells from `queued_ns` to `prefill_steps`, of which a `prefilled` row has told already what is empty here."""
    prefill = state.prefilling.pop(request.request_id, None)
    queued_ns = state.waiting.pop(request.request_id, None)
    if prefill is None:
        return queued_ns, None, None, request.num_prompt_tokens, None, None
    has_token = 0 < prefill.done_step <= state.ending_step and status not in WITHOUT_TOKEN
    return prefill_cells(prefill, now if has_token else None)


def requests_finished(result: Any, scheduler: Any) -> None:
    """`finish_requests`, which an abort calls: no step may follow in a script that drives its engine itself."""
    if IN_ENGINE.pending:
        THIS.flush_step((IN_ENGINE, PREEMPTIONS), monotonic_ns())
