"""Drive vLLM's scheduler and write down the truth of every engine step, and of hand-made steps that one limit binds.

    drive_steps.py IN.json OUT.json

IN.json names runs and their arguments: those of the driver, and [--drafts N] [--abort-every N] [--longest N]. Each run and
each scenario has a scheduler of its own, in one process: engine 0, 1 and so on.

Shares no code with ProfileMate: context and generation are vLLM's compute_iteration_details, recomputed tokens are sets of
positions, failed allocations are seen on the instance, drafts are what this driver made up.
"""

from __future__ import annotations

import argparse
import gc
import json
import queue
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from time import monotonic_ns
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "driver"))
import trace as traces

import drive

Truth = dict[str, Any]


class StepDriver(drive.Driver):
    """The driver's loop, with the truth of each step in the order in which outputs are processed."""

    def __init__(self, scheduler: Any, requests: Any, options: argparse.Namespace) -> None:
        super().__init__(scheduler, requests, options)
        self.truths: list[Truth] = []
        self.coming: list[Truth] = []
        self.reached: dict[str, int] = {}
        self.marks: dict[str, int] = {}
        self.failed = self.aborted = 0
        self.batch: Any = None
        self._watch_allocations()

    def _watch_allocations(self) -> None:
        manager = self.scheduler.kv_cache_manager

        def allocate_slots(*args: Any, **kwargs: Any) -> Any:
            blocks = type(manager).allocate_slots(manager, *args, **kwargs)
            self.failed += blocks is None
            return blocks

        manager.allocate_slots = allocate_slots

    def run_step(self) -> Any:
        """One `schedule` call and its truth."""
        self.failed = 0
        began = monotonic_ns()
        scheduled = self.scheduler.schedule()
        ended = monotonic_ns()
        self.coming.append({**self._counts(scheduled), "schedule": (began, ended), "failed": self.failed})
        self._remember()
        self.batch = scheduled
        return scheduled

    def _counts(self, scheduled: Any) -> Truth:
        from vllm.v1.utils import compute_iteration_details

        details = compute_iteration_details(scheduled)
        scheduler = self.scheduler
        return {
            "context_requests": details.num_ctx_requests,
            "context_tokens": details.num_ctx_tokens,
            "step_requests": details.num_ctx_requests + details.num_generation_requests,
            "step_tokens": details.num_ctx_tokens + details.num_generation_tokens,
            "recomputed_tokens": self._recomputed(scheduled),
            "step_preempted": len(scheduled.preempted_req_ids or ()),
            "running": len(scheduler.running),
            "waiting": len(list(scheduler.waiting)) + len(list(scheduler.kv_holding_waiting)),
            "skipped": len(scheduler.deferred_waiting),
            "free_blocks": sum(
                block.ref_cnt == 0 and not block.is_null for block in scheduler.kv_cache_manager.block_pool.blocks
            ),
        }

    def _recomputed(self, scheduled: Any) -> int:
        """Positions of this batch that lie among those that the request had computed when it was preempted."""
        for request_id in scheduled.preempted_req_ids or ():
            self.marks[request_id] = max(self.marks.get(request_id, 0), self.reached[request_id])
        cached = scheduled.scheduled_cached_reqs
        starts = {new.req_id: new.num_computed_tokens for new in scheduled.scheduled_new_reqs}
        starts.update(zip(cached.req_ids, cached.num_computed_tokens, strict=True))
        again = 0
        for request_id, count in scheduled.num_scheduled_tokens.items():
            mark, start = self.marks.get(request_id, 0), starts[request_id]
            again += len(set(range(start, start + count)) & set(range(mark)))
            if start + count >= mark:
                self.marks.pop(request_id, None)
        return again

    def _remember(self) -> None:
        self.reached.update({name: request.num_computed_tokens for name, request in self.scheduler.requests.items()})

    def _schedule(self) -> bool:
        if not self.scheduler.has_requests():
            return False
        scheduled = self.run_step()
        self.tally["schedules"] += 1
        self._count_tokens(scheduled)
        self.in_flight.append((scheduled, self._model_output(scheduled)))
        return bool(scheduled.num_scheduled_tokens)

    def _sample(self, request_id: str) -> list[int]:
        """One token, and as many accepted drafts as chance wants."""
        tokens: list[int] = super()._sample(request_id)
        drafts = len(self.batch.scheduled_spec_decode_tokens.get(request_id, ())) if tokens else 0
        return tokens * (1 + zlib.crc32(f"{request_id}{self.clock}".encode()) % (drafts + 1))

    def _update(self) -> None:
        if not self.in_flight:
            return
        scheduled, output = self.in_flight[0]
        drafted = accepted = 0
        for request_id, drafts in scheduled.scheduled_spec_decode_tokens.items():
            request = self.scheduler.requests.get(request_id)
            sampled = output.sampled_token_ids[output.req_id_to_index[request_id]]
            if request is not None and not request.is_finished() and sampled:
                drafted += len(drafts)
                accepted += len(sampled) - 1
        finished = self.tally["finished"]
        began = monotonic_ns()
        super()._update()
        ended = monotonic_ns()
        self._remember()
        self.truths.append(
            {
                **self.coming.pop(0),
                "update": (began, ended),
                "step_finished": self.tally["finished"] - finished + self.aborted,
                "drafted_tokens": drafted,
                "accepted_tokens": accepted,
                "in_flight": len(self.in_flight),
            }
        )
        self.aborted = 0
        if self.options.drafts and not self.options.use_async:
            self._draft(scheduled)
        if self.options.abort_every and len(self.truths) % self.options.abort_every == 0:
            self._abort()

    def _draft(self, scheduled: Any) -> None:
        from vllm.v1.outputs import DraftTokenIds

        ids = [name for name in scheduled.num_scheduled_tokens if name in self.scheduler.requests]
        self.scheduler.update_draft_token_ids(DraftTokenIds(ids, [[5] * self.options.drafts for _ in ids]))

    def _abort(self) -> None:
        """Take out a request: one that waits after a preemption if there is any, else the newest that runs."""
        from vllm.v1.request import RequestStatus

        preempted = [name for name in self.marks if name in self.scheduler.requests]
        ids = preempted[:1] or [request.request_id for request in self.scheduler.running[-1:]]
        self.aborted += len(self.scheduler.finish_requests(ids, RequestStatus.FINISHED_ABORTED))


@contextmanager
def engine_arguments(**more: Any) -> Iterator[None]:
    """`drive` makes its configuration with these arguments too."""
    from vllm.engine import arg_utils

    original = arg_utils.EngineArgs
    arg_utils.EngineArgs = lambda **given: original(**{**given, **more})
    try:
        yield
    finally:
        arg_utils.EngineArgs = original


def parse(arguments: list[str]) -> argparse.Namespace:
    """The driver's options and ours."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--drafts", type=int, default=0)
    parser.add_argument("--abort-every", type=int, default=0)
    parser.add_argument(
        "--longest", type=int, default=0, help="tokens to which prompts are cut, as outputs are to half"
    )
    ours, rest = parser.parse_known_args(arguments)
    return argparse.Namespace(**vars(drive.parse(rest)), **vars(ours))


def make_driver(options: argparse.Namespace, trace: list[traces.TraceRequest]) -> StepDriver:
    """A scheduler over a pool of its own."""
    longest = max(len(entry.prompt) + entry.output_length for entry in trace)
    ngram = {"method": "ngram", "num_speculative_tokens": options.drafts, "prompt_lookup_max": 3}
    with engine_arguments(**({"speculative_config": ngram} if options.drafts else {})):
        scheduler = drive.make_scheduler(options, longest + options.drafts)
    return StepDriver(scheduler, drive.Requests(trace, options.block_size), options)


def run(options: argparse.Namespace) -> Truth:
    """A whole trace."""
    trace, longest = drive.make_trace(options), options.longest
    if longest:
        trace = [
            replace(entry, prompt=entry.prompt[:longest], output_length=min(entry.output_length, longest // 2))
            for entry in trace
        ]
    driver = make_driver(options, trace)
    gc.collect()
    driver.run()
    return {"steps": driver.truths, "summary": driver.summary(), "max_num_seqs": options.max_num_seqs}


# -- steps that one limit binds -----------------------------------------------------------------------------------------

Play = Callable[[StepDriver], None]


class Scenario:
    """Requests of (prompt tokens, output tokens, step of arrival) and what limits the steps, the last one repeated."""

    def __init__(
        self, limits: list[str], *sizes: tuple[int, int, int], play: Play | None = None, **options: Any
    ) -> None:
        self.limits = limits
        self.trace = [
            traces.TraceRequest(f"s{number}", arrival, traces.expand([900 + number], prompt), output)
            for number, (prompt, output, arrival) in enumerate(sizes)
        ]
        self.play = play
        self.options = options


def throttled(driver: StepDriver) -> None:
    """Data-parallel balancing asks every second step to hold new prefills back; a decode must be running for that."""
    from vllm.v1.engine.core import DPEngineCoreProc

    scheduler = driver.scheduler
    schedule = type(scheduler).schedule

    def schedule_as_the_engine_does() -> Any:
        core: Any = SimpleNamespace(prefill_schedule_interval=2, step_counter=driver.clock)
        return schedule(scheduler, DPEngineCoreProc._should_throttle_prefills(core))

    scheduler.schedule = schedule_as_the_engine_does


def paused(driver: StepDriver) -> None:
    """The engine is told to admit nobody for the steps 1 to 3."""
    from vllm.v1.core.sched.interface import PauseState

    scheduler = driver.scheduler
    schedule = type(scheduler).schedule

    def schedule_and_resume() -> Any:
        scheduler.set_pause_state(PauseState.PAUSED_NEW if 1 <= driver.clock <= 3 else PauseState.UNPAUSED)
        return schedule(scheduler)

    scheduler.schedule = schedule_and_resume


def short_chunks(driver: StepDriver) -> None:
    """Of long prompts no more than 64 tokens a step."""
    driver.scheduler.scheduler_config.long_prefill_token_threshold = 64


def whole_prompts(driver: StepDriver) -> None:
    """Without chunked prefill a prompt waits until a step has room for all of it."""
    driver.scheduler.scheduler_config.enable_chunked_prefill = False


def reset_while_running(driver: StepDriver) -> None:
    """Before step 4 all that runs is preempted, as when weights change: no lack of KV space."""
    scheduler = driver.scheduler
    schedule = type(scheduler).schedule

    def reset_and_schedule() -> Any:
        if driver.clock == 4:
            assert scheduler.reset_prefix_cache(reset_running_requests=True)
        return schedule(scheduler)

    scheduler.schedule = reset_and_schedule


BUDGET = 512
SCENARIOS = {
    "a prompt longer than the budget": Scenario(["token_budget", "token_budget", "no_work"], (1200, 2, 0)),
    "a prompt that just fills the budget": Scenario(["no_work"], (BUDGET, 3, 0)),
    "two prompts for one budget": Scenario(["token_budget", "no_work"], (400, 3, 0), (400, 3, 0)),
    "more requests than may run": Scenario(
        ["sequence_cap"] * 3 + ["no_work"], (20, 3, 0), (20, 3, 0), (20, 3, 0), max_num_seqs=2
    ),
    "no block for the second prompt": Scenario(
        ["kv_space"] * 3 + ["no_work"], (400, 3, 0), (400, 3, 0), blocks=40, max_num_batched_tokens=2048
    ),
    "a preemption": Scenario(["no_work"] + ["kv_space"] * 19 + ["no_work"], (159, 20, 0), (160, 20, 0), blocks=21),
    "all fits": Scenario(["no_work"], (30, 5, 0), (30, 5, 0)),
    "data-parallel balancing": Scenario(["no_work", "throttled", "no_work"], (20, 6, 0), (20, 6, 1), play=throttled),
    "paused": Scenario(["no_work"] + ["throttled"] * 3 + ["no_work"], (20, 6, 0), (20, 3, 1), play=paused),
    "a long-prefill threshold": Scenario(["other", "no_work"], (100, 3, 0), (100, 3, 0), play=short_chunks),
    "a reset while requests run": Scenario(["no_work"], (100, 9, 0), (60, 9, 0), play=reset_while_running),
    "whole prompts only": Scenario(["token_budget", "no_work"], (400, 3, 0), (400, 3, 0), play=whole_prompts),
}


def play(scenario: Scenario) -> Truth:
    """Drive one to its end."""
    options = parse([])
    options.max_num_batched_tokens = BUDGET
    for name, value in scenario.options.items():
        setattr(options, name, value)
    driver = make_driver(options, scenario.trace)
    if scenario.play is not None:
        scenario.play(driver)
    driver.run()
    return {"steps": driver.truths, "limits": scenario.limits}


DUMMY_SECONDS = 0.002


def dies_and_idles() -> Truth:
    """Two batches in flight when the engine's loop ends by an exception; before that, three dummy batches."""
    from vllm.v1.engine.core import EngineCore, EngineCoreProc

    driver = make_driver(parse(["--async"]), [traces.TraceRequest("d0", 0, traces.expand([7], 50), 9)])
    executor = SimpleNamespace(execute_dummy_batch=lambda: time.sleep(DUMMY_SECONDS))
    core: Any = SimpleNamespace(scheduler=driver.scheduler, model_executor=executor)
    for _ in range(3):
        EngineCore.execute_dummy_batch(core)
    driver._arrivals()
    driver._schedule()
    driver._schedule()
    thread = SimpleNamespace(join=lambda timeout: None, is_alive=lambda: False)
    dead: Any = SimpleNamespace(output_queue=queue.Queue(), output_thread=thread)
    EngineCoreProc._send_engine_dead(dead)
    return {"steps": [], "in_flight": len(driver.in_flight), "dummies": 3}


def main() -> None:
    """Every run that the file IN.json names with its arguments, one scheduler after the other, then the scenarios."""
    arguments = json.loads(Path(sys.argv[1]).read_text())
    found = {name: run(parse(of_run)) for name, of_run in arguments.items()}
    if len(found) > 1:
        found.update({name: play(scenario) for name, scenario in SCENARIOS.items()})
        found["dies"] = dies_and_idles()
    Path(sys.argv[2]).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
