"""A Llama made on the spot whose forward pass takes milliseconds, so that microseconds of measuring do not show."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gpu_check.places import helper

VOCABULARY = 32_000
WIDE = {"hidden_size": 8192, "intermediate_size": 28_672, "num_attention_heads": 64, "num_key_value_heads": 8}
"""Layers of a 70-billion-parameter Llama: few kernels, each of them long."""
WIDE_LAYER_BYTES = 2 * (2 * 8192 * 8192 + 2 * 8192 * 1024 + 3 * 8192 * 28_672)
MOST_WIDE_LAYERS = 8
MEMORY_SHARE = 0.35
SMALL = {"hidden_size": 2048, "intermediate_size": 8192, "num_attention_heads": 32, "num_key_value_heads": 8}
SMALL_LAYERS = 18


def wide(memory_bytes: int) -> dict[str, Any]:
    """Up to 7 billion parameters, as many layers as a third of the device's memory holds."""
    layers = int(MEMORY_SHARE * memory_bytes / WIDE_LAYER_BYTES)
    return {**WIDE, "num_hidden_layers": max(1, min(MOST_WIDE_LAYERS, layers)), "head_dim": 128}


def small() -> dict[str, Any]:
    """1.2 billion parameters: steps of about a millisecond, where a profiler's cost would show."""
    return {**SMALL, "num_hidden_layers": SMALL_LAYERS, "head_dim": 64}


def write(folder: Path, shape: dict[str, Any]) -> Path:
    """A model folder for `load_format=dummy`; it has no tokenizer, prompts are token ids. Returns the folder."""
    config = {**helper("tiny_model").CONFIG, **shape, "dtype": "bfloat16", "vocab_size": VOCABULARY}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
    return folder
