"""Hooks around Scheduler.schedule and update_from_output, and on the few calls that a step's row needs beside them.

With async scheduling step N+1 is scheduled before the output of step N is processed: the two halves of a step are joined by
the id of the SchedulerOutput, which is forgotten when its output was processed, since CPython gives ids anew.
"""

from __future__ import annotations

from time import monotonic_ns
from typing import Any

from profilemate.probe.allocation import ALLOCATION_FAILED, WATCHERS
from profilemate.probe.batch import context_of
from profilemate.probe.engine_step import STEP
from profilemate.probe.hook import AHEAD, AROUND, FOLLOWING_NONE, NOTING_TRUE, SELF, Hook
from profilemate.probe.process import THIS
from profilemate.trackers.engine_steps import events
from profilemate.trackers.engine_steps.limit import binding_limit, defers_prefills
from profilemate.trackers.engine_steps.recompute import note_preempted, recomputed_tokens
from profilemate.trackers.engine_steps.state import Scheduled, StepState

_states: dict[int, StepState] = {}
_throttle_asked: list[bool] = []
"""Not empty where data-parallel balancing asked the next step to defer prefills."""

MOST_IN_FLIGHT = 64
"""Steps that wait for their output: two with async scheduling, one more than there are pipeline stages otherwise."""

STEP_CELLS = STEP.part(events.STEPS)
TOTALS = THIS.writer.stream(events.TOTALS, detail=False)
UNFINISHED = THIS.writer.stream(events.UNFINISHED)
DUMMY_STEPS = THIS.writer.stream(events.DUMMY_STEPS)

COLUMNS = events.STEPS.columns
NUM_UNTIL_UPDATE = COLUMNS.index("usable_blocks") - COLUMNS.index("scheduled_ns") + 1
NOT_SEEN = Scheduled(0, 0, 0, "," * (NUM_UNTIL_UPDATE - 1), 0, 0, None, None, None, None, events.OTHER)
"""A step whose schedule call nobody saw: ProfileMate came between its halves, or that hook is off."""

_failed_allocations = 0
"""Of all schedulers; one runs at a time, so what is added within a `schedule` is its own."""


def meet(scheduler: Any) -> StepState:
    """Begin to count for a scheduler. It is forgotten when it is gone, since another one may get its id."""
    key = id(scheduler)

    def forget(gone: Any) -> None:
        state = _states.get(key)
        if state is not None and state.ref is gone:
            del _states[key]

    state = _states[key] = StepState(scheduler, forget)
    return state


# -- the two halves of a step -------------------------------------------------------------------------------------------


def schedule_begins(scheduler: Any) -> int:
    """The next batch is about to be chosen."""
    state = _states.get(id(scheduler)) or meet(scheduler)
    state.preempted_before = state.preempted
    state.failures_before = _failed_allocations
    if _throttle_asked:
        _throttle_asked.clear()
        state.deferring = defers_prefills(scheduler)
    now = monotonic_ns()
    leave_mark(state, now)
    return now


def leave_mark(state: StepState, now_ns: int) -> None:
    """The engine's thread begins something: what it did since its last end is between steps, or waiting for requests."""
    if state.is_empty:
        state.no_requests_ns += now_ns - (state.mark_ns or now_ns)
    else:
        state.between_ns += now_ns - state.mark_ns


def schedule_ends(began: int, scheduled: Any, scheduler: Any) -> None:
    """A batch was chosen: its cells, kept until its output comes."""
    now = monotonic_ns()
    state = _states[id(scheduler)]
    state.mark_ns = now
    state.is_empty = False
    tokens, requests = scheduled.total_num_scheduled_tokens, len(scheduled.num_scheduled_tokens)
    running, waiting = scheduler.get_request_counts()
    skipped = len(getattr(scheduler, state.skipped, ())) if waiting else 0
    if not state.number:
        state.tells_context = hasattr(scheduled.scheduled_cached_reqs, "num_output_tokens")
    context_requests, context_tokens = context_of(scheduled) if state.tells_context else (None, None)
    recomputed = recomputed_tokens(state.lost, scheduler.requests, scheduled) if state.lost else state.none
    preempted = state.preempted or state.none
    caps = state.caps
    limit = events.NO_WORK
    no_space = state.preempted != state.preempted_before or _failed_allocations != state.failures_before
    if no_space or waiting != skipped or requests != running or tokens >= caps.plain_tokens or context_requests:
        limit = binding_limit(
            caps, scheduler, scheduled, waiting - skipped, context_requests, no_space, state.deferring
        )
    free = scheduler.kv_cache_manager.block_pool.get_num_free_blocks()
    text = (
        f"{began},{now - began},{running},{waiting},{skipped},{requests},{tokens},{context_requests},{context_tokens},"
        f"{recomputed},{preempted},{limit},{free},{state.constants}"
    )
    state.preempted = 0
    state.deferring = False
    state.number += 1
    pending, key = state.pending, id(scheduled)
    if key in pending:
        give_up(state, key, "dropped")
    pending[key] = Scheduled(
        state.number, began, now, text, requests, tokens, context_requests, context_tokens, recomputed, preempted, limit
    )
    if len(pending) > MOST_IN_FLIGHT:
        give_up(state, next(iter(pending)), "forgotten")


def update_begins(scheduler: Any, scheduled: Any) -> int:
    """The output of a step came."""
    return monotonic_ns()


def update_ends(began: int, outputs: Any, scheduler: Any, scheduled: Any) -> None:
    """It was processed: our cells of the row."""
    now = monotonic_ns()
    state = _states.get(id(scheduler)) or meet(scheduler)
    step = state.pending.pop(id(scheduled), NOT_SEEN)
    if step.number == state.expected:
        state.expected += 1
    else:
        put_in_order(state, step)
    blocked = began - (state.mark_ns or began)
    state.mark_ns = now
    state.is_empty = not scheduler.requests
    if scheduled.scheduled_spec_decode_tokens:
        count_drafts(state, outputs)
    STEP_CELLS.text = (
        f"{step.text},{began - step.ended_ns if step.ended_ns else None},{blocked},{now - began},{state.between_ns},"
        f"{state.no_requests_ns},{state.finished},{state.drafted},{state.accepted},{len(state.pending)}"
    )
    state.count(step, blocked, now - began)


def put_in_order(state: StepState, step: Scheduled) -> None:
    """Outputs come in the order of scheduling: those of the steps that were scheduled before this one come no more."""
    if step is not NOT_SEEN:
        for key in [key for key, earlier in state.pending.items() if earlier.number < step.number]:
            give_up(state, key, "overtaken")
        state.expected = step.number + 1


def give_up(state: StepState, key: int, reason: str) -> None:
    """Name a step whose output is not awaited any more."""
    step = state.pending.pop(key)
    UNFINISHED.add((monotonic_ns(), state.engine.number, step.begun_ns, step.tokens, reason))
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


WATCHERS.append(allocation_failed)


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
    leave_mark(state, now)
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
    return Hook(f"engine_steps.{name}", "engine_steps", module, target, *rest, **options)


HOOKS = (
    _hook("schedule", SCHEDULER, "Scheduler.schedule", AROUND, schedule_begins, schedule_ends, (SELF,)),
    _hook(
        "update", SCHEDULER, "Scheduler.update_from_output", AROUND, update_begins, update_ends,
        (SELF, "scheduler_output"),
    ),
    _hook(
        "preempt", SCHEDULER, "Scheduler._preempt_request", AHEAD, request_preempted, None, (SELF, "request"),
        optional=True,
    ),
    _hook("free_request", SCHEDULER, "Scheduler._free_request", AHEAD, request_freed, None, (SELF,)),
    _hook(
        "drafts", SCHEDULER, "Scheduler.make_spec_decoding_stats", FOLLOWING_NONE, None, drafts_not_counted,
        (SELF, "num_draft_tokens", "num_accepted_tokens"), optional=True,
    ),
    ALLOCATION_FAILED,
    _hook(
        "throttle", CORE, "DPEngineCoreProc._should_throttle_prefills", NOTING_TRUE, None, throttle_asked,
        optional=True,
    ),
    _hook("dummy_batch", CORE, "EngineCore.execute_dummy_batch", AROUND, dummy_begins, dummy_ends, (SELF,)),
    _hook("engine_dead", CORE, "EngineCoreProc._send_engine_dead", AHEAD, engine_died, None, optional=True),
)  # fmt: skip
