"""A tiny Qwen3-MoE with random weights: 16 experts, 4 of them for a token, in three of its four layers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

EXPERTS = 16
TOP_K = 4
MOE_LAYERS = (0, 2, 3)
DENSE_LAYERS = [1]
CONFIG = {
    "architectures": ["Qwen3MoeForCausalLM"],
    "model_type": "qwen3_moe",
    "dtype": "float32",
    "vocab_size": 4096,
    "hidden_size": 64,
    "intermediate_size": 128,
    "moe_intermediate_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "num_experts": EXPERTS,
    "num_experts_per_tok": TOP_K,
    "mlp_only_layers": DENSE_LAYERS,
    "decoder_sparse_step": 1,
    "norm_topk_prob": True,
    "max_position_embeddings": 4096,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def write_tiny_moe(base: Path, folder: Path) -> Path:
    """Write the model for `load_format="dummy"`; `base` is the demo's Llama, whose tokenizer it takes. Returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(base / name, folder)
    (folder / "config.json").write_text(json.dumps(CONFIG, indent=1))
    return folder
