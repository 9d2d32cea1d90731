"""Run a real engine and note every SchedulerOutput and every call of the runner, with nothing of ProfileMate.

    run_forwards.py OUT.json --model FOLDER [--compilation JSON] [--llm JSON]

What is a context request is told by the scheduler's own requests: one whose scheduled tokens begin before the end of its
prompt (nothing is preempted here). Beside it stands what vLLM's `compute_iteration_details` says. Calls of the runner are
timed around the instance's methods, past any hook on classes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import run_engine

PROMPTS = (600, 20, 1, 257, 40, 300, 9, 64, 129, 5, 33, 256)
OUTPUTS = (6, 20, 12, 3, 1, 8, 15, 2, 9, 17, 4, 11)


def begins_in_prompt(request: Any, num_scheduled: int) -> bool:
    """After `schedule`, which has added the scheduled tokens to the computed ones."""
    return bool(request.num_computed_tokens - num_scheduled < request.num_prompt_tokens)


def watch_schedule(scheduler: Any, steps: list[dict[str, Any]]) -> None:
    """Note what each step schedules."""
    from vllm.v1.utils import compute_iteration_details

    schedule = scheduler.schedule

    def schedule_and_note(*arguments: Any, **options: Any) -> Any:
        output = schedule(*arguments, **options)
        tokens = dict(output.num_scheduled_tokens)
        context = {name for name in tokens if begins_in_prompt(scheduler.requests[name], tokens[name])}
        theirs = compute_iteration_details(output)
        steps.append(
            {
                "requests": len(tokens),
                "tokens": sum(tokens.values()),
                "context_requests": len(context),
                "context_tokens": sum(tokens[name] for name in context),
                "vllm": [theirs.num_ctx_requests, theirs.num_ctx_tokens],
            }
        )
        return output

    scheduler.schedule = schedule_and_note


def timed(function: Callable[..., Any], calls: list[list[int]]) -> Callable[..., Any]:
    """The function, noting when each call began and ended."""

    def call(*arguments: Any, **options: Any) -> Any:
        began = time.monotonic_ns()
        try:
            return function(*arguments, **options)
        finally:
            calls.append([began, time.monotonic_ns()])

    return call


def main() -> None:
    """Build the engine, run it, write what was seen."""
    arguments = run_engine.parse()
    from vllm import LLM, SamplingParams

    options: dict[str, Any] = {
        "load_format": "dummy",
        "max_model_len": 2048,
        "gpu_memory_utilization": 0.3,
        "max_num_seqs": 8,
        "max_num_batched_tokens": 256,
        "compilation_config": arguments.compilation,
    }
    llm = LLM(arguments.model, **{**options, **arguments.llm})
    core = llm.llm_engine.engine_core.engine_core
    steps: list[dict[str, Any]] = []
    executed: list[list[int]] = []
    sampled: list[list[int]] = []
    watch_schedule(core.scheduler, steps)

    def watch_runner(worker: Any) -> None:
        runner = worker.model_runner
        runner.execute_model = timed(runner.execute_model, executed)
        runner.sample_tokens = timed(runner.sample_tokens, sampled)

    llm.collective_rpc(watch_runner)
    prompts = [{"prompt_token_ids": [(7 * i + n) % 900 + 5 for n in range(length)]} for i, length in enumerate(PROMPTS)]
    params = [SamplingParams(max_tokens=length, ignore_eos=True, temperature=0) for length in OUTPUTS]
    answers = [list(output.outputs[0].token_ids) for output in llm.generate(prompts, params, use_tqdm=False)]
    oracle = {"steps": steps, "executed": executed, "sampled": sampled, "answers": answers}
    arguments.out.write_text(json.dumps(oracle))


if __name__ == "__main__":
    main()
