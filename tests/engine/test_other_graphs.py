"""Graphs beside the main model's: drafters in real engines, and encoder, micro-batch and sampler graphs driven directly."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import environment
import pytest
import streams
import warm

ENGINE = environment.ROOT / "tests" / "engine"
GRAPHS = {"cudagraph_mode": "FULL_AND_PIECEWISE", "cudagraph_capture_sizes": [1, 2, 4, 8, 16, 32]}
COMPILED = {"mode": 3, "backend": "eager", **GRAPHS}
V2 = {"VLLM_USE_V2_MODEL_RUNNER": "1", "TRITON_INTERPRET": "1"}
ESTIMATE = {"STANDIN_MEMORY_ESTIMATE": "1"}
BREAKABLE = {"VLLM_USE_BREAKABLE_CUDAGRAPH": "1"}
MAIN_PIECES = 5
"""vLLM splits a model at its attention: layers + 1 pieces. The tiny Llama has 4 layers."""


class Setup(NamedTuple):
    """How the engine runs: which drafter, pieces of its model, and whether it always fits the graphs."""

    method: str
    compilation: dict[str, Any]
    env: dict[str, str]
    pieces: int
    always_fits: bool = True


SETUPS = {
    "v1-draft-model": Setup("draft_model", COMPILED, {}, 5, False),
    "v1-eagle": Setup("eagle", COMPILED, ESTIMATE, 2),
    "v1-eagle-breakable": Setup("eagle", GRAPHS, BREAKABLE, 2),
    "v2-eagle": Setup("eagle", COMPILED, {**V2, **ESTIMATE}, 2),
    "v2-eagle-breakable": Setup("eagle", GRAPHS, {**V2, **BREAKABLE}, 2),
}
DRAFT_TOKENS = 2


@pytest.fixture(scope="module")
def drafters(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> dict[str, Path]:
    """A draft model, which is the target again, and an EAGLE head of one layer."""
    eagle = tmp_path_factory.mktemp("drafter") / "tiny-eagle"
    shutil.copytree(tiny_model, eagle)
    config = json.loads((tiny_model / "config.json").read_text())
    config |= {"architectures": ["EagleLlamaForCausalLM"], "num_hidden_layers": 1}
    (eagle / "config.json").write_text(json.dumps(config))
    return {"draft_model": tiny_model, "eagle": eagle}


class Run(NamedTuple):
    """A run: how it was set up, the stand-in's log of events, vLLM's own counts, and the session."""

    setup: Setup | None
    truth: Counter[str]
    oracle: dict[str, Any]
    session: Path

    def rows(self, table: str, **cells: str) -> list[dict[str, str]]:
        """Rows of a table that have these cells."""
        found = streams.all_rows(self.session, table)
        return [row for row in found if all(row[name] == value for name, value in cells.items())]

    def graphs(self, table: str) -> int:
        """Sum of the column `graphs`."""
        return sum(int(row["graphs"]) for row in self.rows(table))


def run_script(folder: Path, script: str, *arguments: str, **env: str) -> Counter[str]:
    """Run a script of this folder under ProfileMate and the stand-in; returns the stand-in's events."""
    environ = environment.profiled(
        folder,
        environment.STANDIN,
        STANDIN_GRAPHS="1",
        STANDIN_GRAPHS_LOG=str(folder / "truth"),
        VLLM_ENABLE_V1_MULTIPROCESSING="0",
        PROFILEMATE_CHECK_REPLAYS="1",
        **env,
    )
    command = [str(ENGINE / script), *arguments]
    done = warm.run(command, env=environ)
    assert done.returncode == 0, done.stderr[-3000:]
    return Counter(line.split()[1] for line in (folder / "truth").read_text().splitlines())


@pytest.fixture(scope="module", params=list(SETUPS))
def run(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    tiny_model: Path,
    drafters: dict[str, Path],
) -> Run:
    setup = SETUPS[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    drafter = {
        "method": setup.method,
        "model": str(drafters[setup.method]),
        "num_speculative_tokens": DRAFT_TOKENS,
    }
    arguments = ["--model", str(tiny_model), "--compilation", json.dumps(setup.compilation)]
    arguments += ["--llm", json.dumps({"speculative_config": drafter})]
    truth = run_script(folder, "run_engine.py", str(folder / "oracle.json"), *arguments, **setup.env)
    return Run(setup, truth, json.loads((folder / "oracle.json").read_text()), streams.only_session(folder))


def check_counts(run: Run) -> None:
    """Captures and replays of the stand-in, each accounted for once."""
    assert run.truth["begin"] == run.truth["end"] == run.graphs("graph_captures") > 0
    phases = {row["phase"]: row for row in run.rows("graph_phases")}
    assert all(row["actual"] == row["explained"] for row in phases.values())
    not_serving = sum(int(row["explained"]) for name, row in phases.items() if name != "serving")
    serving = run.graphs("forward_passes") + run.graphs("graph_other_replays")
    assert serving == int(phases["serving"]["explained"])
    assert serving + not_serving == run.truth["replay"]


def check_hooks(run: Run) -> None:
    assert run.rows("health") and all(row["failures"] == "0" for row in run.rows("health"))


def key(row: dict[str, str]) -> tuple[str, ...]:
    """Whose graph, and which."""
    return (row["owner"], *streams.descriptor(row))


# -- drafters in real engines -------------------------------------------------------------------------------------------


def test_every_capture_and_every_replay_is_counted_once(run: Run) -> None:
    check_counts(run)
    check_hooks(run)
    assert run.graphs("graph_other_replays") > 0


def test_captures_of_the_drafter_are_apart_from_the_models(run: Run) -> None:
    assert run.setup is not None
    for purpose in {row["purpose"] for row in run.rows("graph_captures")}:
        captures = run.rows("graph_captures", purpose=purpose)
        assert len({key(row) for row in captures}) == len(captures)
        assert {row["owner"] for row in captures} == {"main", "drafter"}
    pieces = {
        owner: {row["graphs"] for row in run.rows("graph_captures", owner=owner, runtime_mode="PIECEWISE")}
        for owner in ("main", "drafter")
    }
    assert pieces == {"main": {str(MAIN_PIECES)}, "drafter": {str(run.setup.pieces)}}


def test_estimate_captures_of_both_models_are_apart(run: Run) -> None:
    assert run.setup is not None
    expected = {"serving", "estimate"} if "STANDIN_MEMORY_ESTIMATE" in run.setup.env else {"serving"}
    assert {row["purpose"] for row in run.rows("graph_captures")} == expected


def test_a_drafters_pass_is_one_row_with_all_its_pieces(run: Run) -> None:
    captured = {key(row): row["graphs"] for row in run.rows("graph_captures", purpose="serving")}
    for row in run.rows("graph_other_replays"):
        assert row["owner"] == "drafter"
        assert row["graphs"] == captured[key(row)]


def test_a_step_has_as_many_draft_passes_as_draft_tokens(run: Run) -> None:
    """The first pass reads the step's tokens, each other one a token per request."""
    assert run.setup is not None
    passes = Counter(row["step"] for row in run.rows("graph_other_replays"))
    decode_steps = [row["step"] for row in run.rows("forward_passes", runtime_mode="FULL")]
    assert len(decode_steps) > 5
    if run.setup.always_fits:
        assert {passes[step] for step in decode_steps} == {DRAFT_TOKENS}
    else:
        assert {passes[step] for step in decode_steps} <= set(range(1, DRAFT_TOKENS + 1))


def test_the_main_models_passes_are_still_vllms_own(run: Run) -> None:
    ours = [
        [row["runtime_mode"], int(row["unpadded_tokens"]), int(row["num_tokens"])] for row in run.rows("forward_passes")
    ]
    assert ours == run.oracle["stats"]
    captured = {key(row): row["graphs"] for row in run.rows("graph_captures", purpose="serving")}
    for row in run.rows("forward_passes"):
        assert row["fault"] == ""
        if row["runtime_mode"] != "NONE":
            assert row["graphs"] == captured[("main", *streams.descriptor(row))]


def test_the_export_shows_the_drafters_passes(run: Run) -> None:
    """Replays per owner in the summary's data: passes, not pieces."""
    code = (
        "import json, sys; from pathlib import Path; from profilemate.session.session import Session;"
        "from profilemate.trackers.cuda_graphs.analyze import analyze; s = analyze(Session(Path(sys.argv[1])));"
        "print(json.dumps([[u.owner, u.replays, u.pieces] for u in s.others]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(run.session)],
        cwd=environment.ROOT,
        env=environment.clean(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    others = json.loads(done.stdout)
    assert {owner for owner, _, _ in others} == {"drafter"}
    assert sum(replays for _, replays, _ in others) == len(run.rows("graph_other_replays"))
    assert sum(pieces for _, _, pieces in others) == run.graphs("graph_other_replays")


# -- driven directly ----------------------------------------------------------------------------------------------------


def drive(folder: Path, name: str) -> Run:
    truth = run_script(folder, "drive_other_graphs.py", name)
    run = Run(None, truth, {}, streams.only_session(folder))
    check_hooks(run)
    return run


def cells(rows: list[dict[str, str]], *names: str) -> list[tuple[str, ...]]:
    return [tuple(row[name] for name in names) for row in rows]


def test_encoder_graphs(tmp_path: Path) -> None:
    run = drive(tmp_path, "encoder")
    captures = run.rows("graph_captures")
    assert cells(captures, "owner", "runtime_mode", "num_tokens", "graphs", "purpose") == [
        ("encoder", "FULL", budget, "1", "serving") for budget in ("16", "8", "4")
    ]
    assert all(row["site"] == "EncoderCudaGraphManager" and int(row["duration_ns"]) > 0 for row in captures)
    replays = run.rows("graph_other_replays")
    assert cells(replays, "step", "owner", "num_tokens", "graphs") == [
        ("1", "encoder", "8", "1"),
        ("2", "encoder", "4", "1"),
        ("3", "encoder", "16", "1"),
    ]
    assert {key(row) for row in replays} == {key(row) for row in captures}
    assert run.truth["end"] == run.truth["replay"] == 3
    assert run.rows("graph_phases")[-1]["actual"] == run.rows("graph_phases")[-1]["explained"] == "3"


def test_micro_batch_graphs(tmp_path: Path) -> None:
    run = drive(tmp_path, "ubatch")
    check_counts(run)
    assert cells(run.rows("graph_captures"), "purpose", "owner", "runtime_mode", "num_tokens", "site") == [
        ("serving", "microbatch", "FULL", "8", "UBatchWrapper"),
        ("serving", "main", "FULL", "4", "CUDAGraphWrapper"),
        ("serving", "main", "PIECEWISE", "16", "CUDAGraphWrapper"),
        ("lazy", "microbatch", "FULL", "12", "UBatchWrapper"),
    ]
    assert cells(run.rows("forward_passes"), "runtime_mode", "num_tokens", "graphs", "fault") == [
        ("FULL", "8", "1", ""),
        ("FULL", "4", "1", ""),
        ("FULL", "8", "0", "not_replayed"),
        ("PIECEWISE", "16", "0", "not_replayed"),
        ("PIECEWISE", "16", "1", ""),
        ("FULL", "12", "0", "lazy_capture"),
        ("NONE", "6", "0", ""),
    ]
    assert cells(run.rows("graph_other_replays"), "step", "owner", "num_tokens", "graphs", "site") == [
        ("7", "microbatch", "8", "1", "UBatchWrapper")
    ]
    assert {row["phase"] for row in run.rows("graph_phases")} == {"dummy", "serving"}


def test_gemma4_sampler_graphs(tmp_path: Path) -> None:
    run = drive(tmp_path, "gemma4")
    captures = sorted(run.rows("graph_captures"), key=lambda row: int(row["time_ns"]))
    sizes = ("1", "2", "4", "8", "16", "32", "64")
    assert cells(captures, "purpose", "owner", "num_tokens", "graphs", "site") == [
        ("serving", "drafter", size, "1", "Gemma4Proposer") for size in sizes
    ]
    assert run.truth["end"] == len(sizes) + 1  # and the stray one
    assert cells(run.rows("graph_other_replays"), "owner", "num_tokens", "site") == [
        ("drafter", size, "Gemma4Proposer") for size in ("4", "64", "1")
    ]
    assert run.truth["replay"] == 3
    assert run.rows("graph_phases")[-1]["actual"] == run.rows("graph_phases")[-1]["explained"] == "3"
