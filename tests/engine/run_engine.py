"""Run a real engine for a few rounds and write down what vLLM itself counted.

    run_engine.py OUT.json --model FOLDER [--compilation JSON] [--llm JSON] [--rounds N] [--end normal|raise|os_exit]

The oracle is vLLM's own: `compilation_counter` for captures, and the CUDAGraphStat objects that ride on each
ModelRunnerOutput, which `--cudagraph-metrics` would log. It is read on the scheduler *instance*, past any hook on classes.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any


def parse() -> argparse.Namespace:
    """Command-line arguments."""
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--compilation", type=json.loads, default={})
    parser.add_argument("--llm", type=json.loads, default={})
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--requests", type=int, default=5)
    parser.add_argument("--end", choices=("normal", "raise", "os_exit"), default="normal")
    return parser.parse_args()


def watch_scheduler(llm: Any, stats: list[list[Any]], steps: list[int]) -> None:
    """Note each step's CUDAGraphStat where the scheduler lives in this process."""
    core = getattr(llm.llm_engine.engine_core, "engine_core", None)
    if core is None:
        return
    scheduler = core.scheduler
    update = scheduler.update_from_output

    def update_and_note(scheduler_output: Any, model_runner_output: Any) -> Any:
        result = update(scheduler_output, model_runner_output)
        steps.append(scheduler_output.total_num_scheduled_tokens)
        stat = getattr(model_runner_output, "cudagraph_stats", None)
        if stat is not None:
            stats.append([stat.runtime_mode, stat.num_unpadded_tokens, stat.num_padded_tokens])
        return result

    scheduler.update_from_output = update_and_note


def generate(llm: Any, rounds: int, requests: int) -> list[list[int]]:
    """Greedy answers to the same small load every round: decode batches of several sizes and one mixed batch."""
    from vllm import SamplingParams

    prompts = [{"prompt_token_ids": list(range(10 * i + 5, 10 * i + 11 + 7 * i))} for i in range(requests)]
    params = [SamplingParams(max_tokens=8 - 2 * i % 6, ignore_eos=True, temperature=0) for i in range(requests)]
    answers = []
    for number in range(rounds):
        few = requests if number % 2 == 0 else 2  # a prefill that is too big for the graphs, then one that fits
        outputs = llm.generate(prompts[:few], params[:few], use_tqdm=False)
        answers += [list(output.outputs[0].token_ids) for output in outputs]
    return answers


def main() -> None:
    """Build the engine, run it, write the oracle, end as asked."""
    arguments = parse()
    from vllm import LLM
    from vllm.compilation.counter import compilation_counter

    options: dict[str, Any] = {
        "load_format": "dummy",
        "max_model_len": 2048,
        "gpu_memory_utilization": 0.3,
        "max_num_seqs": 8,
        "max_num_batched_tokens": 256,
        "cudagraph_metrics": True,
        "disable_log_stats": False,
        "compilation_config": arguments.compilation,
    }
    llm = LLM(arguments.model, **{**options, **arguments.llm})
    stats: list[list[Any]] = []
    steps: list[int] = []
    watch_scheduler(llm, stats, steps)
    captured = compilation_counter.num_cudagraph_captured
    answers = generate(llm, arguments.rounds, arguments.requests)
    oracle = {"captured": captured, "stats": stats, "steps": steps, "answers": answers}
    arguments.out.write_text(json.dumps(oracle))
    if arguments.end == "raise":
        raise RuntimeError("the script ends by an exception")
    if arguments.end == "os_exit":
        os._exit(7)


if __name__ == "__main__":
    main()
