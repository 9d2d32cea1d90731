"""Run an engine in this process, request by request under ids of our own, and write down what came of each.

Each moment is told as the beginning and the end of the engine's call that it must lie in.

run_requests.py OUT.json --model FOLDER
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

PLANTED = "planted-request-4711"


def main() -> None:
    """Two requests that end, one with two copies, one aborted in decode and one before it ran."""
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", required=True)
    arguments = parser.parse_args()
    from vllm import LLM, SamplingParams
    from vllm.sampling_params import RequestOutputKind

    llm = LLM(
        arguments.model, load_format="dummy", max_model_len=512, gpu_memory_utilization=0.3, enforce_eager=True,
        max_num_seqs=8, max_num_batched_tokens=64,
    )  # fmt: skip
    engine = llm.llm_engine
    seen: dict[str, dict[str, Any]] = {}

    def add(name: str, prompt_tokens: int, max_tokens: int, **more: Any) -> None:
        params = SamplingParams(
            max_tokens=max_tokens,
            ignore_eos=True,
            temperature=1.0 if more else 0.0,
            output_kind=RequestOutputKind.CUMULATIVE,
            **more,
        )
        prompt = {"prompt_token_ids": [20 + (n * 37 + prompt_tokens) % 3000 for n in range(prompt_tokens)]}
        began_ns = time.monotonic_ns()
        engine.add_request(name, prompt, params)
        seen[name] = {"prompt_tokens": prompt_tokens, "added_ns": [began_ns, time.monotonic_ns()], "copies": {}}

    def step() -> None:
        began_ns = time.monotonic_ns()
        outputs = engine.step()
        span_ns = [began_ns, time.monotonic_ns()]
        for output in outputs:
            for copy in output.outputs:
                known = seen[output.request_id]["copies"].setdefault(str(copy.index), {"first_ns": span_ns})
                known.update(tokens=len(copy.token_ids), reason=copy.finish_reason, last_ns=span_ns)

    add(f"{PLANTED}-early", 30, 8)
    engine.abort_request([f"{PLANTED}-early"])
    add(f"{PLANTED}-a", 150, 20)
    add(f"{PLANTED}-two", 20, 12, n=2)
    add(f"{PLANTED}-late", 40, 400)
    for _ in range(10):
        step()
    engine.abort_request([f"{PLANTED}-late"])
    add(f"{PLANTED}-one", 25, 1)
    while engine.has_unfinished_requests():
        step()
    arguments.out.write_text(json.dumps(seen))


if __name__ == "__main__":
    main()
