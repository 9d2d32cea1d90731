"""The two halves of an engine step when they do not come one after the other, and vLLM versions that tell less."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from profilemate.probe import engine_step
from profilemate.probe.process import THIS
from profilemate.trackers.engine_steps import events, hooks
from profilemate.trackers.engine_steps.recompute import note_preempted, recomputed_tokens

PRESENT = events.STEPS.columns[3:]


class Scheduler:
    """What the handlers read of a Scheduler of vLLM 0.32."""

    max_num_running_reqs = 8
    max_num_scheduled_tokens = 64

    def __init__(self) -> None:
        pool = SimpleNamespace(num_gpu_blocks=11, get_num_free_blocks=lambda: 7)
        self.kv_cache_manager = SimpleNamespace(block_pool=pool)
        self.scheduler_config = SimpleNamespace(max_num_batched_tokens=64)
        self.requests: dict[str, Any] = {
            "a": SimpleNamespace(request_id="a", num_computed_tokens=5, is_prefill_chunk=False)
        }
        self.running: list[Any] = [self.requests["a"]]
        self.deferred_waiting: set[Any] = set()

    def get_request_counts(self) -> tuple[int, int]:
        return len(self.running), len(self.requests) - len(self.running)

    def _preempt_request(self, request: Any) -> None: ...


class OldScheduler(Scheduler):
    """One of vLLM 0.11: it preempts in the middle of `schedule`."""

    _preempt_request = None  # type: ignore[assignment]

    def __getattribute__(self, name: str) -> Any:
        if name in ("_preempt_request", "deferred_waiting"):
            raise AttributeError(name)
        return super().__getattribute__(name)


def batch(tokens: int = 1, **cached: Any) -> Any:
    """A SchedulerOutput of one decode request."""
    return SimpleNamespace(
        num_scheduled_tokens={"a": tokens},
        total_num_scheduled_tokens=tokens,
        scheduled_new_reqs=[],
        scheduled_cached_reqs=SimpleNamespace(**{"req_ids": ["a"], "num_output_tokens": [3], **cached}),
        scheduled_spec_decode_tokens={},
        finished_req_ids=set(),
    )


@pytest.fixture
def scheduler(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scheduler]:
    monkeypatch.setattr(THIS, "flush", lambda now=0: None)
    monkeypatch.setattr(THIS, "flush_step", lambda streams, now: None)
    hooks.after_fork()
    engine_step.after_fork()
    yield Scheduler()
    hooks.after_fork()
    engine_step.after_fork()
    for stream in (hooks.UNFINISHED, hooks.TOTALS, hooks.DUMMY_STEPS):
        stream.pending.clear()


def schedule(scheduler: Scheduler, output: Any) -> Any:
    hooks.schedule_ends(hooks.schedule_begins(scheduler), output, scheduler)
    return output


def update(scheduler: Scheduler, output: Any) -> dict[str, str]:
    """The cells of the row."""
    hooks.update_ends(hooks.update_begins(scheduler, output), {}, scheduler, output)
    return dict(zip(PRESENT, hooks.STEP_CELLS.text.replace("None", "").split(","), strict=True))


def unfinished() -> list[tuple[str, str]]:
    """Number and reason of the steps that were given up."""
    rows = [line.split(",") for line in hooks.UNFINISHED.take()[0].decode().splitlines()]
    return [(row[3], row[5]) for row in rows]


def test_halves_that_overlap_are_joined_by_their_batch(scheduler: Scheduler) -> None:
    first, second = schedule(scheduler, batch(1)), schedule(scheduler, batch(2))
    one, two = update(scheduler, first), update(scheduler, second)
    assert [row["step_tokens"] for row in (one, two)] == ["1", "2"]
    assert [row["in_flight"] for row in (one, two)] == ["1", "0"]
    assert int(one["scheduled_ns"]) < int(two["scheduled_ns"])
    assert unfinished() == []


def test_steps_that_a_later_one_overtakes_are_named(scheduler: Scheduler) -> None:
    held = [schedule(scheduler, batch()) for _ in range(3)]
    assert update(scheduler, held[2])["in_flight"] == "0"
    assert unfinished() == [("1", "overtaken"), ("2", "overtaken")]
    assert update(scheduler, schedule(scheduler, batch()))["in_flight"] == "0"
    assert unfinished() == []


def test_a_batch_in_the_place_of_one_that_was_thrown_away_is_not_taken_for_it(scheduler: Scheduler) -> None:
    """CPython gives the id of an object that is gone to the next one."""
    output = batch()
    for tokens in (1, 2):
        output.num_scheduled_tokens, output.total_num_scheduled_tokens = {"a": tokens}, tokens
        schedule(scheduler, output)
    assert unfinished() == [("1", "dropped")]
    assert update(scheduler, output)["step_tokens"] == "2"
    assert unfinished() == []


def test_no_more_than_so_many_are_remembered(scheduler: Scheduler) -> None:
    held = [schedule(scheduler, batch()) for _ in range(hooks.MOST_IN_FLIGHT + 2)]
    assert unfinished() == [("1", "forgotten"), ("2", "forgotten")]
    state = hooks._states[id(scheduler)]
    assert len(state.pending) == hooks.MOST_IN_FLIGHT
    assert update(scheduler, held[0])["step_tokens"] == ""
    assert update(scheduler, held[2])["step_tokens"] == "1"


def test_what_is_in_flight_when_the_engine_dies_is_named(scheduler: Scheduler) -> None:
    held = [schedule(scheduler, batch()) for _ in range(2)]
    hooks.engine_died()
    assert unfinished() == [("1", "engine_dead"), ("2", "engine_dead")] and held


def test_an_update_whose_schedule_nobody_saw_says_so(scheduler: Scheduler) -> None:
    row = update(scheduler, batch())
    assert row["update_ns"] and not row["step_tokens"] and not row["model_ns"] and not row["limit"]
    assert update(scheduler, schedule(scheduler, batch()))["limit"] == "no_work"
    assert unfinished() == []
    hooks.write_totals()
    totals = dict(zip(events.TOTALS.columns, hooks.TOTALS.take()[0].decode().strip().split(","), strict=True))
    assert totals["step_tokens"] == totals["no_work"] == "1" and totals["other"] == "0"


def test_a_scheduler_that_is_gone_is_forgotten(scheduler: Scheduler) -> None:
    gone = Scheduler()
    schedule(gone, batch())
    assert len(hooks._states) == 1
    del gone
    gc.collect()
    assert hooks._states == {}


def test_plain_steps_change_their_text_with_their_batch(scheduler: Scheduler) -> None:
    for tokens in (1, 1, 4, 1):
        row = update(scheduler, schedule(scheduler, batch(tokens)))
        assert (row["step_tokens"], row["context_requests"], row["limit"]) == (str(tokens), "0", "no_work")
    row = update(scheduler, schedule(scheduler, batch(64)))
    assert row["step_tokens"] == "64"


def test_a_request_without_output_is_in_prefill_also_between_plain_steps(scheduler: Scheduler) -> None:
    assert update(scheduler, schedule(scheduler, batch()))["context_requests"] == "0"
    new = batch(5, req_ids=[], num_output_tokens=[])
    new.scheduled_new_reqs = [SimpleNamespace(req_id="a")]
    row = update(scheduler, schedule(scheduler, new))
    assert (row["context_requests"], row["context_tokens"]) == ("1", "5")
    chunk = batch(6, num_output_tokens=[0])
    assert update(scheduler, schedule(scheduler, chunk))["context_tokens"] == "6"
    assert update(scheduler, schedule(scheduler, batch()))["context_tokens"] == "0"


def test_a_version_without_these_fields_leaves_the_cells_empty(scheduler: Scheduler) -> None:
    old = OldScheduler()
    output = batch()
    del output.scheduled_cached_reqs.num_output_tokens
    row = update(old, schedule(old, output))
    empty = {name for name, cell in row.items() if not cell}
    assert empty == {"context_requests", "context_tokens", "recomputed_tokens", "step_preempted"}


def test_throttling_is_of_one_step_alone(scheduler: Scheduler) -> None:
    scheduler.requests["b"] = SimpleNamespace(request_id="b")
    hooks.throttle_asked()
    throttled = update(scheduler, schedule(scheduler, batch()))
    assert throttled["limit"] == "throttled" and throttled["waiting"] == "1"
    assert update(scheduler, schedule(scheduler, batch()))["limit"] == "other"


def test_time_without_requests_is_apart(scheduler: Scheduler) -> None:
    requests = scheduler.requests
    output = schedule(scheduler, batch())
    scheduler.requests = {}
    assert update(scheduler, output)["between_ns"] == "0"
    scheduler.requests = requests
    row = update(scheduler, schedule(scheduler, batch()))
    assert int(row["no_requests_ns"]) > 0 and row["between_ns"] == "0"
    row = update(scheduler, schedule(scheduler, batch()))
    assert int(row["between_ns"]) > 0 and row["no_requests_ns"] == "0"


def test_a_dummy_batch_is_no_step_and_not_between_steps(scheduler: Scheduler) -> None:
    core = SimpleNamespace(scheduler=scheduler)
    before = update(scheduler, schedule(scheduler, batch()))
    for _ in range(2):
        hooks.dummy_ends(hooks.dummy_begins(core), None, core)
    rows = [line.split(",") for line in hooks.DUMMY_STEPS.take()[0].decode().splitlines()]
    assert [row[1:3] for row in rows] == [["0", "1"], ["0", "2"]]
    row = update(scheduler, schedule(scheduler, batch()))
    ended = sum(int(before[name]) for name in ("scheduled_ns", "schedule_ns", "model_ns", "update_ns"))
    dummies = sum(int(dummy[3]) for dummy in rows)
    assert int(row["between_ns"]) + dummies == int(row["scheduled_ns"]) - ended


def test_drafts_are_counted_where_vllms_statistics_are_off(scheduler: Scheduler) -> None:
    output = schedule(scheduler, batch())
    output.scheduled_spec_decode_tokens = {"a": [1, 2, 3]}
    hooks.drafts_not_counted(None, scheduler, 3, 2)
    row = update(scheduler, output)
    assert (row["drafted_tokens"], row["accepted_tokens"]) == ("3", "2")
    assert update(scheduler, schedule(scheduler, batch()))["drafted_tokens"] == "0"


def test_lost_work_is_that_below_the_farthest_position(scheduler: Scheduler) -> None:
    """Preempted at 100, again at 40 on the way back, then it ends: nothing stays."""
    request = SimpleNamespace(request_id="a", num_computed_tokens=100)
    requests, lost = {"a": request}, {}
    note_preempted(lost, request)
    request.num_computed_tokens = 40
    assert recomputed_tokens(lost, requests, batch(40)) == 40
    note_preempted(lost, request)
    request.num_computed_tokens = 130
    assert recomputed_tokens(lost, requests, batch(130)) == 100 and lost == {}
    note_preempted(lost, request)
    over = SimpleNamespace(**vars(batch()) | {"finished_req_ids": {"a"}, "num_scheduled_tokens": {}})
    assert recomputed_tokens(lost, requests, over) == 0 and lost == {}
