"""Run a load whose requests are all queued before the first step, on capture sizes written as on vLLM's command line.

    run_advised_sizes.py OUT.json --model FOLDER --mode FULL_AND_PIECEWISE --cudagraph-capture-sizes 1 2 4

Lengths are fixed and no token ends a request, so that the scheduler makes the same batches whatever the graphs are. OUT gets
vLLM's own CUDAGraphStat of each pass, and the sizes that its configuration ended up with.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import run_engine

MAX_NUM_SEQS = 24


def parse() -> argparse.Namespace:
    """Command-line arguments."""
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--mode", required=True)
    parser.add_argument("--requests", type=int, default=60)
    parser.add_argument("--longest", type=int, default=160, help="most output tokens of a request")
    parser.add_argument("--cudagraph-capture-sizes", type=int, nargs="+", required=True)
    return parser.parse_args()


def run_load(llm: Any, requests: int, longest: int) -> None:
    """Decode batches of all sizes, prefills that fit the graphs and some that do not, and a tail that thins out."""
    from vllm import SamplingParams

    prompts = [{"prompt_token_ids": list(range(5, 7 + (11 * i) % 30))} for i in range(requests)]
    params = [
        SamplingParams(max_tokens=10 + (37 * i) % (longest - 10), ignore_eos=True, temperature=0, detokenize=False)
        for i in range(requests)
    ]
    llm.generate(prompts, params, use_tqdm=False)


def main() -> None:
    """Build the engine, run the load, write the oracle."""
    arguments = parse()
    from vllm import LLM

    llm = LLM(
        arguments.model,
        load_format="dummy",
        max_model_len=512,
        gpu_memory_utilization=0.3,
        max_num_seqs=MAX_NUM_SEQS,
        max_num_batched_tokens=64,
        enable_prefix_caching=False,
        cudagraph_metrics=True,
        disable_log_stats=False,
        cudagraph_capture_sizes=arguments.cudagraph_capture_sizes,
        compilation_config={"mode": 3, "backend": "eager", "cudagraph_mode": arguments.mode},
    )
    stats: list[list[Any]] = []
    run_engine.watch_scheduler(llm, stats, [])
    run_load(llm, arguments.requests, arguments.longest)
    config = llm.llm_engine.vllm_config.compilation_config
    arguments.out.write_text(json.dumps({"stats": stats, "sizes": config.cudagraph_capture_sizes}))


if __name__ == "__main__":
    main()
