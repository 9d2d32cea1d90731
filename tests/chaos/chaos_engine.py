"""Run a real engine with the stand-in for CUDA graphs once, and every case of chaos on it while it serves.

    chaos_engine.py OUT.json MODEL COMPILATION_JSON

The work of a case is a few requests; its result is what vLLM and the stand-in counted of it.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "engine"), str(ROOT / "tests" / "support" / "sabotage")]


def watch_scheduler(scheduler: Any, stats: list[Any]) -> None:
    """Note each step's tokens and CUDAGraphStat on this one scheduler, calling whatever is on its class by then."""

    def update_and_note(scheduler_output: Any, model_runner_output: Any) -> Any:
        result = type(scheduler).update_from_output(scheduler, scheduler_output, model_runner_output)
        stat = getattr(model_runner_output, "cudagraph_stats", None)
        graph = [stat.runtime_mode, stat.num_unpadded_tokens, stat.num_padded_tokens] if stat else None
        stats.append([scheduler_output.total_num_scheduled_tokens, graph])
        return result

    scheduler.update_from_output = update_and_note


def main() -> None:
    """Build the engine, run every case, write the results."""
    out, model, compilation = Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
    import all_cases
    import run_engine
    from vllm import LLM

    llm = LLM(
        model,
        load_format="dummy",
        max_model_len=2048,
        gpu_memory_utilization=0.3,
        max_num_seqs=8,
        max_num_batched_tokens=256,
        cudagraph_metrics=True,
        disable_log_stats=False,
        compilation_config=compilation,
    )
    stats: list[Any] = []
    watch_scheduler(llm.llm_engine.engine_core.engine_core.scheduler, stats)
    truth = Path(os.environ["STANDIN_GRAPHS_LOG"])

    def work() -> dict[str, Any]:
        assert llm.reset_prefix_cache()
        stats.clear()
        seen = truth.stat().st_size
        answers = run_engine.generate(llm, 2, 5)
        events = [line.split()[1:3] for line in truth.read_bytes()[seen:].decode().splitlines()]
        return {"lengths": [len(answer) for answer in answers], "stats": list(stats), "events": events}

    work()  # the first round is apart: it warms what vLLM keeps
    out.write_text(json.dumps(all_cases.run_all(work)))


if __name__ == "__main__":
    main()
