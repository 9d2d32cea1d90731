"""Run small models of several kinds in one process, one after the other, and count calls past any hook on classes.

    drive_models.py BASE OUT.json KIND...

Per kind: engine steps that had tokens to run and those that had none, tokens, requests that finished, and calls of the
runner's `_model_forward`, all counted on the instances.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
import in_process
import small_models

OPTIONS: dict[str, dict[str, Any]] = {
    "bert": {"max_model_len": 512, "max_num_batched_tokens": 512},
    "gemma3": {},
    "qwen3_next": {},
    "lora": {"enable_lora": True, "max_lora_rank": 8},
}
PROMPTS = [{"prompt_token_ids": list(range(10 * i + 5, 10 * i + 25 + 30 * i))} for i in range(3)]


def watch(llm: Any, counted: dict[str, int]) -> None:
    """Count on the scheduler and the runner of this engine."""
    scheduler, runner = in_process.scheduler_of(llm), in_process.runner_of(llm)
    update, forward = scheduler.update_from_output, runner._model_forward

    def note_step(scheduled: Any, output: Any) -> Any:
        counted["steps"] += 1
        counted["busy_steps"] += scheduled.total_num_scheduled_tokens > 0
        counted["tokens"] += scheduled.total_num_scheduled_tokens
        return update(scheduled, output)

    def note_forward(*arguments: Any, **options: Any) -> Any:
        counted["forwards"] += 1
        return forward(*arguments, **options)

    scheduler.update_from_output = note_step
    runner._model_forward = note_forward


def ask(kind: str, llm: Any, adapter: Path | None) -> int:
    """Some answers, or embeddings; how many."""
    if kind == "bert":
        return len(llm.embed(PROMPTS, use_tqdm=False))
    from vllm import SamplingParams
    from vllm.lora.request import LoRARequest

    params = SamplingParams(max_tokens=6, ignore_eos=True, temperature=0)
    lora = LoRARequest("made-up", 1, str(adapter)) if adapter else None
    return len(llm.generate(PROMPTS, params, use_tqdm=False, lora_request=lora))


def run(kind: str, base: Path, folder: Path) -> dict[str, Any]:
    """One model from its making to its end."""
    began = time.monotonic()
    made = small_models.KINDS[kind](base, folder)
    model, adapter = (base, made) if kind == "lora" else (made, None)
    from vllm import LLM

    options = {"max_model_len": 1024, "max_num_batched_tokens": 128, **OPTIONS[kind]}
    llm = LLM(
        str(model), load_format="dummy", enforce_eager=True, gpu_memory_utilization=0.2, max_num_seqs=4,
        **options,
    )  # fmt: skip
    ready = time.monotonic()
    counted = {"steps": 0, "busy_steps": 0, "tokens": 0, "forwards": 0}
    watch(llm, counted)
    answers = ask(kind, llm, adapter)
    in_process.end(llm)
    times = {"ready_seconds": ready - began, "run_seconds": time.monotonic() - ready}
    return {**counted, "answers": answers, **times}


def main() -> None:
    """All kinds, in the order given."""
    base, out = Path(sys.argv[1]), Path(sys.argv[2])
    results = {}
    for kind in sys.argv[3:]:
        results[kind] = run(kind, base, out.parent / kind)
        out.write_text(json.dumps(results))


if __name__ == "__main__":
    main()
