"""Formulas against numbers worked out by hand, sums against a count token by token, and the file with what it lacks."""

from __future__ import annotations

import csv
import random
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from session_builder import SessionBuilder, at

from profilemate.export import readme_files
from profilemate.session.records import ProcessInfo
from profilemate.session.session import Session
from profilemate.trackers.bandwidth import batch_sums, copy_speed, devices, events, model_facts, routing
from profilemate.trackers.bandwidth.formulas import Batch, Work, work_of
from profilemate.trackers.bandwidth.model import Model, model_of
from profilemate.trackers.bandwidth.spread import Spread
from profilemate.trackers.bandwidth.summary import lines
from profilemate.trackers.forward_passes.events import LATENCIES
from profilemate.trackers.moe_routing import events as moe

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


# -- sums of a batch ----------------------------------------------------------------------------------------------------


def scheduled(
    new: list[tuple[int, int]], old: list[tuple[int, int]], drafts: dict[str, list[int]] | None = None
) -> Any:
    """A SchedulerOutput with these (tokens, computed before) per request."""
    counts = {f"new{n}": count for n, (count, _) in enumerate(new)}
    counts |= {f"old{n}": count for n, (count, _) in reversed(list(enumerate(old)))}
    return SimpleNamespace(
        num_scheduled_tokens=counts,
        total_num_scheduled_tokens=sum(counts.values()),
        scheduled_new_reqs=[
            SimpleNamespace(req_id=f"new{n}", num_computed_tokens=before) for n, (_, before) in enumerate(new)
        ],
        scheduled_cached_reqs=SimpleNamespace(
            req_ids=[f"old{n}" for n in range(len(old))], num_computed_tokens=[before for _, before in old]
        ),
        scheduled_spec_decode_tokens=drafts or {},
    )


def by_token(new: list[tuple[int, int]], old: list[tuple[int, int]], window: int) -> tuple[int, ...]:
    """The same sums, one token and one position at a time."""
    kv = prompt = pairs = products = in_window = window_pairs = 0
    for is_new, (count, before) in [(True, one) for one in new] + [(False, one) for one in old]:
        read: set[int] = set()
        for position in range(before, before + count):
            pairs += position + 1
            seen = range(max(0, position - window + 1), position + 1)
            window_pairs += len(seen)
            read |= set(seen)
        kv += before + count
        prompt += before + count if is_new or count > 1 else 0
        products += count * (before + count)
        in_window += len(read)
    return kv, prompt, pairs, products, in_window, window_pairs, len(new) + len(old)


@pytest.mark.parametrize("seed", range(60))
def test_sums_equal_a_count_by_token(seed: int) -> None:
    """Decode steps alone or beside new prompts, and chunks of older prompts among them."""
    dice = random.Random(seed)
    window = dice.choice([1, 5, 64])
    new = [(dice.randint(1, 90), dice.choice([0, 3, 80])) for _ in range(dice.choice([0, 1, 3]))]
    counts = dice.choice([[1], [1, 1, 1, 4, 70]])
    old = [(dice.choice(counts), dice.randint(0, 150)) for _ in range(dice.randint(0, 8))]
    expected = by_token(new, old, window)
    assert batch_sums.cells(scheduled(new, old), window) == ",".join(map(str, expected))
    without = [str(value) for value in expected]
    assert batch_sums.cells(scheduled(new, old), 0) == ",".join([*without[:4], "", "", without[6]])


def test_plain_decode_takes_no_request_by_itself() -> None:
    """The way without a look at the requests gives the same as the one that looks at each."""
    old = [(1, 10), (1, 99), (1, 500)]
    batch = scheduled([], old)
    batch.num_scheduled_tokens = batch.scheduled_spec_decode_tokens = None
    assert batch_sums.cells(batch, 64) == ",".join(map(str, by_token([], old, 64)))


def test_drafted_tokens_have_rows_of_logits() -> None:
    cells = batch_sums.cells(scheduled([], [(4, 20), (1, 7)], {"old0": [5, 6, 7]}), 0)
    assert cells.split(",")[-1] == "5"


# -- devices ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "gigabytes", "tflops"),
    [
        ("NVIDIA H100 80GB HBM3", 3350, 989), ("NVIDIA H100 PCIe", 2000, 756), ("NVIDIA H100 NVL", 3900, 835),
        ("NVIDIA H200", 4800, 989), ("NVIDIA A100-SXM4-40GB", 1555, 312), ("NVIDIA A100-PCIE-40GB", 1555, 312),
        ("NVIDIA A100-SXM4-80GB", 2039, 312), ("NVIDIA A100 80GB PCIe", 1935, 312), ("NVIDIA L40S", 864, 362),
        ("NVIDIA L4", 300, 121), ("NVIDIA B200", 8000, 2250), ("AMD_Instinct_MI300X_OAM", 5300, 1307),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None, None), ("GRID A100-40GB", None, None), ("cpu", None, None),
        ("NVIDIA GeForce RTX 4090", None, None), ("", None, None),
    ],
)  # fmt: skip
def test_peaks_of_known_devices(name: str, gigabytes: float | None, tflops: float | None) -> None:
    peak = devices.peak_of({"device_name": name}, LLAMA_3_8B)
    assert (peak.gb_per_second, peak.tflops) == (gigabytes, tflops)
    assert (peak.source == "unknown device") == (gigabytes is None)


def test_the_peak_is_that_of_the_type_in_which_is_computed() -> None:
    def peak(**more: Any) -> float | None:
        return devices.peak_of({"device_name": "NVIDIA H200"}, {**LLAMA_3_8B, **more}).tflops

    assert (peak(), peak(quantization="fp8"), peak(quantization="awq"), peak(dtype="torch.float32")) == (
        989, 1979, 989, None,
    )  # fmt: skip
    a100 = devices.peak_of({"device_name": "NVIDIA A100-SXM4-80GB"}, {**LLAMA_3_8B, "quantization": "fp8"})
    assert a100.tflops == 312


def test_a_measured_copy_is_the_peak() -> None:
    peak = devices.peak_of({"device_name": "cpu", "copied_bytes_per_second": 20_000_000_000}, LLAMA_3_8B)
    assert (peak.gb_per_second, peak.tflops, peak.source) == (20.0, None, "measured copy")


class FakeTensor:
    def __init__(self, told: list[str]) -> None:
        self.told = told

    def copy_(self, other: Any) -> None:
        self.told.append("copy")


@pytest.mark.parametrize(("kind", "per_copy"), [("cuda", ["wait", "copy", "wait"]), ("cpu", ["copy"])])
def test_a_copy_is_timed_to_its_end(monkeypatch: pytest.MonkeyPatch, kind: str, per_copy: list[str]) -> None:
    """The fastest of five takes 2 s here; a copy reads and writes 256 MiB. The device's memory is given back."""
    told: list[str] = []
    torch = SimpleNamespace(
        uint8="uint8", zeros=lambda size, **options: FakeTensor(told), zeros_like=lambda source: FakeTensor(told),
        cuda=SimpleNamespace(synchronize=lambda: told.append("wait"), empty_cache=lambda: told.append("empty")),
    )  # fmt: skip
    times = iter([0.0, 5.0, 10.0, 12.0, 20.0, 23.0, 30.0, 34.0, 40.0, 43.0])
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setattr(copy_speed.time, "perf_counter", lambda: next(times))
    assert copy_speed.measure(SimpleNamespace(type=kind)) == 1 << 28
    assert told == [*(per_copy * 5), *(["empty"] if kind == "cuda" else [])]


# -- the file -----------------------------------------------------------------------------------------------------------

CONFIG = {"model_dimensions": LLAMA_3_8B, "device_name": "NVIDIA H200", "device": "cuda"}


def row(forward: int, **cells: Any) -> dict[str, Any]:
    return {
        "time_ns": at(forward), "step": forward, "forward": forward, "runtime_mode": "FULL", "host_ns": 100_000,
        "clock": "cuda_event", "phase": "decode", "requests": 2, "tokens": 2, "kv_tokens": 3000, "prompt_kv_tokens": 0,
        "attention_pairs": 3000, "attention_products": 3000, "output_rows": 2, **cells,
    }  # fmt: skip


def exported(
    session: SessionBuilder, config: dict[str, Any], *rows: dict[str, Any], **times: int
) -> list[dict[str, str]]:
    worker = session.process("Worker", engine_config=config, settings={"trackers": ["forward_passes", "bandwidth"]})
    worker.rows(events.READ, *rows)
    if times:
        worker.rows(LATENCIES, *({"forward": int(name[1:]), "device_ns": ns} for name, ns in times.items()))
    readme_files.write(Session(session.path))
    with (session.path / "bandwidth_estimate.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_rates_are_over_the_time_of_the_device(session: SessionBuilder) -> None:
    (found,) = exported(session, CONFIG, row(1), f1=5_000_000)
    assert found["forward_time_ms"] == "5.000000" and found["clock"] == "cuda_event"
    read = 15_009_316_864 + 393_216_000
    assert int(found["weight_read_bytes"]) + int(found["kv_read_bytes"]) == read
    assert found["read_gb_per_sec"] == f"{read / 5e6:.6f}"
    assert found["bandwidth_pct_of_peak"] == f"{100 * read / 5e6 / 4800:.3f}"
    flops = 27_917_287_424 + 1_572_864_000 + 2_101_346_304
    assert found["tflop_per_sec"] == f"{flops / 5e9:.6f}"
    assert found["compute_pct_of_peak"] == f"{100 * flops / 5e9 / 989:.3f}"
    assert found["arithmetic_intensity"] == f"{flops / (read + 262_144):.3f}"


def test_passes_without_a_device_time_or_with_none_at_all_have_no_rate(session: SessionBuilder) -> None:
    """Unsampled, sampled but never read, and a clock that saw no time pass."""
    rows = exported(session, CONFIG, row(1, clock="monotonic"), row(2), row(3), row(4), f3=0, f4=4_000_000)
    rates = ("read_gb_per_sec", "tflop_per_sec", "bandwidth_pct_of_peak", "compute_pct_of_peak")
    assert [[one[name] for name in rates] for one in rows[:3]] == [[""] * 4] * 3
    assert [one["forward_time_ms"] for one in rows] == ["", "", "0.000000", "4.000000"]
    assert [one["clock"] for one in rows] == ["", "", "cuda_event", "cuda_event"]
    assert all(one["weight_read_bytes"] == "15009316864" for one in rows)
    assert not any("inf" in cell or "nan" in cell for one in rows for cell in one.values())
    notes = session.metadata()["notes"]
    assert any("1 of 4 passes have a time of the device" in note for note in notes)


def test_a_cpu_pass_takes_its_host_time_and_an_unknown_device_has_no_peak(session: SessionBuilder) -> None:
    config = {**CONFIG, "device": "cpu", "device_name": "cpu"}
    (found,) = exported(
        session,
        config,
        row(1, clock="monotonic"),
    )
    assert (found["forward_time_ms"], found["clock"]) == ("0.100000", "monotonic")
    assert found["read_gb_per_sec"] and found["tflop_per_sec"]
    assert (found["bandwidth_pct_of_peak"], found["compute_pct_of_peak"]) == ("", "")
    text = "\n".join(lines(session.metadata()["summary"]["bandwidth"]))
    assert "cpu: peak unknown (unknown device)" in text and "of peak" not in text


def test_a_model_that_was_not_recorded_leaves_bytes_empty_and_says_so(session: SessionBuilder) -> None:
    (found,) = exported(session, {"device": "cpu"}, row(1, clock="monotonic"))
    assert found["weight_read_bytes"] == found["dense_flops"] == found["read_gb_per_sec"] == ""
    assert found["kv_tokens"] == "3000"
    assert any("model's sizes were not recorded" in note for note in session.metadata()["notes"])


def test_the_summary_names_rates_peak_and_source(session: SessionBuilder) -> None:
    exported(session, CONFIG, row(1), row(2), f1=5_000_000, f2=5_000_000)
    assert not any("lack the first" in note for note in session.metadata()["notes"])
    record = session.metadata()["summary"]["bandwidth"]
    assert record["totals"]["passes"] == 2
    assert record["totals"]["read_bytes"] == 2 * (15_009_316_864 + 393_216_000)
    assert record["phases"]["decode"]["timed_passes"] == 2
    assert record["phases"]["decode"]["read_gb_per_sec_p50"] == pytest.approx(3080.5, rel=0.006)
    text = "\n".join(lines(record))
    assert "decode: reads 3081 GB/s (64.2 % of peak)" in text
    assert "NVIDIA H200: peak 4800 GB/s, 989 TFLOP/s (NVIDIA H200 data sheet" in text
    assert "an estimate" in text and "as --enable-mfu-metrics counts the same passes" in text


def test_experts_read_follow_moe_routing_where_it_counted(session: SessionBuilder) -> None:
    """All 100 tokens chose experts 0 and 1 of 8: two experts are read whatever the batch, and the notes say why."""
    both = {"settings": {"trackers": ["forward_passes", "moe_routing", "bandwidth"]}}
    worker = session.process("Worker", engine_config={"model_dimensions": MIXTRAL_8X7B, "device": "cpu"}, **both)
    worker.rows(events.READ, row(1), row(2, tokens=300, requests=1))
    layer = {"time_ns": at(1), "model": 0, "layer_idx": 0, "passes": 1, "tokens": 100, "outside": 0}
    worker.rows(moe.LAYERS, {
        "time_ns": at(1), "model": 0, "layer_idx": 0, "router": "R", "num_experts": 8, "top_k": 2, "unseen": "",
        "pairs": "off",
    })  # fmt: skip
    worker.rows(moe.COUNTS, {**layer, "counts": "100 100 0 0 0 0 0 0"})
    readme_files.write(Session(session.path))
    with (session.path / "bandwidth_estimate.csv").open(newline="") as file:
        read = [int(found["weight_read_bytes"]) for found in csv.DictReader(file)]
    weights = model(MIXTRAL_8X7B).weights
    assert read == [round(weights.dense_bytes + weights.head_bytes + weights.expert_bytes * 2 / 8)] * 2
    assert any("measured by moe_routing" in note for note in session.metadata()["notes"])


def test_rows_that_the_size_cap_removed_are_missed_in_the_totals(session: SessionBuilder) -> None:
    exported(session, CONFIG, row(41), row(42))
    assert any("lack the first 40 forward passes" in note for note in session.metadata()["notes"])


def test_damaged_facts_of_a_model_do_no_harm(session: SessionBuilder) -> None:
    config = {
        "model_dimensions": {**LLAMA_3_8B, "num_attention_heads": "x", "layer_types": [1], "head_size": None},
        "model_parameters": {"dense": 7, "emptied": "x"}, "kv_layers": [3, {"bytes": -1}], "device_name": 5,
    }  # fmt: skip
    assert len(exported(session, config, row(1))) == 1


def test_without_the_tracker_there_is_no_file(session: SessionBuilder) -> None:
    session.process("Worker", settings={"trackers": ["forward_passes"]})
    readme_files.write(Session(session.path))
    assert not (session.path / "bandwidth_estimate.csv").exists()


def test_percentiles_are_right_to_half_a_percent() -> None:
    spread = Spread()
    for value in range(1, 1001):
        spread.add(value)
    assert [spread.percentile(p) for p in (10, 50, 99)] == pytest.approx([100, 500, 990], rel=0.006)
    assert Spread().percentile(50) is None
