"""An offline `LLM` for a few rounds of requests; writes what the script itself sent and got, and vLLM's own metrics.

    run_llm.py OUT.json MODEL [engine arguments as JSON]

The metrics are those of `LLM.get_metrics()`: what a server would show at /metrics.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROUNDS = 2
PROMPTS = [list(range(10 * number + 5, 10 * number + 45 + 30 * number)) for number in range(5)]
OUTPUT_TOKENS = 8


def main() -> None:
    """Build the engine, send every prompt in each round, write down what came of it."""
    from vllm import LLM, SamplingParams

    out, model, *more = sys.argv[1:]
    options: dict[str, Any] = {
        "load_format": "dummy", "max_model_len": 2048, "block_size": 32, "num_gpu_blocks_override": 72, "max_num_seqs": 8,
        "max_num_batched_tokens": 256, "gpu_memory_utilization": 0.2, "enforce_eager": True, "disable_log_stats": False,
    }  # fmt: skip
    llm = LLM(model, **options, **json.loads(more[0] if more else "{}"))
    parameters = SamplingParams(max_tokens=OUTPUT_TOKENS, ignore_eos=True, temperature=0)
    output_tokens = 0
    for _ in range(ROUNDS):
        prompts = [{"prompt_token_ids": prompt} for prompt in PROMPTS]
        for output in llm.generate(prompts, parameters, use_tqdm=False):
            output_tokens += len(output.outputs[0].token_ids)
    sums: dict[str, float] = {}
    for metric in llm.get_metrics():
        value = getattr(metric, "value", None)
        if value is not None:
            sums[metric.name] = sums.get(metric.name, 0) + value
        if hasattr(metric, "count"):
            sums[f"{metric.name}_count"] = sums.get(f"{metric.name}_count", 0) + metric.count
            sums[f"{metric.name}_sum"] = sums.get(f"{metric.name}_sum", 0) + metric.sum
    sent = {"requests": ROUNDS * len(PROMPTS), "prompt_tokens": ROUNDS * sum(map(len, PROMPTS))}
    told = {"sent": {**sent, "output_tokens": output_tokens}, "metrics": sums}
    Path(out).write_text(json.dumps(told | {"client": type(llm.llm_engine.engine_core).__name__}))


if __name__ == "__main__":
    main()
