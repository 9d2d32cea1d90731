"""MoE routing of a real tiny Qwen3-MoE against what its gates said: eager, under graphs (the stand-in), and compiled."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import environment
import moe_model
import pytest
import streams
import warm

RUN_MOE = environment.ROOT / "tests" / "engine" / "run_moe.py"
ON = {"PROFILEMATE_TRACKERS": "default,moe_routing", "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
GRAPH_SIZES = [1, 2, 4]
Ids = list[list[int]]


class Run(NamedTuple):
    """One engine: the oracle, and the session with its files."""

    oracle: dict[str, Any]
    session: Path
    folder: Path

    def csv(self, name: str) -> list[dict[str, str]]:
        """A file at the top of the session."""
        return list(csv.DictReader((self.session / name).read_text().splitlines()))

    @property
    def metadata(self) -> dict[str, Any]:
        """metadata.json."""
        return dict(json.loads((self.session / "metadata.json").read_text()))

    @property
    def notes(self) -> str:
        """All notes about MoE."""
        return "\n".join(note for note in self.metadata["notes"] if "MoE" in note or "moe" in note)

    def chosen(self, layer: int) -> Iterator[tuple[int, Ids]]:
        """Time and choices of each serving pass that the gate of a layer saw."""
        return ((one["time_ns"], one["ids"]) for one in self.oracle["passes"] if one["layer"] == layer)

    def counts(self, layer: int, after_ns: int = 0, until_ns: int = 1 << 63) -> list[int]:
        """The oracle's choices of each expert in passes between two moments."""
        ids = [ids for time_ns, ids in self.chosen(layer) if after_ns < time_ns <= until_ns]
        found = Counter(expert for rows in ids for row in rows for expert in row)
        return [found[expert] for expert in range(moe_model.EXPERTS)]


def run(folder: Path, base: Path, *options: str, standin: bool = False, **env: str) -> Run:
    """Start an engine and export its session."""
    model = moe_model.write_tiny_moe(base, folder / "model")
    environ = environment.profiled(folder, *([environment.STANDIN] if standin else []), **ON, **env)
    done = warm.run([str(RUN_MOE), str(folder / "out.json"), "--model", str(model), *options], env=environ, cwd=folder)
    assert done.returncode == 0, done.stderr[-3000:]
    session = streams.only_session(folder)
    streams.export(session)
    return Run(json.loads((folder / "out.json").read_text()), session, folder)


@pytest.fixture(scope="module")
def eager(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Run:
    """Without graphs, with pairs, with dummy batches between the rounds."""
    folder = tmp_path_factory.mktemp("moe-eager")
    llm = ("--llm", json.dumps({"enforce_eager": True}))
    return run(folder, tiny_model, "--dummy", "2", *llm, PROFILEMATE_MOE_COSELECTION="1")


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Run:
    """Decode passes replay full graphs of the stand-in, which computes nothing."""
    folder = tmp_path_factory.mktemp("moe-graphs")
    compilation = {"mode": 0, "cudagraph_mode": "FULL_DECODE_ONLY", "cudagraph_capture_sizes": GRAPH_SIZES}
    more = {"STANDIN_GRAPHS": "1", "STANDIN_GRAPHS_LOG": str(folder / "truth")}
    options = ("--spy", "--pause", "0", "--compilation", json.dumps(compilation))
    return run(folder, tiny_model, *options, standin=True, **more)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Run:
    """Torch traces the model, routers and all."""
    folder = tmp_path_factory.mktemp("moe-compiled")
    options = ["--rounds", "0", "--compilation", json.dumps({"mode": 2, "backend": "eager"})]
    options += ["--llm", json.dumps({"hf_overrides": {"num_hidden_layers": 1}})]
    return run(folder, tiny_model, *options, VLLM_CPU_CI_ENV="1")


@pytest.fixture(scope="module")
def counted_in_the_graph(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Run:
    """Compiled as well, with the counting as a part of what is compiled; the load is that of the eager engine."""
    folder = tmp_path_factory.mktemp("moe-traced")
    options = ["--dummy", "2", "--pause", "0", "--compilation", json.dumps({"mode": 2, "backend": "eager"})]
    more = {"PROFILEMATE_MOE_TRACED": "1", "VLLM_CACHE_ROOT": str(folder / "cache"), "VLLM_CPU_CI_ENV": "1"}
    return run(folder, tiny_model, *options, **more)


# -- eager --------------------------------------------------------------------------------------------------------------


def test_every_choice_of_every_layer_is_counted(eager: Run) -> None:
    rows = eager.csv("moe_expert_activations.csv")
    assert len(rows) == len(moe_model.MOE_LAYERS) * moe_model.EXPERTS
    for layer in moe_model.MOE_LAYERS:
        own = [row for row in rows if row["layer_idx"] == str(layer)]
        expected = eager.counts(layer)
        assert [int(row["activation_count"]) for row in own] == expected
        assert [int(row["expert_id"]) for row in own] == list(range(moe_model.EXPERTS))
        shares = [100 * count / sum(expected) for count in expected]
        assert [float(row["percentage"]) for row in own] == pytest.approx(shares, abs=1e-4)
    assert {(row["engine"], row["rank"]) for row in rows} == {("0", "0")}


def test_the_layers_of_the_oracle_differ(eager: Run) -> None:
    """Otherwise a layer taken for another would not show."""
    assert len({tuple(eager.counts(layer)) for layer in moe_model.MOE_LAYERS}) == len(moe_model.MOE_LAYERS)


def test_dummy_batches_ran_the_routers_and_are_not_counted(eager: Run) -> None:
    assert len(eager.oracle["dummies"]) == 3 * 2 * len(moe_model.MOE_LAYERS)
    last = streams.all_rows(eager.session, "moe_counts")[-1]
    passes = list(eager.chosen(moe_model.MOE_LAYERS[0]))
    assert int(last["passes"]) == len(passes)
    assert int(last["tokens"]) == sum(len(ids) for _, ids in passes) > 500
    assert "choices were seen" not in eager.notes


def test_all_pairs_of_a_token_are_counted(eager: Run) -> None:
    expected = Counter(
        (layer, *pair)
        for layer in moe_model.MOE_LAYERS
        for _, ids in eager.chosen(layer)
        for row in ids
        for pair in combinations(sorted(row), 2)
    )
    rows = eager.csv("moe_expert_coselection.csv")
    found = {
        (int(row["layer_idx"]), int(row["expert_id_1"]), int(row["expert_id_2"])): int(row["coselection_count"])
        for row in rows
    }
    assert found == dict(expected) and len(found) == len(rows) > 300


def test_imbalance_over_time_is_numpys(eager: Run) -> None:
    import numpy

    began = json.loads((eager.session / "session.json").read_text())["created_monotonic_ns"]
    rows = eager.csv("moe_load_imbalance.csv")
    for layer in moe_model.MOE_LAYERS:
        own = [row for row in rows if row["layer_idx"] == str(layer)]
        assert len(own) >= 3
        before = 0
        for row in own:
            now = began + round(float(row["timestamp_sec"]) * 1e9)
            counts = numpy.array(eager.counts(layer, before, now))
            before = now
            assert float(row["std_dev"]) == pytest.approx(counts.std(), abs=1e-6)
            assert float(row["max_over_mean"]) == pytest.approx(counts.max() / counts.mean(), abs=1e-6)
            least = counts.min()
            assert float(row["max_min_ratio"]) == pytest.approx(counts.max() / least if least else numpy.inf, abs=1e-6)
            assert int(row["tokens"]) == counts.sum() / moe_model.TOP_K
        assert sum(int(row["tokens"]) for row in own) == sum(len(ids) for _, ids in eager.chosen(layer))


def test_the_summary_of_a_layer(eager: Run) -> None:
    summary = json.loads((eager.session / "moe_summary.json").read_text())
    assert list(summary) == [f"layer_{layer}" for layer in moe_model.MOE_LAYERS]
    counts = eager.counts(2)
    told = summary["layer_2"]
    assert (told["num_experts"], told["top_k"]) == (moe_model.EXPERTS, moe_model.TOP_K)
    assert told["total_activations"] == sum(counts) == told["tokens"] * moe_model.TOP_K
    assert (told["min_activations"], told["max_activations"]) == (min(counts), max(counts))
    assert told["unique_experts_activated"] == sum(count > 0 for count in counts)
    assert told["mean_activations_per_expert"] == sum(counts) / len(counts)
    assert told["load_balance_ratio"] == pytest.approx(max(counts) / min(counts))
    assert told["max_over_mean"] == pytest.approx(max(counts) * len(counts) / sum(counts))
    assert told["seen_pct"] == 100


def test_no_handler_failed(eager: Run, graphs: Run, compiled: Run) -> None:
    for one in (eager, graphs, compiled):
        assert one.metadata["summary"]["health"]["failed"] == []


# -- graphs -------------------------------------------------------------------------------------------------------------


def test_the_counting_is_captured_once_per_layer_and_graph(graphs: Run) -> None:
    """The stand-in's replays compute nothing; a real graph does again what it captured."""
    seen = graphs.oracle["index_adds"][: graphs.oracle["index_adds_at_start"]]
    captured = Counter(place for place, is_captured in seen if is_captured)
    ends = (graphs.folder / "truth").read_text().split().count("end")
    assert ends == len(GRAPH_SIZES)
    assert list(captured.values()) == [ends] * len(moe_model.MOE_LAYERS)


def test_passes_that_ran_are_counted_and_no_warm_up_is(graphs: Run) -> None:
    """Prefills ran eagerly and their choices are the gates'; warm-up passes before the captures added nothing."""
    warm_ups = [place for place, is_captured in graphs.oracle["index_adds"] if not is_captured]
    passes = len(list(graphs.chosen(moe_model.MOE_LAYERS[0])))
    assert len(warm_ups) > passes * len(moe_model.MOE_LAYERS)
    rows = graphs.csv("moe_expert_activations.csv")
    for layer in moe_model.MOE_LAYERS:
        own = [int(row["activation_count"]) for row in rows if row["layer_idx"] == str(layer)]
        assert own == graphs.counts(layer) and sum(own) > 1000


def test_what_no_counting_saw_is_said(graphs: Run) -> None:
    last = streams.all_rows(graphs.session, "moe_counts")[-1]
    expected = int(last["tokens"]) * moe_model.TOP_K
    seen = sum(graphs.counts(3))
    assert seen < expected
    assert f"layer 3: {seen} of {expected} choices were seen" in graphs.notes
    told = json.loads((graphs.session / "moe_summary.json").read_text())["layer_3"]
    assert told["seen_pct"] == pytest.approx(100 * seen / expected, abs=1e-4)


def test_pairs_are_off_unless_asked_for(graphs: Run) -> None:
    assert graphs.csv("moe_expert_coselection.csv") == []
    assert "moe_expert_coselection.csv is empty: pairs of experts are only counted with" in graphs.notes


# -- compiled -----------------------------------------------------------------------------------------------------------


def test_a_compiled_model_says_that_its_routing_was_not_seen(compiled: Run) -> None:
    assert "MoE routing was not seen in 1 MoE layers (CPURouter): torch.compile traces the router" in compiled.notes
    assert compiled.csv("moe_expert_activations.csv") == compiled.csv("moe_load_imbalance.csv") == []
    last = streams.all_rows(compiled.session, "moe_counts")[-1]
    assert int(last["passes"]) > 5 and int(last["tokens"]) > 50 and last["counts"] == ""


def test_nothing_of_ours_is_on_the_router_when_it_is_traced(compiled: Run) -> None:
    hooks = {hook["name"]: hook for hook in compiled.metadata["hooks"]}
    assert hooks["moe_router.ids"]["state"] == "taken_out"
    assert hooks["moe_router.ids"]["calls"] == 0
    assert hooks["moe_worker.load_model"]["calls"] == 1


def test_a_compiled_model_counts_where_that_is_asked_for(eager: Run, counted_in_the_graph: Run) -> None:
    """The same tokens run through the same kernels: the eager engine's gates are the oracle."""
    rows = counted_in_the_graph.csv("moe_expert_activations.csv")
    for layer in moe_model.MOE_LAYERS:
        own = [int(row["activation_count"]) for row in rows if row["layer_idx"] == str(layer)]
        assert own == eager.counts(layer)
    assert "was not seen" not in counted_in_the_graph.notes and "choices were seen" not in counted_in_the_graph.notes
    assert counted_in_the_graph.metadata["summary"]["health"]["failed"] == []


def test_a_graph_that_counts_has_a_compile_cache_of_its_own(counted_in_the_graph: Run) -> None:
    assert [path.name for path in (counted_in_the_graph.folder / "cache").iterdir()] == ["profilemate_moe"]
