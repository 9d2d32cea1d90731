"""A tiny Llama made on the spot: a config and a tokenizer, for `--load-format dummy`. No network, no weights.

python demo/tiny_model.py FOLDER
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

VOCABULARY_SIZE = 4096
SPECIAL_TOKENS = ["<unk>", "<s>", "</s>"]
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "dtype": "float32",
    "vocab_size": VOCABULARY_SIZE,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 4096,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "attention_bias": False,
    "mlp_bias": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
TOKENIZER_CONFIG = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "model_max_length": 4096,
    "unk_token": "<unk>",
    "bos_token": "<s>",
    "eos_token": "</s>",
    "pad_token": "<unk>",
    "clean_up_tokenization_spaces": False,
    "chat_template": "{% for message in messages %}{{ message['content'] }}\n{% endfor %}",
}


def training_lines(lines: int = 4000) -> list[str]:
    """Made-up sentences, always the same, with more than enough different words for the vocabulary."""
    dice = random.Random(4096)
    syllables = [first + second for first in "bdfgklmnprstvz" for second in ("a", "e", "i", "o", "u", "an", "er")]
    words = ["".join(dice.choices(syllables, k=dice.randint(1, 4))) for _ in range(6000)]
    return [" ".join(dice.choices(words, k=12)) + "." for _ in range(lines)]


def tokenizer_json() -> str:
    """A byte-level BPE tokenizer of exactly VOCABULARY_SIZE tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(training_lines(), trainer)
    if tokenizer.get_vocab_size() != VOCABULARY_SIZE:
        raise RuntimeError(f"the tokenizer has {tokenizer.get_vocab_size()} tokens, not {VOCABULARY_SIZE}")
    return tokenizer.to_str(pretty=False)


def write_tiny_llama(folder: Path) -> Path:
    """Write the model into the folder, unless it is already there whole; returns the folder."""
    config_file = folder / "config.json"
    config = json.dumps(CONFIG, indent=1)
    if config_file.is_file() and config_file.read_text() == config:
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(tokenizer_json())
    (folder / "tokenizer_config.json").write_text(json.dumps(TOKENIZER_CONFIG, indent=1))
    config_file.write_text(config)  # last: it says that the rest is there
    return folder


def main() -> None:
    """Command line: write the model into the folder given."""
    if len(sys.argv) != 2:
        sys.exit("usage: python demo/tiny_model.py FOLDER")
    print(write_tiny_llama(Path(sys.argv[1])))


if __name__ == "__main__":
    main()
