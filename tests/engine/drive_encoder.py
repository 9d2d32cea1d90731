"""Run real models with an audio encoder, one after the other, for a few rounds, and write down what vLLM itself counted.

    drive_encoder.py BASE OUT.json whisper|qwen2_audio...

Oracles: vLLM's own `scheduled_encoder_input_stats` of every step, seen on the scheduler *instance*; what the model's
`embed_multimodal` returned, seen on the model instance; when each `execute_model` call of the runner instance began and
ended, and in it each call of the model's `embed_multimodal` and `forward`.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
import in_process
import small_models

RATE = 16_000
Oracle = dict[str, Any]


def audio(seed: int, seconds: float) -> tuple[Any, int]:
    """Noise, the same for the same seed."""
    import numpy as np

    return np.random.RandomState(seed).randn(int(RATE * seconds)).astype("float32") * 0.1, RATE


def prompt(kind: str, *audios: tuple[Any, int]) -> Any:
    """A request with audio; Whisper takes one."""
    if kind == "whisper":
        encoder = {"prompt": "", "multi_modal_data": {"audio": audios[0]}}
        return {"encoder_prompt": encoder, "decoder_prompt": small_models.TALK}
    return {"prompt": "da " + small_models.AUDIO * len(audios) + " la", "multi_modal_data": {"audio": list(audios)}}


def rounds(kind: str) -> list[list[Any]]:
    """One audio; two at once; the first one again, beside a new one; and where a request may have two, one that has."""
    first, second, third, fourth = audio(1, 2.0), audio(2, 3.5), audio(3, 1.0), audio(4, 5.0)
    asked = [
        [prompt(kind, first)],
        [prompt(kind, second), prompt(kind, third)],
        [prompt(kind, first), prompt(kind, fourth)],
    ]
    return asked if kind == "whisper" else [*asked, [prompt(kind, audio(5, 1.5), audio(6, 2.5))]]


def clocked(call: Callable[..., Any], spans: list[list[int]]) -> Callable[..., Any]:
    """The call, with its begin and end in nanoseconds appended to `spans`."""

    def run(*arguments: Any, **options: Any) -> Any:
        began = time.monotonic_ns()
        result = call(*arguments, **options)
        spans.append([began, time.monotonic_ns()])
        return result

    return run


def watch(llm: Any, oracle: Oracle) -> None:
    """Put the oracles on the instances, past any hook on classes."""
    scheduler, runner = in_process.scheduler_of(llm), in_process.runner_of(llm)
    update, embed = scheduler.update_from_output, runner.model.embed_multimodal

    def note_step(scheduled: Any, output: Any) -> Any:
        stats = scheduled.scheduled_encoder_input_stats
        if stats:
            requests = len(scheduled.scheduled_encoder_inputs)
            oracle["encoded"].append([stats.num_inputs, stats.output_tokens, requests])
        oracle["tokens"].append(scheduled.total_num_scheduled_tokens)
        return update(scheduled, output)

    def note_outputs(**inputs: Any) -> Any:
        outputs = embed(**inputs)
        oracle["embedded"].append([len(output) for output in outputs])
        return outputs

    scheduler.update_from_output = note_step
    runner.model.embed_multimodal = clocked(note_outputs, oracle["encoder_calls"])
    runner.model.forward = clocked(runner.model.forward, oracle["decoder_calls"])
    runner.execute_model = clocked(runner.execute_model, oracle["executed"])


def run(kind: str, folder: Path, oracle: Oracle) -> None:
    """One model."""
    from vllm import LLM, SamplingParams

    llm = LLM(
        str(folder), load_format="dummy", max_model_len=448, enforce_eager=True, gpu_memory_utilization=0.2,
        disable_log_stats=False, max_num_seqs=4, max_num_batched_tokens=4096, limit_mm_per_prompt={"audio": 2},
        enable_logging_iteration_details=True,
    )  # fmt: skip
    watch(llm, oracle)
    params = SamplingParams(max_tokens=6, ignore_eos=True, temperature=0)
    for asked in rounds(kind):
        llm.generate(asked, params, use_tqdm=False)
    in_process.end(llm)


def main() -> None:
    """Build the models, run the rounds, write the oracles of all together."""
    base, out = Path(sys.argv[1]), Path(sys.argv[2])
    parts = ("encoded", "tokens", "executed", "embedded", "encoder_calls", "decoder_calls")
    oracle: Oracle = {part: [] for part in parts}
    for kind in sys.argv[3:]:
        run(kind, small_models.KINDS[kind](base, out.parent / kind), oracle)
    out.write_text(json.dumps(oracle))


if __name__ == "__main__":
    main()
