"""The bandwidth file with what it lacks, its notes and its summary."""

from __future__ import annotations

import csv
from typing import Any

import pytest
from known_models import LLAMA_3_8B, MIXTRAL_8X7B, model
from session_builder import SessionBuilder, at

from profilemate.export import readme_files
from profilemate.session.session import Session
from profilemate.trackers.bandwidth import events
from profilemate.trackers.bandwidth.spread import Spread
from profilemate.trackers.bandwidth.summary import lines
from profilemate.trackers.forward_passes.events import LATENCIES
from profilemate.trackers.moe_routing import events as moe

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
