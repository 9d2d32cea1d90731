"""Real models with an audio encoder: the encoder's passes against vLLM's own counts, and the files made of them."""

from __future__ import annotations

import csv
import json
import statistics
from pathlib import Path
from typing import Any, NamedTuple

import environment
import pytest
import streams
import warm

DRIVE = environment.ROOT / "tests" / "engine" / "drive_encoder.py"
V2 = {"VLLM_USE_V2_MODEL_RUNNER": "1", "TRITON_INTERPRET": "1", "STANDIN_GRAPHS": "1"}
SETUPS: dict[str, tuple[list[str], dict[str, str]]] = {
    "v1": (["whisper", "qwen2_audio"], {}),
    "v2": (["qwen2_audio"], V2),
}
ROUNDING_MS = 1e-6
AUDIOS = {"whisper": [1, 2, 2], "qwen2_audio": [1, 2, 1, 2]}
"""Encoded per round: Whisper encodes the audio that comes again, the other model has it in vLLM's encoder cache."""


class Run(NamedTuple):
    """One process: the models that ran in it, the oracles, and the session."""

    kinds: list[str]
    oracle: dict[str, Any]
    session: Path
    metadata: dict[str, Any]

    def passes(self) -> list[dict[str, str]]:
        """Rows of encoder_passes."""
        return streams.all_rows(self.session, "encoder_passes")

    def timing(self, component: str) -> list[dict[str, str]]:
        """Rows of encoder_decoder_timing.csv."""
        with (self.session / "encoder_decoder_timing.csv").open(newline="") as file:
            return [row for row in csv.DictReader(file) if row["component"] == component]

    def summary(self) -> dict[str, Any]:
        """encoder_decoder_summary.json."""
        return dict(json.loads((self.session / "encoder_decoder_summary.json").read_text()))


@pytest.fixture(scope="module", params=list(SETUPS))
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Run:
    kinds, more = SETUPS[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    env = environment.profiled(folder, environment.STANDIN, VLLM_ENABLE_V1_MULTIPROCESSING="0", **more)
    done = warm.run([str(DRIVE), str(tiny_model), str(folder / "oracle.json"), *kinds], env=env, cwd=folder)
    assert done.returncode == 0, done.stderr[-3000:]
    session = streams.only_session(folder)
    streams.export(session)
    metadata = json.loads((session / "metadata.json").read_text())
    return Run(kinds, json.loads((folder / "oracle.json").read_text()), session, metadata)


def numbers(row: dict[str, str], *names: str) -> list[int]:
    return [int(row[name]) for name in names]


def test_items_tokens_and_requests_equal_vllms_own_counts(run: Run) -> None:
    assert [numbers(row, "items", "tokens", "requests") for row in run.passes()] == run.oracle["encoded"]


def test_items_are_the_audios_that_the_requests_brought(run: Run) -> None:
    assert [int(row["items"]) for row in run.passes()] == [count for kind in run.kinds for count in AUDIOS[kind]]
    assert {row["modality"] for row in run.passes()} == {"audio"}


def test_items_and_tokens_equal_what_the_model_returned(run: Run) -> None:
    returned = [[len(tokens), sum(tokens)] for tokens in run.oracle["embedded"]]
    assert [numbers(row, "items", "tokens") for row in run.passes()] == returned


def test_cumulative_columns_are_the_sums(run: Run) -> None:
    last = run.passes()[-1]
    for name in ("items", "tokens", "requests"):
        assert int(last[f"{name}_so_far"]) == sum(int(row[name]) for row in run.passes())
    assert [int(row["number"]) for row in run.passes()] == list(range(1, len(run.passes()) + 1))


def test_every_pass_lies_within_the_execute_model_call_of_its_step(run: Run) -> None:
    for row in run.passes():
        began, ended = run.oracle["executed"][int(row["step"]) - 1]
        assert began <= int(row["time_ns"]) and int(row["host_ns"]) > 0
        assert int(row["time_ns"]) + int(row["host_ns"]) <= ended
    assert {row["clock"] for row in run.passes()} == {"monotonic"}


def test_the_file_has_encoder_passes_and_forward_passes_of_the_same_steps(run: Run) -> None:
    encoder, decoder = run.timing("encoder"), run.timing("decoder")
    assert [numbers(row, "items", "tokens", "requests") for row in encoder] == run.oracle["encoded"]
    assert [int(row["tokens"]) for row in decoder] == [tokens for tokens in run.oracle["tokens"] if tokens]
    after = {row["step"]: float(row["timestamp_sec"]) for row in decoder}
    for row in encoder:
        assert float(row["timestamp_sec"]) + float(row["host_ms"]) / 1e3 <= after[row["step"]] + 2e-6
        assert row["duration_ms"] == row["host_ms"] and row["context"] == "audio" and row["graph_hits"] == ""
    assert {row["context"] for row in decoder} <= {"prefill", "decode", "mixed"}


@pytest.mark.parametrize("component", ["encoder", "decoder"])
def test_each_time_is_longer_than_the_models_own_call_and_fits_into_execute_model(run: Run, component: str) -> None:
    """Bounds that hold however long the machine lets a call wait."""
    rows, calls = run.timing(component), run.oracle[f"{component}_calls"]
    assert len(rows) == len(calls) > 0
    for row, (began, ended) in zip(rows, calls, strict=True):
        around_began, around_ended = run.oracle["executed"][int(row["step"]) - 1]
        assert (ended - began) / 1e6 <= float(row["duration_ms"]) + ROUNDING_MS <= (around_ended - around_began) / 1e6


@pytest.mark.parametrize("component", ["encoder", "decoder"])
def test_the_summary_is_that_of_the_rows(run: Run, component: str) -> None:
    times = [float(row["duration_ms"]) for row in run.timing(component)]
    told = run.summary()[component]
    assert told["count"] == told["timed"] == len(times)
    assert told["total_ms"] == pytest.approx(sum(times)) and told["mean_ms"] == pytest.approx(statistics.mean(times))
    assert told["std_ms"] == pytest.approx(statistics.pstdev(times), rel=1e-6)
    assert told["min_ms"] == min(times) and told["max_ms"] == max(times)
    for percent in (50, 95):
        rank = -(-percent * len(times) // 100)
        assert told[f"p{percent}_ms"] == pytest.approx(sorted(times)[rank - 1], rel=1 / 2**8)


def test_the_shares_are_those_of_the_rows(run: Run) -> None:
    sums = {name: sum(float(row["duration_ms"]) for row in run.timing(name)) for name in ("encoder", "decoder")}
    told = run.summary()
    assert told["encoder_pct"] == pytest.approx(100 * sums["encoder"] / sum(sums.values()))
    assert told["decoder_pct"] == pytest.approx(100 - told["encoder_pct"])
    assert told["model_type"] == run.kinds[-1] and told["cross_attention"].startswith("not measured apart")
    assert [told["encoder"][name] for name in ("items", "tokens", "requests")] == [
        sum(column) for column in zip(*run.oracle["encoded"], strict=True)
    ]


def test_steps_without_an_item_are_no_passes(run: Run) -> None:
    """A multimodal model of the V1 runner asks in every step; nothing failed, and warm-up is not counted."""
    hooks = {hook["name"]: hook for hook in run.metadata["hooks"]}
    asked = hooks["v1_encoder.execute"]["calls"] + hooks["v2_encoder.execute"]["calls"]
    assert asked == (3 + 24 if run.kinds[0] == "whisper" else len(run.passes()))
    assert run.metadata["summary"]["health"]["failed"] == [] and run.metadata["faults"] == []
