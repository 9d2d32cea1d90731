"""A worker whose wrapper's methods no hook reaches, as in an actor of vLLM's older Ray executor: without Ray, in a second.

`make parallel` shows the same with Ray itself.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import environment
import parallel_runs as runs
import pytest
import streams
from pretend_vllm import PRETEND_VLLM, Write

WORKER = {
    "vllm/distributed/__init__.py": "",
    "vllm/distributed/parallel_state.py": """
        from types import SimpleNamespace
        def get_tp_group():
            return SimpleNamespace(rank_in_group=1, world_size=2)
        """,
    "vllm/v1/worker/__init__.py": "",
    "vllm/v1/worker/worker_base.py": """
        class WorkerWrapperBase:
            def init_device(self):
                self.worker.init_device()
        """,
    "vllm/v1/worker/gpu_worker.py": """
        import vllm.distributed.parallel_state
        class Worker:
            rank = local_rank = 1
            def init_device(self):
                pass
            def determine_available_memory(self):
                return 0
            def compile_or_warm_up_model(self):
                return 0
            def execute_dummy_batch(self):
                pass
        """,
}
ACTOR = """
from vllm.v1.worker.worker_base import WorkerWrapperBase
copies = {name: value for name, value in vars(WorkerWrapperBase).items() if name == "init_device"}
Actor = type("Actor", (WorkerWrapperBase,), copies)
from profilemate.plugin import register
register()
from vllm.v1.worker.gpu_worker import Worker
actor = Actor()
actor.worker = Worker()
actor.init_device()
for method in METHODS:
    getattr(actor.worker, method)()
from profilemate.probe import phase
from profilemate.probe.install import states
assert phase.is_serving(), phase.STACK
assert not [name for name, state in states.items() if state.failures]
"""
"""Ray copies the inherited methods before the worker loads its plugins."""

SESSION = "session_20260101_000000"


@pytest.mark.parametrize(
    "methods",
    [
        ("determine_available_memory", "compile_or_warm_up_model"),
        ("compile_or_warm_up_model",),
        ("execute_dummy_batch",),
    ],
)
def test_the_worker_joins_under_its_rank_at_the_first_phase(
    tmp_path: Path, write: Write, methods: tuple[str, ...]
) -> None:
    pretend = write(PRETEND_VLLM | WORKER, "pretend")
    sessions = tmp_path / "sessions"
    env = environment.clean() | {
        "PYTHONPATH": str(pretend),
        "PROFILEMATE_DIR": str(sessions),
        "PROFILEMATE_ENABLE": "1",
        "PROFILEMATE_SESSION": str(sessions / SESSION),
        "PROFILEMATE_SESSION_OWNER": "1",
    }
    code = ACTOR.replace("METHODS", repr(methods))
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, cwd=tmp_path, capture_output=True, text=True,
        timeout=environment.HANGS_SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    session = streams.only_session(sessions)
    assert session.name == SESSION
    assert runs.names(session) == ["Worker_TP1"]
    assert {name: runs.ranks(session, "Worker_TP1")[name] for name in ("tp", "tp_size", "rank")} == {
        "tp": 1, "tp_size": 2, "rank": 1,
    }  # fmt: skip
