"""A real engine with `--enable-mfu-metrics`: its counters against the session of the bandwidth tracker, pass by pass."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any, NamedTuple

import environment
import pytest
import streams
import warm

from profilemate.export import readme_files
from profilemate.session.session import Session

DRIVE = environment.ROOT / "tests" / "engine" / "drive_mfu.py"
ATTENTION = ("attn.attn_qk", "attn.attn_av")


class Run(NamedTuple):
    """One engine: vLLM's own steps and counters, and what was exported of the session."""

    steps: list[dict[str, Any]]
    counters: dict[str, float]
    rows: list[dict[str, str]]
    record: dict[str, Any]
    facts: dict[str, Any]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Run:
    folder = tmp_path_factory.mktemp("mfu")
    env = environment.profiled(
        folder, VLLM_ENABLE_V1_MULTIPROCESSING="0", PROFILEMATE_TRACKERS="bandwidth", PROFILEMATE_MEASURE_PEAK="1"
    )
    command = [str(DRIVE), str(folder / "oracle.json"), str(tiny_model)]
    done = warm.run(command, env=env)
    assert done.returncode == 0, done.stderr[-3000:]
    oracle = json.loads((folder / "oracle.json").read_text())
    session = streams.only_session(folder)
    readme_files.write(Session(session))
    metadata = json.loads((session / "metadata.json").read_text())
    with (session / "bandwidth_estimate.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    (process,) = streams.processes(session)
    facts = json.loads((process / "process.json").read_text())
    assert not facts["warnings"]
    return Run(oracle["steps"], oracle["counters"], rows, metadata["summary"]["bandwidth"], facts["engine_config"])


def busy(run: Run) -> list[dict[str, Any]]:
    """Steps with tokens: each is one forward pass."""
    return [step for step in run.steps if step["requests"]]


def theirs(run: Run, kind: str, *names: str) -> float:
    """Sum of some terms of vLLM's sums."""
    return sum(float(step["parts"][kind][name]) for step in busy(run) for name in names)


def ours(run: Run, column: str) -> int:
    """Sum of a column."""
    return sum(int(row[column]) for row in run.rows)


def test_every_pass_is_there_with_its_tokens_and_context(run: Run) -> None:
    """Pass by pass, from what the scheduler scheduled."""
    assert [(int(row["num_tokens"]), int(row["num_reqs"]), int(row["kv_tokens"])) for row in run.rows] == [
        (
            sum(count for count, _, _ in step["requests"]),
            len(step["requests"]),
            sum(context for _, context, _ in step["requests"]),
        )
        for step in busy(run)
    ]
    assert {row["phase"] for row in run.rows} == {"prefill", "decode", "mixed"}
    pairs = [sum(sum(range(c - n + 1, c + 1)) for n, c, _ in step["requests"]) for step in busy(run)]
    assert [int(row["attention_pairs"]) for row in run.rows] == pairs


def test_counted_as_vllm_does_the_totals_are_vllm_s_counters(run: Run) -> None:
    """The steps without tokens, for which vLLM counts a read of all weights, apart."""
    for name, key in (("flops", "flops"), ("read", "read_bytes"), ("write", "write_bytes")):
        assert run.record["as_vllm_counts"][key] == pytest.approx(sum(step[name] for step in busy(run)), rel=1e-9)
        counter = run.counters[f"vllm:estimated_{key}_per_gpu"]
        assert counter == sum(step[name] or 0 for step in run.steps)


def test_part_by_part_they_agree_or_differ_as_the_guide_says(run: Run) -> None:
    """Linear layers, head and KV cache to the unit; weights by the norms, which vLLM leaves out; attention by the mask."""
    linear = theirs(run, "flops", "attn.qkv_proj", "attn.out_proj", "ffn.dense_ffn")
    assert ours(run, "dense_flops") == linear
    assert ours(run, "lm_head_flops") == theirs(run, "flops", "unembed.unembed")
    assert ours(run, "kv_write_bytes") == theirs(run, "write", "attn.kv_cache")
    weights = ("attn.qkv_weight", "attn.out_weight", "ffn.dense_up_gate_weights", "ffn.dense_down_weights")
    norms = len(run.rows) * (2 * 4 + 1) * 128 * 2
    assert ours(run, "weight_read_bytes") == theirs(run, "read", *weights, "unembed.weight") + norms
    decode = [row for row in run.rows if row["phase"] == "decode"]
    steps = [step for step in busy(run) if all(count == 1 for count, _, _ in step["requests"])]
    unmasked = sum(step["parts"]["flops"][name] for step in steps for name in ATTENTION)
    assert sum(int(row["attention_flops"]) for row in decode) == unmasked
    assert ours(run, "attention_flops") < theirs(run, "flops", *ATTENTION)


def test_the_facts_are_those_of_the_worker(run: Run) -> None:
    """4 layers with 2 KV heads of 32 in 16 bits, 128 x (4 + 2 x 2 + 4) x 32 + 3 x 128 x 256 weights in each."""
    assert run.facts["kv_layers"] == [{"kind": "attention", "layers": 4, "bytes": 2 * 2 * 32 * 2, "window": 0}]
    (worker,) = run.record["workers"]
    assert worker["model"]["dense_weights"] == 4 * (128 * 12 * 32 + 3 * 128 * 256)
    assert worker["model"]["head_weights"] == 128 * 4096
    assert worker["model"]["weight_bytes_from"].startswith("parameters of the")


def test_the_copy_that_was_asked_for_is_the_peak(run: Run) -> None:
    (worker,) = run.record["workers"]
    assert worker["device"] == "cpu" and worker["peak_source"] == "measured copy"
    assert 0.1 < worker["peak_gb_per_second"] < 1000 and worker["peak_tflops"] is None
    for row in run.rows:
        share = 100 * float(row["read_gb_per_sec"]) / worker["peak_gb_per_second"]
        assert float(row["bandwidth_pct_of_peak"]) == pytest.approx(
            share, abs=0.002 + 0.1 / worker["peak_gb_per_second"]
        )
        assert row["compute_pct_of_peak"] == ""


def test_rates_are_work_over_the_time_of_the_pass(run: Run) -> None:
    for row in run.rows:
        read = int(row["weight_read_bytes"]) + int(row["kv_read_bytes"])
        assert float(row["read_gb_per_sec"]) == pytest.approx(read / float(row["forward_time_ms"]) / 1e6, abs=0.001)
        assert row["clock"] == "monotonic"
