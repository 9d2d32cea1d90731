"""Models and a batch whose bytes and operations are known by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from profilemate.session.records import ProcessInfo
from profilemate.trackers.bandwidth.formulas import Batch
from profilemate.trackers.bandwidth.model import Model, model_of

LLAMA_3_8B = {
    "dtype": "torch.bfloat16", "cache_dtype": "auto", "hidden_size": 4096, "intermediate_size": 14336,
    "num_hidden_layers": 32, "num_attention_heads": 32, "total_num_kv_heads": 8, "head_size": 128, "vocab_size": 128256,
    "num_experts": 0,
}  # fmt: skip
MIXTRAL_8X7B = {
    **LLAMA_3_8B, "vocab_size": 32000, "num_experts": 8, "num_experts_per_token": 2,
}  # fmt: skip
DECODE = Batch(2, 2, 3000, 0, 3000, 3000, None, None, 2)
"""Two requests with contexts of 1,000 and 2,000 tokens."""


def model(dimensions: dict[str, Any], **facts: Any) -> Model:
    info = ProcessInfo(Path(), "Worker", ("Worker",), engine_config={"model_dimensions": dimensions, **facts})
    made = model_of(info)
    assert made is not None
    return made
