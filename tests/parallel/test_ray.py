"""vLLM's Ray executors, the older one and V2: workers that no PYTHONPATH reaches record through the installed entry point.

Ray lies in an environment of its own (`make parallel` makes it) and runs in a network namespace that has loopback only.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import environment
import offline_runs
import parallel_runs as runs
import pytest
import streams

pytestmark = [pytest.mark.server, pytest.mark.long]

PYTHON = Path(os.environ.get("PARALLEL_RAY", environment.ROOT / ".venv" / "ray")) / "bin" / "python"
ON_RAY = environment.ROOT / "tests" / "parallel" / "run_on_ray.py"
WORKERS = ["Worker_TP0", "Worker_TP1"]


@pytest.mark.skipif(not PYTHON.exists(), reason="Ray is installed by `make parallel`")
@pytest.mark.skipif(shutil.which("unshare") is None, reason="there is no unshare here to keep Ray on loopback")
@pytest.mark.parametrize("executor", ["0", "1"], ids=["older", "v2"])
def test_ray_workers_take_part_in_the_session_of_the_driver(executor: str, tmp_path: Path, tiny_model: Path) -> None:
    env = environment.vllm(
        PROFILEMATE_ENABLE="1",
        PROFILEMATE_DIR=str(tmp_path / "sessions"),
        VLLM_USE_RAY_V2_EXECUTOR_BACKEND=executor,
    )
    assert "PYTHONPATH" not in env
    prefix = [str(PYTHON), str(ON_RAY), str(tmp_path / "log"), str(PYTHON)]
    arguments = {"tensor_parallel_size": 2, "distributed_executor_backend": "ray"}
    run = offline_runs.run(tmp_path, tiny_model, prefix, env, **arguments)
    assert runs.names(run.session) == ["EngineCore", "LLM", *WORKERS]
    assert [runs.ranks(run.session, name)["tp"] for name in WORKERS] == [0, 1]
    passes = [streams.all_rows(run.session, "forward_passes", name) for name in WORKERS]
    assert [row["unpadded_tokens"] for row in passes[0]] == [row["unpadded_tokens"] for row in passes[1]] != []
    offline_runs.check(run)
