"""An offline `LLM` with processes that are spawned or forked, and with all in one process."""

from __future__ import annotations

import sys
from pathlib import Path

import environment
import offline_runs
import parallel_runs as runs
import pytest

pytestmark = pytest.mark.server

SEVERAL = ["EngineCore", "LLM", "Worker"]
MODES = {
    "spawn": ({"VLLM_WORKER_MULTIPROC_METHOD": "spawn"}, "SyncMPClient", SEVERAL),
    "fork": ({"VLLM_WORKER_MULTIPROC_METHOD": "fork"}, "SyncMPClient", SEVERAL),
    "in-process": ({"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}, "InprocClient", ["LLM"]),
}


@pytest.mark.parametrize(
    "mode", [pytest.param("spawn", marks=pytest.mark.long), "fork", pytest.param("in-process", marks=pytest.mark.long)]
)
def test_one_session_whatever_makes_the_processes(mode: str, tmp_path: Path, tiny_model: Path) -> None:
    more, client, names = MODES[mode]
    env = environment.profiled(tmp_path / "sessions", **more)
    run = offline_runs.run(tmp_path, tiny_model, [sys.executable], env)
    assert run.client == client
    assert runs.names(run.session) == names
    offline_runs.check(run)
