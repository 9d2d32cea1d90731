"""Drive vLLM's scheduler through preemptions, chunked prefills, aborts and resets, beside an oracle of its own.

    drive_requests.py OUT.json [--more WHAT ...] [driver arguments]

WHAT: `priority` (the policy, by which a request that was scheduled already may be preempted), `v2` (resumed requests come
as new ones), `reset` (the prefix cache is reset with its running requests now and then), `abort` (every fifth request is
aborted, in the queue or later, and a preempted one now and then).

The oracle replaces methods of the instances, and reads what SchedulerOutput says of a step rather than the requests.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "driver"))
RESET_EVERY = 40
ABORT_EVERY, ABORT_AFTER_STEPS, MOST_ABORTED_PREEMPTED = 5, 60, 3
SMALL = {"mean_gap_steps": 2.0, "output_length": (16, 150), "prefix_chunks": (2, 8), "tail_chunks": (1, 10)}
"""A trace whose longest request fits into 39 blocks of 16 tokens, and of which eight or so do not fit at once."""


class Oracle:
    """What happened to every request of one scheduler."""

    def __init__(self, scheduler: Any) -> None:
        self.scheduler = scheduler
        self.computed: dict[str, int] = {}
        self.began: dict[str, dict[str, Any]] = {}
        self.finished: list[dict[str, Any]] = []
        self.preemptions: list[dict[str, Any]] = []
        self.open: dict[str, dict[str, Any]] = {}
        self.chunks: dict[str, int] = {}
        self.schedules = self.updates = 0
        self.failed = ""
        self.asked = 0
        self.resetting = False
        self.outputs: list[Any] = []
        self.freed: set[str] = set()
        self.entered_ns: dict[str, int] = {}
        for name in (
            "schedule",
            "update_from_output",
            "add_request",
            "reset_prefix_cache",
            "_preempt_request",
            "_free_request",
        ):
            setattr(scheduler, name, self._around(scheduler, name))
        manager = scheduler.kv_cache_manager
        manager.allocate_slots = self._around(manager, "allocate_slots")

    def _around(self, instance: Any, name: str) -> Any:
        before = getattr(self, f"before_{name}", None)
        after = getattr(self, f"after_{name}", None)

        def run(*args: Any, **kwargs: Any) -> Any:
            self.entered_ns[name] = time.monotonic_ns()
            if before is not None:
                before(*args, **kwargs)
            result = getattr(type(instance), name)(instance, *args, **kwargs)
            if after is not None:
                after(result, *args, **kwargs)
            return result

        return run

    def between(self, name: str) -> list[int]:
        """When the call of a method that is over now began, and now: its handlers ran in between."""
        return [self.entered_ns[name], time.monotonic_ns()]

    def after_add_request(self, result: None, request: Any) -> None:
        self.began[request.request_id] = {"queued_ns": self.between("add_request")}

    def before_schedule(self, *_: Any, **__: Any) -> None:
        self.failed = ""

    def after_allocate_slots(self, blocks: Any, request: Any, num_new_tokens: int, *_: Any, **__: Any) -> None:
        if blocks is None:
            self.failed, self.asked = request.request_id, num_new_tokens

    def before_reset_prefix_cache(self, *_: Any, **__: Any) -> None:
        self.resetting, self.failed = True, ""

    def after_reset_prefix_cache(self, *_: Any, **__: Any) -> None:
        self.resetting = False

    def before__preempt_request(self, request: Any, *_: Any, **__: Any) -> None:
        pool = self.scheduler.kv_cache_manager.block_pool
        name = request.request_id
        found = self.open.pop(name, None)
        lost = self.computed.get(name, 0)
        if found is not None:
            self._close(found, "cut_short", lost)
        self.open[name] = {
            "request": name,
            "time_ns": time.monotonic_ns(),
            "step": self.schedules + 1,
            "number": 1 + sum(one["request"] == name for one in self.preemptions),
            "reason": "prefix_cache_reset" if self.resetting else "no_blocks",
            "for_request": "" if self.resetting else self.failed,
            "asked": None if self.resetting else self.asked,
            "lost": lost,
            "free": sum(block.ref_cnt == 0 and not block.is_null for block in pool.blocks),
            "kept": None,
            "recomputed": None,
            "outcome": "preempted",
        }
        self.preemptions.append(self.open[name])

    def after__preempt_request(self, result: None, request: Any, *_: Any, **__: Any) -> None:
        self.open[request.request_id]["between_ns"] = self.between("_preempt_request")

    def _close(self, found: dict[str, Any], outcome: str, computed: int) -> None:
        if found["kept"] is None:
            found["outcome"] = "ended while preempted"
            return
        found["outcome"] = outcome
        found["recomputed"] = max(0, min(computed, found["lost"]) - found["kept"])

    def after_schedule(self, output: Any, *_: Any, **__: Any) -> None:
        self.schedules += 1
        now = self.between("schedule")
        starts = {new.req_id: new.num_computed_tokens for new in output.scheduled_new_reqs}
        cached = output.scheduled_cached_reqs
        starts.update(zip(cached.req_ids, cached.num_computed_tokens, strict=True))
        in_context = {new.req_id for new in output.scheduled_new_reqs}
        in_context |= {name for name, count in zip(cached.req_ids, cached.num_output_tokens, strict=True) if count == 0}
        for name, tokens in output.num_scheduled_tokens.items():
            self.computed[name] = starts[name] + tokens
            known = self.began[name]
            if "scheduled_ns" not in known:
                known.update(scheduled_ns=now, cached=starts[name])
            self.chunks[name] = self.chunks.get(name, 0) + (name in in_context)
            found = self.open.get(name)
            if found is not None and found["kept"] is None:
                found["kept"] = starts[name]
                found["resumed_ns"] = now
                found["resumed_step"] = self.schedules
            if found is not None and self.computed[name] >= found["lost"] and "done" not in found:
                found["done"] = self.schedules
        self.outputs.append(output)

    def after_update_from_output(self, result: Any, *_: Any, **__: Any) -> None:
        self.updates += 1
        now = self.between("update_from_output")
        for group in result.values():
            for output in group.outputs:
                if output.new_token_ids:
                    self.began[output.request_id].setdefault("first_token_ns", now)
        for name, found in list(self.open.items()):
            if found.get("done", self.updates + 1) <= self.updates:
                self._close(self.open.pop(name), "recovered", found["lost"])
                found["recovered_ns"] = now

    def before__free_request(self, request: Any, *_: Any, **__: Any) -> None:
        name = request.request_id
        assert name not in self.freed, "freed twice"
        self.freed.add(name)
        self.closing = found = self.open.pop(name, None)
        if found is not None:
            over = found.get("done", self.updates + 2) <= self.updates + 1 and request.status.name != "FINISHED_ABORTED"
            self._close(found, "recovered" if over else "cut_short", self.computed.get(name, 0))
        self.finished.append(
            {
                "request": name,
                "status": request.status.name,
                "output": len(request.output_token_ids),
                "prompt": len(request.prompt_token_ids),
                "preemptions": sum(one["request"] == name for one in self.preemptions),
                "chunks": self.chunks.get(name, 0),
                "priority": request.priority,
            }
        )

    def after__free_request(self, result: Any, request: Any, *_: Any, **__: Any) -> None:
        self.finished[-1]["between_ns"] = self.between("_free_request")
        if self.closing is not None:
            self.closing["recovered_ns"] = self.between("_free_request")

    def write(self, path: Path) -> None:
        """All of it."""
        seen = {"began": self.began, "finished": self.finished, "preemptions": self.preemptions}
        path.write_text(json.dumps({**seen, "left": left(self.scheduler)}))


def left(scheduler: Any) -> dict[str, int]:
    """How many requests the tracker still knows; it is there only where ProfileMate is on."""
    tracker = sys.modules["profilemate.trackers.requests.state"]
    state = tracker.state_of(scheduler)
    return {name: len(getattr(state, name)) for name in ("waiting", "prefilling", "preempted", "recovering", "awaited")}


def by_priority(scheduler: Any) -> None:
    """As --scheduling-policy priority."""
    from vllm.v1.core.sched.request_queue import SchedulingPolicy, create_request_queue

    scheduler.policy = SchedulingPolicy.PRIORITY
    scheduler.waiting = create_request_queue(scheduler.policy)
    scheduler.kv_holding_waiting = create_request_queue(scheduler.policy)


def meddle(driver: Any, more: set[str]) -> None:
    """Between two steps: reset or abort, if that is wanted."""
    from vllm.v1.request import RequestStatus

    scheduler = driver.scheduler
    if "reset" in more and driver.clock % RESET_EVERY == RESET_EVERY - 1:
        scheduler.reset_prefix_cache(reset_running_requests=True)
    if "abort" in more:
        for number, request in enumerate(driver.added[::ABORT_EVERY]):
            if driver.clock - driver.came[request.request_id] == ABORT_AFTER_STEPS * (number % 3):
                scheduler.finish_requests(request.request_id, RequestStatus.FINISHED_ABORTED)
        preempted = [one for one in driver.added if one.status == RequestStatus.PREEMPTED]
        if preempted and driver.tally["aborted_preempted"] < MOST_ABORTED_PREEMPTED:
            driver.tally["aborted_preempted"] += 1
            scheduler.finish_requests([preempted[0].request_id], RequestStatus.FINISHED_ABORTED)


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--more", nargs="*", default=[])
    arguments, rest = parser.parse_known_args()
    more = set(arguments.more)
    import drive

    options = drive.parse(rest)
    drive.traces.SHAPES[options.shape] = SMALL
    trace = drive.make_trace(options)
    scheduler = drive.make_scheduler(options, max(len(entry.prompt) + entry.output_length for entry in trace))
    if "priority" in more:
        by_priority(scheduler)
    if "v2" in more:
        scheduler.use_v2_model_runner = True
    requests = drive.Requests(trace, options.block_size)
    make = requests._make

    def with_priority(entry: Any) -> Any:
        request = make(entry)
        request.priority = -(len(entry.prompt) % 3)
        return request

    requests._make = with_priority
    oracle = Oracle(scheduler)
    driver = drive.Driver(scheduler, requests, options)
    driver.came = {}
    maybe_reset = driver._maybe_reset

    def after_step() -> None:
        for request in driver.added:
            driver.came.setdefault(request.request_id, driver.clock)
        maybe_reset()
        meddle(driver, more)

    driver._maybe_reset = after_step
    driver.run()
    oracle.write(arguments.out)


if __name__ == "__main__":
    main()
