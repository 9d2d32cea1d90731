"""Compile a real model with vLLM's own backend and inductor, and write down what the caches and counters say.

    run_compiled.py OUT.json --model FOLDER

Run it with the stand-in for CUDA graphs, whose platform lets vLLM compile piece by piece as on a GPU. VLLM_CACHE_ROOT names
the cache, as always.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import run_engine  # the sibling: a script's own folder is on its path

COMPILATION = {
    "mode": 3,
    "backend": "inductor",
    "cudagraph_mode": "FULL_AND_PIECEWISE",
    "cudagraph_capture_sizes": [1, 2, 4],
}


def declare_missing_kernels() -> Any:
    """Name the CUDA kernels that one of vLLM's inductor passes looks up and the CPU build does not have.

    The pass only compares with them; without the names it raises. Keep the result: the names go with it.
    """
    import torch
    from vllm.compilation.passes.utility import fix_functionalization
    from vllm.platforms import current_platform

    current_platform.import_kernels()
    library: Any = torch.library.Library("_C", "FRAGMENT")  # type: ignore[no-untyped-call]
    source = Path(fix_functionalization.__file__).read_text(encoding="utf-8")
    for name in sorted(set(re.findall(r"torch\.ops\._C\.(\w+)", source))):
        if not hasattr(torch.ops._C, name):
            library.define(f"{name}(Tensor x) -> Tensor")
    return library


def main() -> None:
    """Build the engine, let it answer two requests, write the result."""
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", required=True)
    arguments = parser.parse_args()
    library = declare_missing_kernels()
    import vllm.envs
    from torch._dynamo.utils import counters
    from vllm import LLM
    from vllm.compilation.counter import compilation_counter

    llm = LLM(
        arguments.model,
        load_format="dummy",
        hf_overrides={"num_hidden_layers": 1},
        max_model_len=256,
        max_num_seqs=4,
        max_num_batched_tokens=64,
        gpu_memory_utilization=0.3,
        disable_log_stats=False,
        compilation_config=COMPILATION,
    )
    answers = run_engine.generate(llm, 1, 2)
    result = {
        "compilation": dataclasses.asdict(compilation_counter),
        "dynamo": {name: dict(counts) for name, counts in counters.items()},
        "factors": {name: repr(value) for name, value in vllm.envs.compile_factors().items()},
        "answered": [len(answer) for answer in answers],
        "declared": str(library),
    }
    arguments.out.write_text(json.dumps(result))


if __name__ == "__main__":
    main()
