"""Small models with random weights beside the demo's Llama, written without a network: configuration, tokenizer, processor.

small_models.py BASE FOLDER KIND: BASE is the demo's Llama, whose tokenizer is used again; vLLM is to be told
`load_format="dummy"`. It takes transformers some seconds to be imported, so it is done where vLLM runs anyway.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

TALK = "<|startoftranscript|><|en|><|transcribe|><|notimestamps|>"
AUDIO = "<|audio_bos|><|AUDIO|><|audio_eos|>"


def tokenizer(base: Path, *special: str) -> Any:
    """The demo's tokenizer with more special tokens."""
    from transformers import AutoTokenizer

    made = AutoTokenizer.from_pretrained(base)
    if special:
        made.add_special_tokens({"additional_special_tokens": list(special)})
    return made


def save(folder: Path, config: Any, architecture: str, dtype: str = "float32") -> Path:
    """config.json."""
    config.architectures = [architecture]
    config.save_pretrained(folder)
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "dtype": dtype}))
    return folder


def whisper(base: Path, folder: Path) -> Path:
    """Encoder and decoder of two layers; one audio of up to 30 s makes 1,500 encoder tokens."""
    from tokenizers import pre_tokenizers
    from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperProcessor, WhisperTokenizer

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: number for number, letter in enumerate([*letters, "<|endoftext|>"])}
    words = WhisperTokenizer(vocab=vocabulary, merges=[])
    tasks = ["<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>"]
    words.add_special_tokens({"additional_special_tokens": ["<|startoftranscript|>", "<|en|>", "<|de|>", *tasks]})
    WhisperProcessor(WhisperFeatureExtractor(feature_size=80), words).save_pretrained(folder)
    words.save_pretrained(folder)
    start, end = words.convert_tokens_to_ids(["<|startoftranscript|>", "<|endoftext|>"])
    config = WhisperConfig(
        vocab_size=len(words), num_mel_bins=80, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=128, decoder_ffn_dim=128, d_model=64, max_source_positions=1500,
        max_target_positions=448, decoder_start_token_id=start, bos_token_id=end, eos_token_id=end, pad_token_id=end,
        suppress_tokens=None, begin_suppress_tokens=None,
    )  # fmt: skip
    return save(folder, config, "WhisperForConditionalGeneration")


def qwen2_audio(base: Path, folder: Path) -> Path:
    """A decoder of two layers that takes audio as embeddings; encoder tokens depend on the audio's length."""
    from transformers import (
        Qwen2AudioConfig,
        Qwen2AudioEncoderConfig,
        Qwen2AudioProcessor,
        Qwen2Config,
        WhisperFeatureExtractor,
    )  # fmt: skip

    words = tokenizer(base, "<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>")
    Qwen2AudioProcessor(WhisperFeatureExtractor(feature_size=80), words).save_pretrained(folder)
    words.save_pretrained(folder)
    audio = Qwen2AudioEncoderConfig(
        num_mel_bins=80, encoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=128, d_model=64,
        max_source_positions=1500,
    )  # fmt: skip
    text = Qwen2Config(
        vocab_size=len(words), hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=4096, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    index = words.convert_tokens_to_ids("<|AUDIO|>")
    config = Qwen2AudioConfig(audio_config=audio, text_config=text, audio_token_index=index)
    return save(folder, config, "Qwen2AudioForConditionalGeneration")


def bert(base: Path, folder: Path) -> Path:
    """A pooling model of two layers."""
    from transformers import BertConfig

    words = tokenizer(base)
    words.save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(words), hidden_size=128, num_hidden_layers=2, num_attention_heads=2, intermediate_size=256,
        max_position_embeddings=512, pad_token_id=0,
    )  # fmt: skip
    return save(folder, config, "BertModel")


def gemma3(base: Path, folder: Path) -> Path:
    """Four layers whose attention is sliding and full by turns."""
    from transformers import Gemma3TextConfig

    words = tokenizer(base)
    words.save_pretrained(folder)
    config = Gemma3TextConfig(
        vocab_size=len(words), hidden_size=128, intermediate_size=256, num_hidden_layers=4, num_attention_heads=2,
        num_key_value_heads=1, head_dim=64, sliding_window=64, max_position_embeddings=4096, query_pre_attn_scalar=64,
        bos_token_id=1, eos_token_id=2, pad_token_id=0, layer_types=["sliding_attention", "full_attention"] * 2,
    )  # fmt: skip
    return save(folder, config, "Gemma3ForCausalLM", "bfloat16")


def qwen3_next(base: Path, folder: Path) -> Path:
    """Three layers of linear attention and one of full attention, each with a mixture of experts."""
    from transformers import Qwen3NextConfig

    words = tokenizer(base)
    words.save_pretrained(folder)
    config = Qwen3NextConfig(
        vocab_size=len(words), hidden_size=128, intermediate_size=256, num_hidden_layers=4, num_attention_heads=2,
        num_key_value_heads=1, head_dim=64, linear_num_value_heads=4, linear_num_key_heads=2, linear_key_head_dim=64,
        linear_value_head_dim=64, moe_intermediate_size=64, shared_expert_intermediate_size=64, num_experts=8,
        num_experts_per_tok=2, bos_token_id=1, eos_token_id=2, max_position_embeddings=4096,
    )  # fmt: skip
    return save(folder, config, "Qwen3NextForCausalLM", "bfloat16")


def lora(base: Path, folder: Path) -> Path:
    """An adapter of rank 8 for the query and value projections of the demo's Llama."""
    import torch
    from safetensors.torch import save_file

    llama = json.loads((base / "config.json").read_text())
    widths = {
        "q_proj": llama["num_attention_heads"] * llama["head_dim"],
        "v_proj": llama["num_key_value_heads"] * llama["head_dim"],
    }
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 8, "lora_alpha": 16, "lora_dropout": 0.0, "bias": "none",
        "target_modules": list(widths), "base_model_name_or_path": "x", "inference_mode": True,
        "fan_in_fan_out": False, "modules_to_save": None,
    }  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(config))
    weights = {}
    for layer in range(llama["num_hidden_layers"]):
        for name, width in widths.items():
            key = f"base_model.model.model.layers.{layer}.self_attn.{name}"
            weights[f"{key}.lora_A.weight"] = torch.randn(8, llama["hidden_size"]) * 0.1
            weights[f"{key}.lora_B.weight"] = torch.randn(width, 8) * 0.1
    save_file(weights, folder / "adapter_model.safetensors")
    return folder


KINDS: dict[str, Callable[[Path, Path], Path]] = {
    "whisper": whisper, "qwen2_audio": qwen2_audio, "bert": bert, "gemma3": gemma3, "qwen3_next": qwen3_next,
    "lora": lora,
}  # fmt: skip


if __name__ == "__main__":
    print(KINDS[sys.argv[3]](Path(sys.argv[1]), Path(sys.argv[2])))
