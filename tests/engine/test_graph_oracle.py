"""Real engines with the CPU stand-in for CUDA graphs: captures, replays and dispatches against vLLM's own counts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import environment
import pytest
import streams
import warm

RUN_ENGINE = environment.ROOT / "tests" / "engine" / "run_engine.py"
SIZES = [1, 2, 4, 8, 16, 32]
COMPILED = {"mode": 3, "backend": "eager", "cudagraph_capture_sizes": SIZES}
BREAKABLE = {"cudagraph_capture_sizes": SIZES}
V2 = {"VLLM_USE_V2_MODEL_RUNNER": "1", "TRITON_INTERPRET": "1"}
ESTIMATE = {"STANDIN_MEMORY_ESTIMATE": "1"}
BREAKABLE_ENV = {"VLLM_USE_BREAKABLE_CUDAGRAPH": "1"}


class Configuration(NamedTuple):
    """How the engine runs, and whether vLLM's own counter counts its captures."""

    compilation: dict[str, Any]
    env: dict[str, str]
    counted: bool = True


CONFIGURATIONS = {
    "v1-full-and-piecewise": Configuration({**COMPILED, "cudagraph_mode": "FULL_AND_PIECEWISE"}, ESTIMATE),
    "v1-full-decode-only": Configuration({**COMPILED, "cudagraph_mode": "FULL_DECODE_ONLY"}, {}),
    "v1-piecewise": Configuration({**COMPILED, "cudagraph_mode": "PIECEWISE"}, {}),
    "v1-breakable": Configuration({**BREAKABLE, "cudagraph_mode": "FULL_AND_PIECEWISE"}, BREAKABLE_ENV, False),
    "v2-full-and-piecewise": Configuration({**COMPILED, "cudagraph_mode": "FULL_AND_PIECEWISE"}, {**V2, **ESTIMATE}),
    "v2-full-decode-only": Configuration({**COMPILED, "cudagraph_mode": "FULL_DECODE_ONLY"}, V2),
    "v2-piecewise": Configuration({**COMPILED, "cudagraph_mode": "PIECEWISE"}, V2),
    "v2-breakable": Configuration(
        {**BREAKABLE, "cudagraph_mode": "FULL_AND_PIECEWISE"}, {**V2, **BREAKABLE_ENV}, False
    ),
}


class Run(NamedTuple):
    """One engine run: vLLM's own counts, the stand-in's log, and the session."""

    configuration: Configuration
    oracle: dict[str, Any]
    truth: list[str]
    session: Path

    def rows(self, table: str) -> list[dict[str, str]]:
        """All rows of a table."""
        return streams.all_rows(self.session, table)


def command(folder: Path, model: Path, configuration: Configuration, *more: str) -> list[str]:
    """The script and its arguments."""
    compilation = json.dumps(configuration.compilation)
    return [str(RUN_ENGINE), str(folder / "oracle.json"), "--model", str(model), "--compilation", compilation, *more]


def run_alone(folder: Path, model: Path, env: dict[str, str], *more: str) -> subprocess.CompletedProcess[str]:
    """An eager engine in a Python of its own, from its start to its end."""
    script = command(folder, model, Configuration({}, {}), "--llm", '{"enforce_eager": true}', *more)
    return subprocess.run(
        [sys.executable, *script],
        env=env, capture_output=True, text=True, timeout=environment.HANGS_SECONDS, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module", params=list(CONFIGURATIONS))
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Run:
    configuration = CONFIGURATIONS[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    env = environment.profiled(
        folder,
        environment.STANDIN,
        STANDIN_GRAPHS="1",
        STANDIN_GRAPHS_LOG=str(folder / "truth"),
        VLLM_ENABLE_V1_MULTIPROCESSING="0",
        PROFILEMATE_CHECK_REPLAYS="1",
        **configuration.env,
    )
    done = warm.run(command(folder, tiny_model, configuration), env)
    assert done.returncode == 0, done.stderr[-3000:]
    truth = [line.split()[1] for line in (folder / "truth").read_text().splitlines()]
    oracle = json.loads((folder / "oracle.json").read_text())
    return Run(configuration, oracle, truth, streams.only_session(folder))


def test_captures_equal_the_stand_ins_and_vllms_own_count(run: Run) -> None:
    captures = run.rows("graph_captures")
    assert sum(int(row["graphs"]) for row in captures) == run.truth.count("end")
    if run.configuration.counted:
        serving = [row for row in captures if row["purpose"] == "serving"]
        assert sum(int(row["graphs"]) for row in serving) == run.oracle["captured"]


def test_estimate_captures_are_apart(run: Run) -> None:
    purposes = {row["purpose"] for row in run.rows("graph_captures")}
    estimated = "STANDIN_MEMORY_ESTIMATE" in run.configuration.env
    assert purposes == ({"serving", "estimate"} if estimated else {"serving"})


def test_no_descriptor_is_captured_twice(run: Run) -> None:
    serving = [streams.descriptor(row) for row in run.rows("graph_captures") if row["purpose"] == "serving"]
    assert len(serving) == len(set(serving))


def test_dispatch_rows_equal_vllms_cudagraph_stats_one_by_one(run: Run) -> None:
    ours = [
        [row["runtime_mode"], int(row["unpadded_tokens"]), int(row["num_tokens"])] for row in run.rows("forward_passes")
    ]
    assert ours == run.oracle["stats"]
    assert {mode for mode, _, _ in ours} >= {"NONE"}


def test_replays_equal_the_stand_ins_count(run: Run) -> None:
    serving = sum(int(row["graphs"]) for row in run.rows("forward_passes"))
    other = sum(int(row["graphs"]) for row in run.rows("graph_other_replays"))
    phases = {row["phase"]: row for row in run.rows("graph_phases")}
    not_serving = sum(int(row["explained"]) for phase, row in phases.items() if phase != "serving")
    assert serving + other + not_serving == run.truth.count("replay")
    assert serving > 0


def test_check_mode_finds_every_replay_explained(run: Run) -> None:
    phases = {row["phase"]: row for row in run.rows("graph_phases")}
    assert phases["serving"]["actual"] == phases["serving"]["explained"] != "0"
    assert all(row["actual"] == row["explained"] for row in phases.values())


def test_every_replayed_descriptor_was_captured(run: Run) -> None:
    captured = {streams.descriptor(row) for row in run.rows("graph_captures") if row["purpose"] == "serving"}
    replayed = {streams.descriptor(row) for row in run.rows("forward_passes") if row["runtime_mode"] != "NONE"}
    assert replayed <= captured


def test_pieces_of_a_pass_are_those_captured(run: Run) -> None:
    pieces = {
        streams.descriptor(row): row["graphs"] for row in run.rows("graph_captures") if row["purpose"] == "serving"
    }
    for row in run.rows("forward_passes"):
        if row["runtime_mode"] != "NONE":
            assert row["graphs"] == pieces[streams.descriptor(row)]
            assert row["fault"] == ""


def test_each_pass_has_its_step_and_time(run: Run) -> None:
    rows = run.rows("forward_passes")
    assert [int(row["forward"]) for row in rows] == list(range(1, len(rows) + 1))
    assert all(int(row["host_ns"]) > 0 and row["clock"] == "monotonic" for row in rows)
    steps = [int(row["step"]) for row in rows]
    assert steps == [number for number, tokens in enumerate(run.oracle["steps"], 1) if tokens]
    assert [int(row["tokens"]) for row in rows] == [tokens for tokens in run.oracle["steps"] if tokens]


def test_engine_steps_equal_the_schedulers(run: Run) -> None:
    assert int(run.rows("engine_steps")[-1]["step"]) == len(run.oracle["steps"])


def test_no_hook_failed(run: Run) -> None:
    assert [row for row in run.rows("health") if row["failures"] != "0"] == []
    (process,) = streams.processes(run.session)
    states = {hook["state"] for hook in streams.record(process)["hooks"]}
    assert states <= {"put_in", "waiting", "not_in_this_version", "tracker_off"}


def test_answers_are_those_of_a_run_without_profilemate(tmp_path: Path, tiny_model: Path) -> None:
    """Real tokens: no stand-in, eager, with and without."""
    answers, codes = [], []
    for name, env in (("bare", environment.vllm()), ("profiled", environment.profiled(tmp_path / "sessions"))):
        folder = tmp_path / name
        folder.mkdir()
        env["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        done = run_alone(folder, tiny_model, env)
        codes.append(done.returncode)
        answers.append(json.loads((folder / "oracle.json").read_text())["answers"])
    assert codes == [0, 0]
    assert answers[0] == answers[1]


ENDINGS = {"normal": 0, "raise": 1, "os_exit": 7}


@pytest.mark.parametrize("ending", ENDINGS)
def test_an_offline_script_leaves_every_step_however_it_ends(tmp_path: Path, tiny_model: Path, ending: str) -> None:
    env = environment.profiled(tmp_path / "sessions", VLLM_ENABLE_V1_MULTIPROCESSING="0")
    done = run_alone(tmp_path, tiny_model, env, "--end", ending)
    assert done.returncode == ENDINGS[ending], done.stderr[-2000:]
    oracle = json.loads((tmp_path / "oracle.json").read_text())
    session = streams.only_session(tmp_path / "sessions")
    assert int(streams.all_rows(session, "engine_steps")[-1]["step"]) == len(oracle["steps"])
    assert len(streams.all_rows(session, "forward_passes")) == len(oracle["stats"])
    streams.export(session)
    assert streams.missing_files(session) == []
