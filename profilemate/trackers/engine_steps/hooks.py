"""Hooks around Scheduler.schedule and update_from_output, and on the few calls that a step's row needs beside them.

With async scheduling step N+1 is scheduled before the output of step N is processed: the two halves of a step are joined by
the id of the SchedulerOutput, which is forgotten when its output was processed, since CPython gives ids anew.
"""

from __future__ import annotations

from time import monotonic_ns
from typing import Any

from profilemate.probe.allocation import ALLOCATION_FAILED, watch_failures
from profilemate.probe.batch import context_of
from profilemate.probe.engine_step import STEP
from profilemate.probe.hook import AHEAD, AROUND, FOLLOWING_NONE, NOTING_TRUE, SELF, Hook
from profilemate.probe.per_object import PerObject
from profilemate.probe.process import THIS
from profilemate.trackers.engine_steps import events
from profilemate.trackers.engine_steps.limit import binding_limit, defers_prefills
from profilemate.trackers.engine_steps.recompute import note_preempted, recomputed_tokens
from profilemate.trackers.engine_steps.state import Batch, Scheduled, StepState

_states: PerObject[StepState] = PerObject()
_throttle_asked: list[bool] = []
"""Not empty where data-parallel balancing asked the next step to defer prefills."""

MOST_IN_FLIGHT = 64
"""Steps that wait for their output: two with async scheduling, one more than there are pipeline stages otherwise."""

STEP_CELLS = STEP.part(events.STEPS)
TOTALS = THIS.writer.stream(events.TOTALS, detail=False, newest_counts=True)
UNFINISHED = THIS.writer.stream(events.UNFINISHED)
DUMMY_STEPS = THIS.writer.stream(events.DUMMY_STEPS)

COLUMNS = events.STEPS.columns
NUM_UNTIL_UPDATE = COLUMNS.index("usable_blocks") - COLUMNS.index("scheduled_ns") + 1
NOT_SEEN: Scheduled = (0, 0, 0, "," * (NUM_UNTIL_UPDATE - 1), "", None)
"""A step whose schedule call nobody saw: ProfileMate came between its halves, or that hook is off."""

_failed_allocations = 0
"""Of all schedulers; one runs at a time, so what is added within a `schedule` is its own."""


def meet(scheduler: Any) -> StepState:
    """Begin to count for a scheduler."""
    return _states.keep(scheduler, StepState(scheduler))


# -- the two halves of a step -------------------------------------------------------------------------------------------


def schedule_begins(scheduler: Any) -> int:
    """The next batch is about to be chosen."""
    state = _states.get(id(scheduler)) or meet(scheduler)
    state.preempted_before = state.preempted
    state.failures_before = _failed_allocations
    if _throttle_asked:
        _throttle_asked.clear()
        state.deferring = defers_prefills(scheduler)
    elif state.deferring:
        state.deferring = False
    now = monotonic_ns()
    if state.is_empty:
        state.no_requests_ns += now - (state.mark_ns or now)
    else:
        state.between_ns += now - state.mark_ns
    return now


def schedule_ends(began: int, scheduled: Any, scheduler: Any) -> None:
    """A batch was chosen: its cells, kept until its output comes.

    Plain decode, in which every request of the scheduler is in the batch and none is in prefill, is told without looking at
    each: after such a step only a new or a preempted request can be in prefill.
    """
    now = monotonic_ns()
    state = _states[id(scheduler)]
    state.mark_ns = now
    state.is_empty = False
    tokens, requests = scheduled.total_num_scheduled_tokens, len(scheduled.num_scheduled_tokens)
    if (
        requests == len(scheduler.running) == len(scheduler.requests)
        and tokens < state.plain_tokens
        and _failed_allocations == state.failures_before
        and not (state.preempted or state.lost or scheduled.scheduled_new_reqs)
        and (state.was_plain or has_no_context(scheduled))
    ):
        state.was_plain = True
        if requests != state.plain_requests or tokens != state.plain_step_tokens:
            state.plain_requests, state.plain_step_tokens = requests, tokens
            state.plain_cells = f"{requests},0,0,{requests},{tokens:d},0,0,{state.none},{state.none},{events.NO_WORK}"
        cells, limit, batch = state.plain_cells, events.NO_WORK, None
    else:
        state.was_plain = False
        cells, limit, batch = describe(state, scheduler, scheduled)
    free = scheduler.kv_cache_manager.block_pool.get_num_free_blocks()
    state.number += 1
    pending, key = state.pending, id(scheduled)
    if key in pending:
        give_up(state, key, "dropped")
    pending[key] = (
        state.number, began, now, f"{began},{now - began},{cells},{free:d},{state.constants}", limit, batch
    )  # fmt: skip
    if len(pending) > MOST_IN_FLIGHT:
        give_up(state, next(iter(pending)), "forgotten")


def has_no_context(scheduled: Any) -> bool:
    """Whether each request of a batch without new ones has an output token; vLLM 0.11 does not tell."""
    outputs = getattr(scheduled.scheduled_cached_reqs, "num_output_tokens", None)
    return outputs is not None and 0 not in outputs


def describe(state: StepState, scheduler: Any, scheduled: Any) -> tuple[str, str, Batch]:
    """The cells of a batch that is not plain decode, its limit, and what is added up of it."""
    running, waiting = scheduler.get_request_counts()
    skipped = len(getattr(scheduler, state.skipped, ())) if waiting else 0
    tokens, requests = scheduled.total_num_scheduled_tokens, len(scheduled.num_scheduled_tokens)
    tells_outputs = hasattr(scheduled.scheduled_cached_reqs, "num_output_tokens")
    context_requests, context_tokens = context_of(scheduled) if tells_outputs else (None, None)
    recomputed = recomputed_tokens(state.lost, scheduler.requests, scheduled) if state.lost else state.none
    preempted = state.preempted or state.none
    no_space = _failed_allocations != state.failures_before or state.preempted != state.preempted_before
    limit = binding_limit(
        state.caps, scheduler, scheduled, waiting - skipped, context_requests, no_space, state.deferring
    )
    state.preempted = 0
    cells = (
        f"{running},{waiting},{skipped},{requests},{tokens:d},{context_requests},{context_tokens},{recomputed},"
        f"{preempted},{limit}"
    )
    return cells, limit, Batch(context_requests, context_tokens, recomputed, preempted)


def update_begins(scheduler: Any, scheduled: Any) -> int:
    """The output of a step came."""
    return monotonic_ns()


def update_ends(began: int, outputs: Any, scheduler: Any, scheduled: Any) -> None:
    """It was processed: our cells of the row."""
    now = monotonic_ns()
    state = _states.get(id(scheduler)) or meet(scheduler)
    step = state.pending.pop(id(scheduled), NOT_SEEN)
    if step[0] == state.expected:
        state.expected += 1
    else:
        put_in_order(state, step)
    blocked = began - (state.mark_ns or began)
    state.mark_ns = now
    state.is_empty = not scheduler.requests
    if scheduled.scheduled_spec_decode_tokens:
        count_drafts(state, outputs)
    seldom = "0,0,0,0"
    if state.finished or state.no_requests_ns or state.drafted:
        seldom = f"{state.no_requests_ns},{state.finished},{state.drafted},{state.accepted}"
    model = began - step[2] if step[2] else None
    STEP_CELLS.text = f"{step[3]},{model},{blocked},{now - began},{state.between_ns},{seldom},{len(state.pending)}"
    state.count(scheduled, step, blocked, now - began)


def put_in_order(state: StepState, step: Scheduled) -> None:
    """Outputs come in the order of scheduling: those of the steps that were scheduled before this one come no more."""
    if step is not NOT_SEEN:
        for key in [key for key, earlier in state.pending.items() if earlier[0] < step[0]]:
            give_up(state, key, "overtaken")
        state.expected = step[0] + 1


def give_up(state: StepState, key: int, reason: str) -> None:
    """Name a step whose output is not awaited any more."""
    number, begun_ns, _, _, limit, _ = state.pending.pop(key)
    UNFINISHED.add((monotonic_ns(), state.engine.number, begun_ns, number, limit, reason))
    THIS.flush()


def engine_died() -> None:
    """The engine's loop ended by an exception: what was in flight stays so."""
    for state in _states.values():
        for key in list(state.pending):
            give_up(state, key, "engine_dead")


# -- what happens within a step, and in few ------------------------------------------------------------------------------


def request_preempted(scheduler: Any, request: Any) -> None:
    """A running request is about to lose its blocks."""
    state = _states.get(id(scheduler)) or meet(scheduler)
    state.preempted += 1
    note_preempted(state.lost, request)


def request_freed(scheduler: Any) -> None:
    """A request ended, or was aborted."""
    state = _states.get(id(scheduler)) or meet(scheduler)
    state.finished += 1


def allocation_failed(manager: Any, request: Any, num_new_tokens: int) -> None:
    """`allocate_slots` found no room for a request."""
    global _failed_allocations
    _failed_allocations += 1


watch_failures("engine_steps", allocation_failed)


def throttle_asked() -> None:
    """The next step is to defer prefills, so that the ranks of a data-parallel group prefill together."""
    _throttle_asked.append(True)


def count_drafts(state: StepState, outputs: Any) -> None:
    """Drafts as vLLM's own statistics count them; they are with the outputs of one client."""
    for of_client in outputs.values():
        drafts = getattr(of_client.scheduler_stats, "spec_decoding_stats", None)
        if drafts is not None:
            state.drafted += drafts.num_draft_tokens
            state.accepted += drafts.num_accepted_tokens


def drafts_not_counted(result: None, scheduler: Any, num_draft_tokens: int, num_accepted_tokens: int) -> None:
    """The drafts of one request where vLLM's statistics are off; those that a grammar refused are then among them."""
    state = _states.get(id(scheduler)) or meet(scheduler)
    state.drafted += num_draft_tokens
    state.accepted += num_accepted_tokens


# -- dummy batches ------------------------------------------------------------------------------------------------------


def dummy_begins(core: Any) -> int:
    """A data-parallel engine without work takes part in the others' step."""
    state = _states.get(id(core.scheduler)) or meet(core.scheduler)
    now = monotonic_ns()
    if state.is_empty:
        state.no_requests_ns += now - (state.mark_ns or now)
    else:
        state.between_ns += now - state.mark_ns
    return now


def dummy_ends(began: int, result: None, core: Any) -> None:
    """It has its own row, and is no engine step."""
    now = monotonic_ns()
    state = _states[id(core.scheduler)]
    state.mark_ns = now
    state.dummy_steps += 1
    DUMMY_STEPS.add((now, state.engine.number, state.dummy_steps, now - began))
    THIS.flush_step((DUMMY_STEPS,), now)


# -- bookkeeping --------------------------------------------------------------------------------------------------------


def write_totals() -> None:
    """Old rows are about to go: the sums stay."""
    now = monotonic_ns()
    for state in _states.values():
        if state.through_step:
            TOTALS.add((now, state.engine.number, state.through_step, *state.totals.cells()))


def after_fork() -> None:
    """A forked child has no schedulers of its own yet."""
    _states.clear()
    _throttle_asked.clear()


SCHEDULER = "vllm.v1.core.sched.scheduler"
CORE = "vllm.v1.engine.core"


def _hook(name: str, module: str, target: str, *rest: Any, **options: Any) -> Hook:
    return Hook(name, "engine_steps", module, target, *rest, **options)


HOOKS = (
    _hook("scheduler.step_scheduling", SCHEDULER, "Scheduler.schedule", AROUND, schedule_begins, schedule_ends, (SELF,)),
    _hook(
        "scheduler.step_updating", SCHEDULER, "Scheduler.update_from_output", AROUND, update_begins, update_ends,
        (SELF, "scheduler_output"),
    ),
    _hook(
        "scheduler.step_preempts", SCHEDULER, "Scheduler._preempt_request", AHEAD, request_preempted, None, (SELF, "request"),
        optional=True,
    ),
    _hook("scheduler.step_frees_request", SCHEDULER, "Scheduler._free_request", AHEAD, request_freed, None, (SELF,)),
    _hook(
        "spec_decode.step_drafts", SCHEDULER, "Scheduler.make_spec_decoding_stats", FOLLOWING_NONE, None, drafts_not_counted,
        (SELF, "num_draft_tokens", "num_accepted_tokens"), optional=True,
    ),
    ALLOCATION_FAILED,
    _hook(
        "data_parallel.step_throttled", CORE, "DPEngineCoreProc._should_throttle_prefills", NOTING_TRUE, None, throttle_asked,
        optional=True,
    ),
    _hook("data_parallel.dummy_batch", CORE, "EngineCore.execute_dummy_batch", AROUND, dummy_begins, dummy_ends, (SELF,)),
    _hook("engine_death.steps_in_flight", CORE, "EngineCoreProc._send_engine_dead", AHEAD, engine_died, None, optional=True),
)  # fmt: skip
