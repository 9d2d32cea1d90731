"""What max_model_len costs a vLLM engine, and what it does not: `python benchmarks/model_length`.

Builds the demo's tiny model on the CPU once for every length, answers the same requests, and prints a table.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
LENGTHS = (512, 1024, 2048, 4096)
PROMPT_TOKENS, OUTPUT_TOKENS, REQUESTS = 100, 28, 8
ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_HOST_IP": "127.0.0.1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
}
"""One engine in one process, with 1 GiB for the KV cache whatever the length is."""

COLUMNS = {
    "max_model_len": "max_model_len",
    "num_blocks": "KV blocks",
    "peak_blocks": "peak blocks in use",
    "concurrency": "requests of full length that fit",
    "block_table_bytes": "block table bytes (per KV group)",
    "token_buffer_bytes": "token buffer bytes (host)",
}


def measure(model: str, length: int) -> dict[str, Any]:
    """One engine, in this process."""
    from vllm import LLM, SamplingParams

    llm = LLM(model, load_format="dummy", max_model_len=length, enforce_eager=True, gpu_memory_utilization=0.2)
    core: Any = llm.llm_engine.engine_core
    scheduler = core.engine_core.scheduler
    pool = scheduler.kv_cache_manager.block_pool
    peak = 0
    allocate = pool.get_new_blocks

    def allocate_and_note(count: int) -> Any:
        nonlocal peak
        blocks = allocate(count)
        peak = max(peak, pool.num_gpu_blocks - 1 - pool.get_num_free_blocks())
        return blocks

    pool.get_new_blocks = allocate_and_note
    prompts: Any = [{"prompt_token_ids": [10 + n] * PROMPT_TOKENS} for n in range(REQUESTS)]
    llm.generate(prompts, SamplingParams(max_tokens=OUTPUT_TOKENS, ignore_eos=True, temperature=0), use_tqdm=False)
    batch = core.engine_core.model_executor.driver_worker.worker.model_runner.input_batch
    table = batch.block_table.block_tables[0].block_table
    block_tokens = llm.llm_engine.vllm_config.cache_config.block_size
    return {
        "max_model_len": length,
        "num_blocks": pool.num_gpu_blocks - 1,
        "peak_blocks": peak,
        "concurrency": (pool.num_gpu_blocks - 1) // -(-length // block_tokens),
        "block_table_bytes": table.gpu.numel() * table.gpu.element_size(),
        "token_buffer_bytes": batch.token_ids_cpu.nbytes,
        "block_tokens": block_tokens,
        "max_num_seqs": llm.llm_engine.vllm_config.scheduler_config.max_num_seqs,
    }


def measure_apart(model: Path, length: int) -> dict[str, Any]:
    """The same in a process of its own. Raises RuntimeError where the engine does not start."""
    command = [sys.executable, __file__, "--one", str(length), "--model", str(model)]
    done = subprocess.run(command, env={**os.environ, **ENVIRONMENT}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the engine for {length} tokens ended with {done.returncode}:\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown."""
    lines = ["| " + " | ".join(COLUMNS.values()) + " |", "| " + " | ".join(["---"] * len(COLUMNS)) + " |"]
    lines += ["| " + " | ".join(f"{row[name]:,}" for name in COLUMNS) + " |" for row in rows]
    first = rows[0]
    lines += [
        "",
        f"{REQUESTS} requests of {PROMPT_TOKENS} + {OUTPUT_TOKENS} tokens, blocks of {first['block_tokens']} tokens, "
        f"max_num_seqs {first['max_num_seqs']}, 1 GiB of KV cache.",
    ]
    return "\n".join(lines)


def main() -> int:
    """Measure every length and print the table."""
    parser = argparse.ArgumentParser(prog="benchmarks/model_length", description=__doc__)
    parser.add_argument("--lengths", default=",".join(map(str, LENGTHS)), help="tokens, separated by commas")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--model", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.model, options.one)))
        return 0
    sys.path.insert(0, str(ROOT / "demo"))
    import tiny_model

    with tempfile.TemporaryDirectory() as folder:
        model = tiny_model.write_tiny_llama(Path(folder) / "tiny-llama")
        rows = []
        for length in map(int, options.lengths.split(",")):
            print(f"engine with max_model_len {length}", file=sys.stderr, flush=True)
            rows.append(measure_apart(model, length))
    print(table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
