"""Chaos in whole engines with the stand-in for CUDA graphs: the hooks of a worker, on both runners.

One engine of each runner goes through every case while it serves. Engines of their own have everything broken from the
start: captures, warm-up, process identity.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import cases
import environment
import exported
import pytest
import sabotaged
import streams

CHAOS_ENGINE = environment.ROOT / "tests" / "chaos" / "chaos_engine.py"
RUN_ENGINE = environment.ROOT / "tests" / "engine" / "run_engine.py"
COMPILATION = json.dumps(
    {
        "mode": 3,
        "backend": "eager",
        "cudagraph_mode": "FULL_AND_PIECEWISE",
        "cudagraph_capture_sizes": [1, 2, 4, 8, 16, 32],
    }
)
RUNNERS: dict[str, dict[str, str]] = {
    "v1": {},
    "v2": {"VLLM_USE_V2_MODEL_RUNNER": "1", "TRITON_INTERPRET": "1"},
}
CALLED = {
    "v1": {"v1_runner.execute_model", "v1_runner.dispatch", "v1_runner.forward", "graph_wrapper.call"},
    "v2": {
        "v2_runner.execute_model",
        "v2_runner.dispatch",
        "graph_manager.run_fullgraph",
        "graph_manager.run_pw_graph",
    },
}
ENGINES_AT_A_TIME = 2


def standin(folder: Path, runner: str) -> dict[str, str]:
    """Variables of an engine in one process whose graphs are counted in a file."""
    return {
        "STANDIN_GRAPHS": "1",
        "STANDIN_GRAPHS_LOG": str(folder / "truth"),
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        **RUNNERS[runner],
    }


def run(command: list[str], env: dict[str, str]) -> None:
    done = subprocess.run(
        command, env=env, capture_output=True, text=True, timeout=environment.HANGS_SECONDS, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]


def all_cases(folder: Path, model: Path, runner: str) -> dict[str, Any]:
    """Results of every case in one engine."""
    env = environment.vllm(
        PYTHONPATH=str(environment.STANDIN), PROFILEMATE_DIR=str(folder / "sessions"), **standin(folder, runner)
    )
    run([sys.executable, str(CHAOS_ENGINE), str(folder / "out.json"), str(model), COMPILATION], env)
    return dict(json.loads((folder / "out.json").read_text()))


class Life(NamedTuple):
    """A whole engine: what vLLM and the stand-in counted, the handlers that failed, and the session."""

    counted: dict[str, Any]
    broken: list[tuple[int, str]]
    session: Path | None


def whole_life(folder: Path, model: Path, runner: str, sabotage: str) -> Life:
    """One engine; `sabotage` is empty for one without ProfileMate."""
    variables = standin(folder, runner)
    if sabotage:
        env = sabotaged.environ(folder, sabotage, environment.STANDIN, **variables)
    else:
        env = environment.vllm(PYTHONPATH=str(environment.STANDIN), **variables)
    command = [sys.executable, str(RUN_ENGINE), str(folder / "oracle.json"), "--model", str(model)]
    run([*command, "--compilation", COMPILATION, "--rounds", "4"], env)
    counted = json.loads((folder / "oracle.json").read_text())
    del counted["answers"]  # a replay of the stand-in computes nothing
    counted["events"] = [line.split()[1:3] for line in (folder / "truth").read_text().splitlines()]
    if not sabotage:
        return Life(counted, [], None)
    session = streams.only_session(folder / "sessions")
    streams.export(session)
    return Life(counted, sabotaged.broken(folder), session)


LIVES = [
    (runner, sabotage)
    for runner, kinds in {"v1": ("", "before", "after", "rubbish"), "v2": ("", "before", "after")}.items()
    for sabotage in kinds
]


class Engines(NamedTuple):
    """Everything runs two at a time; a test waits for what it needs."""

    cases: dict[str, Future[dict[str, Any]]]
    lives: dict[tuple[str, str], Future[Life]]


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Engines]:
    pool = ThreadPoolExecutor(ENGINES_AT_A_TIME)
    folder = tmp_path_factory.mktemp
    yield Engines(
        {runner: pool.submit(all_cases, folder(runner), tiny_model, runner) for runner in RUNNERS},
        {life: pool.submit(whole_life, folder("life"), tiny_model, *life) for life in LIVES},
    )
    pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("runner", RUNNERS)
def test_whatever_fails_of_ours_steps_and_graphs_are_the_same(runner: str, engines: Engines) -> None:
    results = engines.cases[runner].result()
    assert len(results[""]["worked"]["events"]) > 10
    assert cases.that_differ(results) == []
    assert {hook for hook, state in results["none"]["states"].items() if state["calls"]} >= CALLED[runner]


@pytest.mark.parametrize("runner", RUNNERS)
def test_exactly_the_failing_hooks_are_named_and_off_after_five(runner: str, engines: Engines) -> None:
    broken = cases.of_broken_handlers(engines.cases[runner].result())
    assert {cases.faults(name, case) for name, case in broken.items()} == {""}
    alone = {name.partition(":")[2] for name in broken}
    assert alone >= CALLED[runner]


@pytest.mark.parametrize("runner", RUNNERS)
def test_undoing_restores_every_original_object(runner: str, engines: Engines) -> None:
    profiled = [case for name, case in engines.cases[runner].result().items() if name]
    assert [case["restored"] for case in profiled] == [True] * len(profiled)


@pytest.mark.parametrize(("runner", "sabotage"), [life for life in LIVES if life[1]])
def test_an_engine_broken_from_the_start_captures_and_replays_the_same(
    runner: str, sabotage: str, engines: Engines
) -> None:
    bare, life = engines.lives[runner, ""].result(), engines.lives[runner, sabotage].result()
    assert bare.counted["captured"] > 0
    assert life.counted == bare.counted


@pytest.mark.parametrize(("runner", "sabotage"), [life for life in LIVES if life[1] in ("before", "after")])
def test_its_health_names_every_handler_that_failed(runner: str, sabotage: str, engines: Engines) -> None:
    life = engines.lives[runner, sabotage].result()
    assert life.session is not None and len(set(life.broken)) > 8
    assert sabotaged.unnamed(life.session, life.broken) == []
    assert exported.unreadable(life.session) == []


def test_its_health_names_hooks_that_cannot_read_vllm(engines: Engines) -> None:
    life = engines.lives["v1", "rubbish"].result()
    assert life.session is not None
    assert sabotaged.switched_off(life.session) >= {"scheduler.schedule", "scheduler.update_from_output"}
    assert exported.unreadable(life.session) == []
