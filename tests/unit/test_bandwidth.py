"""Formulas of bytes and operations against numbers worked out by hand, and where the sizes come from."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from known_models import DECODE, LLAMA_3_8B, MIXTRAL_8X7B, model

from profilemate.session.records import ProcessInfo
from profilemate.trackers.bandwidth import model_facts, routing
from profilemate.trackers.bandwidth.formulas import Batch, Work, work_of
from profilemate.trackers.bandwidth.model import model_of

# -- formulas -----------------------------------------------------------------------------------------------------------


def test_llama_3_8b_decode_by_hand() -> None:
    """Layer: 4096 x 128 x (32 + 2 x 8 + 32) + 3 x 4096 x 14336 = 218,103,808 weights; head 4096 x 128256."""
    assert work_of(model(LLAMA_3_8B), DECODE) == Work(
        weight_read_bytes=2 * (32 * 218_103_808 + 525_336_576),
        kv_read_bytes=3000 * 131_072,
        kv_write_bytes=2 * 131_072,
        attention_flops=32 * 3000 * 16_384,
        dense_flops=2 * 32 * 218_103_808 * 2,
        moe_flops=0,
        head_flops=2 * 525_336_576 * 2,
    )


def test_llama_3_8b_prompt_by_hand() -> None:
    """2,048 tokens from scratch: 2,048 x 2,049 / 2 pairs below the mask, and one row of logits."""
    work = work_of(model(LLAMA_3_8B), Batch(2048, 1, 2048, 2048, 2_098_176, 2048**2, None, None, 1))
    assert work.attention_flops == 32 * 2_098_176 * 16_384
    assert work.dense_flops == 2 * 6_979_321_856 * 2048
    assert work.head_flops == 2 * 525_336_576
    assert work.kv_write_bytes == work.kv_read_bytes == 2048 * 131_072
    assert round(work.intensity or 0) == round(work.flops / (15_009_316_864 + 2 * 2048 * 131_072))


def test_tensor_parallel_halves_all_parts() -> None:
    whole = work_of(model(LLAMA_3_8B), DECODE)
    half = work_of(model({**LLAMA_3_8B, "tensor_parallel_size": 2}), DECODE)
    assert {name: value / 2 for name, value in vars(whole).items()} == vars(half)


def test_more_ranks_than_kv_heads_share_them() -> None:
    """vLLM gives each rank one KV head then, so 16 ranks read an eighth of the cache each and not a sixteenth."""
    part = work_of(model({**LLAMA_3_8B, "tensor_parallel_size": 16}), DECODE)
    assert part.kv_read_bytes == work_of(model(LLAMA_3_8B), DECODE).kv_read_bytes / 8


def test_a_pipeline_stage_has_its_layers_and_the_last_one_the_head() -> None:
    info = ProcessInfo(Path(), "Worker", (), {"pp": 0}, engine_config={
        "model_dimensions": {**LLAMA_3_8B, "pipeline_parallel_size": 2, "layers_of_worker": 20}})  # fmt: skip
    first = model_of(info)
    assert first is not None
    work = work_of(first, DECODE)
    assert work.weight_read_bytes == 2 * 20 * 218_103_808 and work.head_flops == 0
    assert work.kv_write_bytes == 2 * 131_072 * 20 / 32


def test_fp8_kv_cache_halves_its_bytes_and_nothing_else() -> None:
    plain, fp8 = work_of(model(LLAMA_3_8B), DECODE), work_of(model({**LLAMA_3_8B, "cache_dtype": "fp8_e4m3"}), DECODE)
    assert (fp8.kv_read_bytes, fp8.kv_write_bytes) == (plain.kv_read_bytes / 2, plain.kv_write_bytes / 2)
    assert fp8.weight_read_bytes == plain.weight_read_bytes and fp8.flops == plain.flops


@pytest.mark.parametrize(("method", "factor"), [("fp8", 0.5), ("awq", 0.25), ("of_somebodys_own", 1.0)])
def test_quantised_layers_are_smaller_and_compute_as_much(method: str, factor: float) -> None:
    made = model({**LLAMA_3_8B, "quantization": method})
    assert made.weights.dense_bytes == factor * 2 * 6_979_321_856
    assert made.weights.head_bytes == 2 * 525_336_576
    assert work_of(made, DECODE).flops == work_of(model(LLAMA_3_8B), DECODE).flops


def test_the_worker_s_own_kv_layers_count_before_the_configuration() -> None:
    layers = [
        {"kind": "attention", "layers": 5, "bytes": 100, "window": 0},
        {"kind": "attention", "layers": 20, "bytes": 100, "window": 512},
        {"kind": "state", "layers": 3, "bytes": 7000, "window": 0},
        {"kind": "cross", "layers": 2, "bytes": 900, "window": 0},
    ]
    made = model(LLAMA_3_8B, kv_layers=layers)
    work = work_of(made, Batch(4, 4, 8000, 0, 8000, 8000, 2048, 2048, 4))
    assert work.kv_read_bytes == 5 * 100 * 8000 + 20 * 100 * 2048 + 3 * 7000 * 4
    assert work.kv_write_bytes == 25 * 100 * 4 + 3 * 7000 * 4
    assert work.attention_flops == 16_384 * (5 * 8000 + 20 * 2048)
    assert made.has_other_layers and made.kv_bytes_per_token == 2500


def test_mla_decodes_on_the_latent_and_prefills_on_heads() -> None:
    """DeepSeek-V2-Lite: 512 + 64 values of 2 bytes per token and layer; 16 heads."""
    made = model(
        {**LLAMA_3_8B, "is_mla": True, "num_hidden_layers": 27, "num_attention_heads": 16, "kv_lora_rank": 512,
         "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128}
    )  # fmt: skip
    assert made.kv_bytes_per_token == 27 * 576 * 2
    assert work_of(made, DECODE).attention_flops == 27 * 3000 * 2 * (2 * 512 + 64) * 16
    prompt = work_of(made, Batch(10, 1, 10, 10, 55, 100, None, None, 1))
    assert prompt.attention_flops == 27 * 55 * 2 * (192 + 128) * 16


# -- experts ------------------------------------------------------------------------------------------------------------


def test_experts_hit_by_hand() -> None:
    """8 experts, 2 for a token: one token hits 2, two tokens 8 x (1 - 0.75 ^ 2) = 3.5; one expert has 3 x 4096 x 14336."""
    made = model(MIXTRAL_8X7B)
    one = work_of(made, Batch(1, 1, 5, 0, 5, 5, None, None, 1))
    two = work_of(made, DECODE)
    expert_bytes = 2 * 32 * 3 * 4096 * 14336
    assert two.weight_read_bytes - one.weight_read_bytes == 1.5 * expert_bytes
    assert two.moe_flops == 2 * 2 * 2 * 32 * 3 * 4096 * 14336
    assert work_of(made, Batch(9999, 1, 5, 0, 5, 5, None, None, 1)).weight_read_bytes == pytest.approx(
        made.weights.dense_bytes + made.weights.head_bytes + 8 * expert_bytes
    )


def test_expert_parallel_worker_has_its_share_and_gets_all_engines_tokens() -> None:
    sizes = {**MIXTRAL_8X7B, "data_parallel_size": 4, "enable_expert_parallel": True}
    made, alone = model(sizes), model(MIXTRAL_8X7B)
    assert made.experts is not None and made.experts.of_worker == 2
    assert made.weights.expert_bytes == alone.weights.expert_bytes / 4
    assert work_of(made, DECODE).moe_flops == work_of(alone, DECODE).moe_flops  # a quarter, of four engines' tokens


def test_hit_share_follows_measured_routing() -> None:
    """Uniform shares give the uniform result; if every token takes the same two experts, two are hit whatever comes."""
    even, same = routing.measured([[0.25] * 8]), routing.measured([[1.0, 1.0] + [0.0] * 6, [1.0, 1.0] + [0.0] * 6])
    uniform = routing.uniform(8, 2)
    assert [even(n) for n in (1, 2, 50)] == pytest.approx([uniform(n) for n in (1, 2, 50)])
    assert [same(n) for n in (1, 2, 50)] == [0.25, 0.25, 0.25]


# -- where the sizes come from ------------------------------------------------------------------------------------------


def loaded(dense: int, head: int = 0, embedding: int = 0, emptied: int = 0, packed: int = 0) -> dict[str, Any]:
    """What model_facts.parameters writes, two bytes to an element."""
    kinds = {"dense": dense, "head": head, "embedding": embedding, "experts": 0, "encoder": 0}
    written: dict[str, Any] = {
        kind: {"bytes": 2 * count, "elements": count, "packed_bytes": packed if kind == "dense" else 0}
        for kind, count in kinds.items()
    }
    return {**written, "emptied": emptied, "experts_of_worker": 0, "expert_layers": 0}


def test_the_loaded_model_s_parameters_count_before_the_configuration() -> None:
    weights = model(LLAMA_3_8B, model_parameters=loaded(1000, 50, 70)).weights
    assert (weights.dense_bytes, weights.head_bytes, weights.dense_elements, weights.head_elements) == (
        2000, 100, 1000, 50,
    )  # fmt: skip
    assert weights.bytes_from == "parameters of the loaded model"


def test_a_tied_head_is_the_embedding_and_an_untied_embedding_is_not_read() -> None:
    tied = model({**LLAMA_3_8B, "tie_word_embeddings": True}, model_parameters=loaded(1000, 0, 70)).weights
    assert (tied.head_bytes, tied.head_elements) == (140, 70)
    assert model(LLAMA_3_8B, model_parameters=loaded(1000, 0, 70)).weights.head_bytes == 0


def test_emptied_parameters_count_as_loaded_and_packed_ones_take_the_configuration_s_elements() -> None:
    emptied = model(
        LLAMA_3_8B, model_parameters=loaded(3, emptied=7), model_parameters_as_loaded=loaded(1000, 50)
    ).weights
    assert (emptied.dense_bytes, emptied.head_bytes, emptied.bytes_from) == (
        2000, 100, "parameters of the model as loaded",
    )  # fmt: skip
    packed = model(LLAMA_3_8B, model_parameters=loaded(1000, 50, packed=500)).weights
    assert (packed.dense_bytes, packed.dense_elements, packed.elements_from) == (
        2000, 6_979_321_856, "model configuration",
    )  # fmt: skip
    lost = model(LLAMA_3_8B, model_parameters=loaded(3, emptied=7)).weights
    assert lost.bytes_from == "model configuration"


class Parameter:
    def __init__(self, *shape: int, size: int = 2, dtype: str = "torch.bfloat16") -> None:
        self.shape, self.size, self.dtype = shape, size, Dtype(dtype)

    def numel(self) -> int:
        count = 1
        for length in self.shape:
            count *= length
        return count

    def element_size(self) -> int:
        return self.size

    def dim(self) -> int:
        return len(self.shape)


class Dtype:
    def __init__(self, name: str) -> None:
        self.name, self.is_floating_point = name, "float" in name

    def __str__(self) -> str:
        return self.name


class Module:
    def __init__(self, **parameters: Parameter) -> None:
        self.parameters = parameters

    def named_parameters(self, recurse: bool) -> Any:
        assert not recurse
        return self.parameters.items()


class VocabParallelEmbedding(Module): ...


class ParallelLMHead(VocabParallelEmbedding): ...


def test_parameters_by_what_reads_them() -> None:
    table = Parameter(100, 8)
    tree = {
        "": Module(),
        "model.embed_tokens": VocabParallelEmbedding(weight=table),
        "model.layers.0.qkv_proj": Module(weight=Parameter(16, 8), bias=Parameter(16)),
        "model.layers.0.down_proj": Module(
            qweight=Parameter(4, 8, size=4, dtype="torch.int32"), scales=Parameter(4, 2)
        ),
        "model.layers.0.fp8": Module(weight=Parameter(8, 8, size=1, dtype="torch.float8_e4m3fn")),
        "model.layers.0.experts": Module(w13_weight=Parameter(6, 4, 8), w2_weight=Parameter(6, 8, 2)),
        "model.layers.1.packed": Module(weight=Parameter(0)),
        "visual.blocks.0": Module(weight=Parameter(5, 5)),
        "lm_head": ParallelLMHead(weight=Parameter(100, 8)),
        "tied": ParallelLMHead(weight=table),
    }
    found = model_facts.parameters(SimpleNamespace(named_modules=tree.items))
    assert found["embedding"] == {"bytes": 1600, "elements": 800, "packed_bytes": 0}
    assert found["head"] == {"bytes": 1600, "elements": 800, "packed_bytes": 0}
    assert found["dense"] == {
        "bytes": 256 + 32 + 128 + 16 + 64, "elements": 128 + 64, "packed_bytes": 128,
    }  # fmt: skip
    assert found["experts"] == {"bytes": 2 * (192 + 96), "elements": 288, "packed_bytes": 0}
    assert found["encoder"]["bytes"] == 50
    assert (found["emptied"], found["experts_of_worker"], found["expert_layers"]) == (1, 6, 1)


class CrossAttentionSpec(SimpleNamespace): ...


def test_kv_layers_by_kind_without_a_drafter_s() -> None:
    full = SimpleNamespace(block_size=16, page_size_bytes=9999, real_page_size_bytes=4096)
    sliding = SimpleNamespace(block_size=16, page_size_bytes=4096, sliding_window=512)
    local = SimpleNamespace(block_size=16, page_size_bytes=4096, attention_chunk_size=8192)
    state = SimpleNamespace(block_size=256, page_size_bytes=70_000, shapes=((1,),))
    cross = CrossAttentionSpec(block_size=16, page_size_bytes=160)
    specs = {
        "model.layers.0.attn": full, "model.layers.1.attn": full, "model.layers.2.attn": sliding,
        "model.layers.3.attn": sliding, "model.layers.4.attn": local, "model.layers.5.mamba": state,
        "decoder.layers.0.cross_attn": cross, "model.layers.6.attn": full, "draft_model.layers.0.attn": full,
    }  # fmt: skip
    layers = model_facts.kv_layers(specs, num_layers=6)
    assert layers == [
        {"kind": "attention", "layers": 2, "bytes": 256.0, "window": 0},
        {"kind": "attention", "layers": 2, "bytes": 256.0, "window": 512},
        {"kind": "attention", "layers": 1, "bytes": 256.0, "window": 8192},
        {"kind": "cross", "layers": 1, "bytes": 10.0, "window": 0},
        {"kind": "state", "layers": 1, "bytes": 70_000.0, "window": 0},
    ]
    assert model_facts.window_of(layers) == 512 and model_facts.window_of([]) == 0


def test_dimensions_write_what_is_allowed_and_no_more() -> None:
    class Config:
        hf_text_config = SimpleNamespace(hidden_size=64, layer_types=["a", "b", "a"], secret="token", model_type="x")
        dtype = "torch.float16"

        def get_head_size(self) -> int:
            return 16

        def get_num_experts(self) -> int:
            raise ValueError("not of this model")

    found = model_facts.dimensions(SimpleNamespace(model_config=Config()))
    assert found == {
        "dtype": "torch.float16", "hidden_size": 64, "model_type": "x", "layer_types": {"a": 2, "b": 1}, "head_size": 16,
    }  # fmt: skip
