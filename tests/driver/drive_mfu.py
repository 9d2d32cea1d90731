"""Drive vLLM's scheduler as drive.py does, and let vLLM's own ModelMetrics count each batch for several models.

    drive_mfu.py OUT.json [options of drive.py]

Nothing is loaded: ModelMetrics (vllm/v1/metrics/perf.py, what `--enable-mfu-metrics` runs) takes a configuration alone. Beside
its numbers stand the tracker's cells of the same SchedulerOutput and the dimensions that it records of each configuration.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import drive

LLAMA_3_8B = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336,
    "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256,
    "max_position_embeddings": 8192, "torch_dtype": "bfloat16", "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
QWEN_3_06B = {
    "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": 1024, "intermediate_size": 3072,
    "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936,
    "max_position_embeddings": 40960, "torch_dtype": "bfloat16", "tie_word_embeddings": True,
}  # fmt: skip
QWEN_3_30B = {
    **QWEN_3_06B, "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "hidden_size": 2048,
    "intermediate_size": 6144, "num_hidden_layers": 48, "num_attention_heads": 32, "num_key_value_heads": 4,
    "num_experts": 128, "num_experts_per_tok": 8, "moe_intermediate_size": 768, "decoder_sparse_step": 1,
    "mlp_only_layers": [], "tie_word_embeddings": False,
}  # fmt: skip
DEEPSEEK_V2_LITE = {
    "architectures": ["DeepseekV2ForCausalLM"], "model_type": "deepseek_v2", "hidden_size": 2048, "intermediate_size": 10944,
    "num_hidden_layers": 27, "num_attention_heads": 16, "num_key_value_heads": 16, "vocab_size": 102400,
    "kv_lora_rank": 512, "q_lora_rank": None, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128,
    "n_routed_experts": 64, "num_experts_per_tok": 6, "moe_intermediate_size": 1408, "n_shared_experts": 2,
    "first_k_dense_replace": 1, "moe_layer_freq": 1, "max_position_embeddings": 4096, "torch_dtype": "bfloat16",
}  # fmt: skip
GEMMA_3_1B = {
    "architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text", "hidden_size": 1152, "intermediate_size": 6912,
    "num_hidden_layers": 26, "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 256, "vocab_size": 262144,
    "sliding_window": 512, "layer_types": (["sliding_attention"] * 5 + ["full_attention"]) * 4 + ["sliding_attention"] * 2,
    "max_position_embeddings": 32768, "torch_dtype": "bfloat16",
}  # fmt: skip
MODELS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "llama": (LLAMA_3_8B, {}),
    "llama-tp2": (LLAMA_3_8B, {"parallel_config.tensor_parallel_size": 2}),
    "llama-pp2": (LLAMA_3_8B, {"parallel_config.pipeline_parallel_size": 2}),
    "llama-fp8-kv": (LLAMA_3_8B, {"cache_config.cache_dtype": "fp8"}),
    "qwen3": (QWEN_3_06B, {}),
    "qwen3-moe": (QWEN_3_30B, {}),
    "deepseek": (DEEPSEEK_V2_LITE, {}),
    "gemma3": (GEMMA_3_1B, {}),
}


def config_of(content: dict[str, Any], changes: dict[str, Any]) -> Any:
    """VLLM's configuration of a model that is a config.json and no more."""
    from vllm.engine.arg_utils import EngineArgs

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(content))
        config = EngineArgs(
            model=folder, tokenizer=folder, skip_tokenizer_init=True, load_format="dummy", max_model_len=2048
        ).create_engine_config()
    for path, value in changes.items():
        part, _, name = path.partition(".")
        setattr(getattr(config, part), name, value)
    return config


def note_batches(scheduler: Any, metrics: dict[str, Any], steps: list[Any]) -> None:
    """Count every batch with tokens when it was scheduled."""
    from profilemate.trackers.bandwidth import batch_sums

    schedule = scheduler.schedule

    def schedule_and_note(*arguments: Any) -> Any:
        scheduled = schedule(*arguments)
        if scheduled.total_num_scheduled_tokens:
            stats = {name: one.get_step_perf_stats_per_gpu(scheduled) for name, one in metrics.items()}
            steps.append(
                {
                    "tokens": scheduled.total_num_scheduled_tokens,
                    "requests": len(scheduled.num_scheduled_tokens),
                    "cells": batch_sums.cells(scheduled, GEMMA_3_1B["sliding_window"]),
                    "counted": {
                        name: [one.num_flops_per_gpu, one.num_read_bytes_per_gpu, one.num_write_bytes_per_gpu]
                        for name, one in stats.items()
                    },
                }
            )
        return scheduled

    scheduler.schedule = schedule_and_note


def main() -> None:
    """Run the trace."""
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    out = Path(sys.argv[1])
    options = drive.parse(sys.argv[2:])
    from vllm.v1.metrics.perf import ModelMetrics

    from profilemate.trackers.bandwidth import model_facts

    configs = {name: config_of(*how) for name, how in MODELS.items()}
    metrics = {name: ModelMetrics(config) for name, config in configs.items()}
    steps: list[Any] = []
    make = drive.make_scheduler

    def make_and_note(*arguments: Any) -> Any:
        scheduler = make(*arguments)
        note_batches(scheduler, metrics, steps)
        return scheduler

    drive.make_scheduler = make_and_note
    summary, _ = drive.run(options)
    dimensions = {name: model_facts.dimensions(config) for name, config in configs.items()}
    parts = {name: [one.component_type() for one in metric.metrics] for name, metric in metrics.items()}
    out.write_text(json.dumps({"dimensions": dimensions, "parts": parts, "steps": steps, "summary": summary}))


if __name__ == "__main__":
    main()
