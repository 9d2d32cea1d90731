"""Run a real engine with `--enable-mfu-metrics` and write down what vLLM's own counters got in each engine step.

    drive_mfu.py OUT.json MODEL [--llm JSON]

The oracle is the PerfStats object that rides on each step's SchedulerStats, the terms of its sums, and what the scheduler
scheduled. It is read on the scheduler *instance*.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any


def note_steps(scheduler: Any, steps: list[dict[str, Any]]) -> None:
    """Watch the scheduler of this process."""
    update = scheduler.update_from_output

    def update_and_note(scheduled: Any, output: Any) -> Any:
        requests = requests_of(scheduled)
        result = update(scheduled, output)
        stats = [group.scheduler_stats for group in result.values() if group.scheduler_stats is not None]
        perf = stats[0].perf_stats if stats else None
        steps.append(
            {
                "requests": requests,
                "flops": perf.num_flops_per_gpu if perf else None,
                "read": perf.num_read_bytes_per_gpu if perf else None,
                "write": perf.num_write_bytes_per_gpu if perf else None,
                "parts": parts_of(scheduler.perf_metrics, requests),
            }
        )
        return result

    scheduler.update_from_output = update_and_note


def requests_of(scheduled: Any) -> list[tuple[int, int, bool]]:
    """Scheduled tokens and context of each request, and whether vLLM's counters take it for a prefill."""
    counts, cached = scheduled.num_scheduled_tokens, scheduled.scheduled_cached_reqs
    new = [(counts[one.req_id], one.num_computed_tokens, True) for one in scheduled.scheduled_new_reqs]
    old = [
        (counts[one], before, counts[one] > 1)
        for one, before in zip(cached.req_ids, cached.num_computed_tokens, strict=True)
    ]
    return [(count, before + count, is_prefill) for count, before, is_prefill in new + old]


def parts_of(metrics: Any, requests: list[tuple[int, int, bool]]) -> dict[str, dict[str, float]]:
    """The terms of vLLM's sums. VLLM_DEBUG_MFU_METRICS would tell them, but fails in 0.32 where statistics are logged."""
    from vllm.v1.metrics.perf import ExecutionContext

    context = ExecutionContext()
    for request in requests:
        context.add(*request)
    return {
        "flops": metrics.get_num_flops_breakdown(context),
        "read": metrics.get_read_bytes_breakdown(context),
        "write": metrics.get_write_bytes_breakdown(context),
    }


def generate(llm: Any) -> None:
    """Short and long prompts (longer than a step may have tokens), then a burst of decode steps of several requests."""
    from vllm import SamplingParams

    lengths = [5, 40, 300, 90, 12, 700]
    prompts = [{"prompt_token_ids": [7 + (3 * i + k) % 900 for k in range(n)]} for i, n in enumerate(lengths)]
    params = [SamplingParams(max_tokens=30 + 5 * i, ignore_eos=True, temperature=0) for i in range(len(lengths))]
    llm.generate(prompts, params, use_tqdm=False)
    llm.generate(prompts[:2], params[:2], use_tqdm=False)


def counters(llm: Any) -> dict[str, float]:
    """The Prometheus counters, as /metrics would show them."""
    return {metric.name: metric.value for metric in llm.get_metrics() if metric.name.startswith("vllm:estimated_")}


def main() -> None:
    """Build the engine, run it, write the oracle."""
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("model")
    parser.add_argument("--llm", type=json.loads, default={})
    arguments = parser.parse_args()
    from vllm import LLM

    options: dict[str, Any] = {
        "load_format": "dummy",
        "enforce_eager": True,
        "max_model_len": 2048,
        "gpu_memory_utilization": 0.3,
        "max_num_seqs": 8,
        "max_num_batched_tokens": 256,
        "enable_mfu_metrics": True,
        "disable_log_stats": False,
    }
    llm = LLM(arguments.model, **{**options, **arguments.llm})
    steps: list[dict[str, Any]] = []
    note_steps(llm.llm_engine.engine_core.engine_core.scheduler, steps)
    generate(llm)
    arguments.out.write_text(json.dumps({"steps": steps, "counters": counters(llm)}))


if __name__ == "__main__":
    main()
