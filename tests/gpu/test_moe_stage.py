"""The GPU check's MoE stage on the CPU stand-in for CUDA graphs, whose replays compute nothing.

One engine under graphs is judged as both sides: its gates only saw what ran eagerly, and so did our counter. What a GPU's
replays add to our rows is put there by hand.
"""

from __future__ import annotations

import csv
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import environment
import moe_model
import pytest
import streams
from gpu_check import stages
from gpu_check.compare import Check
from gpu_check.stages import STAGES, Sides, Target
from gpu_check.surroundings import Run, Surroundings, load_run

STANDIN_ENGINE = environment.ROOT / "tests" / "gpu" / "standin_engine.py"
STAGE = STAGES["moe"]._replace(modes=("FULL",))
TOTALS = {"moe_totals_graphs", "moe_totals_eager"}
COUNTS = "counts"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Run:
    """The engine under graphs."""
    work = tmp_path_factory.mktemp("gpu-check-moe")
    target = Target(
        wide_model=tiny_model,
        small_model=tiny_model,
        moe_model=moe_model.write_tiny_moe(tiny_model, work / "model"),
        vocabulary=4096,
        llm={"gpu_memory_utilization": 0.3, "block_size": 32, "num_gpu_blocks_override": 90, "dtype": "float32"},
        compilation={"mode": 0, "cudagraph_mode": "FULL_DECODE_ONLY", "cudagraph_capture_sizes": [1, 2, 4, 8, 16]},
        batch=3,
    )
    patch = pytest.MonkeyPatch()
    patch.setenv("PYTHONPATH", str(environment.STANDIN))
    try:
        more = environment.vllm(STANDIN_GRAPHS="1", STANDIN_GRAPHS_LOG=str(work / "truth"))
        more = {name: value for name, value in more.items() if name.startswith(("VLLM_", "STANDIN_", "OMP_"))}
        around = Surroundings(work, work / "cache", time.monotonic() + 280, (sys.executable, str(STANDIN_ENGINE)), more)
        spec = stages.moe_specification(STAGE, target, eager=False)
        return around.run("moe-graphs", spec, True, {**STAGE.env, **stages.moe.ON})
    finally:
        patch.undo()


@pytest.fixture
def copy(run: Run, tmp_path: Path) -> Run:
    """The run in a folder of its own, to be changed."""
    shutil.copytree(run.folder, tmp_path / "run")
    return load_run(tmp_path / "run")


def judged(graphs: Run, eager: Run) -> dict[str, Check]:
    return {check.name: check for check in STAGE.judge(STAGE, Sides([graphs], [eager]))}


def failing(graphs: Run, eager: Run) -> set[str]:
    return {name for name, check in judged(graphs, eager).items() if check.holds is False}


def change_counts(run: Run, change: Callable[[int, list[int]], list[int]]) -> None:
    """Write other counts into the newest row of each layer."""
    (process,) = streams.processes(streams.only_session(run.sessions))
    path = process / "moe_counts.csv"
    header, *rows = csv.reader(path.read_text().splitlines())
    layer, counts = header.index("layer_idx"), header.index(COUNTS)
    for row in rows[-len(moe_model.MOE_LAYERS) :]:
        row[counts] = " ".join(map(str, change(int(row[layer]), list(map(int, row[counts].split())))))
    path.write_text("".join(",".join(row) + "\n" for row in [header, *rows]))


def as_if_replayed(run: Run) -> None:
    """Give the first expert what the stand-in's replays did not count."""
    expected = run.result["tokens"] * moe_model.TOP_K
    change_counts(run, lambda layer, counts: [counts[0] + expected - sum(counts), *counts[1:]])


def test_only_what_replays_should_have_counted_is_missing(run: Run) -> None:
    checks = judged(run, run)
    assert failing(run, run) == TOTALS, {name: check.says for name, check in checks.items()}
    assert checks["moe_gates"].numbers == {"layers": list(moe_model.MOE_LAYERS), "differing_share": 0.0}
    assert checks["coverage"].numbers["FULL"] > 20
    wrong = checks["moe_totals_graphs"].numbers
    assert all(0 < total < wrong["expected"] for total in wrong["wrong"].values())


def test_a_counter_that_is_replayed_holds_and_must_agree_with_the_eager_engine(run: Run, copy: Run) -> None:
    as_if_replayed(copy)
    assert failing(copy, run) == {"moe_totals_eager", "moe_graphs_against_eager"}
    assert judged(copy, copy)["moe_graphs_against_eager"].numbers["differing_share"] == 0


def test_padding_that_is_counted_fails_the_totals(copy: Run) -> None:
    as_if_replayed(copy)
    assert not failing(copy, copy) & TOTALS
    change_counts(copy, lambda layer, counts: [*counts[:-1], counts[-1] + (layer == 2)])
    assert failing(copy, copy) >= TOTALS
    assert list(judged(copy, copy)["moe_totals_graphs"].numbers["wrong"]) == [2]


def test_layers_that_are_taken_for_each_other_fail_against_the_gates(run: Run, copy: Run) -> None:
    own: dict[int, list[int]] = {}
    change_counts(copy, lambda layer, counts: own.setdefault(layer, counts))
    change_counts(copy, lambda layer, counts: own[{0: 2, 2: 0}.get(layer, layer)])
    assert failing(run, copy) == {*TOTALS, "moe_gates", "moe_graphs_against_eager"}


def test_the_eager_side_has_no_graphs(run: Run) -> None:
    target = replace(Target(Path(), Path(), 1, {}, {"cudagraph_mode": "FULL"}), moe_model=Path("moe"))
    eager = stages.moe_specification(STAGES["moe"], target, eager=True)
    assert eager["compilation"] == {} and eager["llm"]["enforce_eager"] is True and eager["model"] == "moe"
