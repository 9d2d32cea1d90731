"""Our own code made to fail, and vLLM's objects made strange: the server does what it does without us, and health says so."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import environment
import pytest
import streams
from pretend_vllm import SERVE

DRIVE = environment.ROOT / "tests" / "chaos" / "chaos_drive.py"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("chaos")
    env = environment.vllm(PROFILEMATE_DIR=str(folder / "sessions"))
    command = [sys.executable, str(DRIVE), str(folder / "out.json"), "--requests", "60", "--blocks", "150"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(json.loads((folder / "out.json").read_text()))


def test_with_any_hook_failing_the_scheduler_does_the_same(results: dict[str, Any]) -> None:
    bare = results[""]["summary"]
    assert bare["preemptions"] > 0
    assert {case for case, result in results.items() if result["summary"] != bare} == set()
    assert len(results) > 12


def test_the_failing_hook_is_named_and_off_after_five(results: dict[str, Any]) -> None:
    for case, result in results.items():
        failed = {name for name, state in result["states"].items() if state["failures"]}
        called = {name for name, state in result["states"].items() if state["calls"]}
        expected = called if case == "all" else {case} & called
        expected -= {n for n in expected if n == "kv_cache_manager.allocate_slots" and n not in failed}
        assert failed == expected, case
        for name in failed:
            state = result["states"][name]
            assert state["failures"] <= 5 and "made to fail" in state["reason"]
            assert (state["state"] == "switched_off") == (state["failures"] == 5)


def test_undoing_restores_every_original_object(results: dict[str, Any]) -> None:
    for case, result in results.items():
        assert result["restored"], case
        assert bool(case) == (result["hooks"] > 20)


STRANGE = {
    "no manager": "s.Scheduler.__init__ = lambda self: setattr(self, 'requests', {})",
    "free count is text": "p.BlockPool.get_num_free_blocks = lambda self: 'many'",
    "blocks without ids": "p.Block.__init__ = lambda self, n: vars(self).update(ref_cnt=0, block_hash=None, is_null=n == 0)",
    "no free count": "del p.BlockPool.get_num_free_blocks",
    "output is None": "s.Scheduler.schedule = lambda self: None",
    "slots without weak references": "p.BlockPool = type('BlockPool', (), {'__slots__': ()})",
}


@pytest.mark.parametrize("case", STRANGE)
def test_strange_objects_fail_alike_with_and_without_us(case: str, tmp_path: Path, vllm: Path) -> None:
    code = SERVE.replace("s.run(4)", "")
    code = textwrap.dedent(
        f"""
        import vllm.engine.arg_utils as a, vllm.v1.core.block_pool as p, vllm.v1.core.sched.scheduler as s
        a.EngineArgs()
        {STRANGE[case]}
        try:
            s.run(7)
            print("served")
        except Exception as error:
            print(type(error).__name__, error)
        """
    )
    outcomes = []
    for path in ([environment.ROOT, vllm], [vllm]):
        env = environment.clean() | {
            "PYTHONPATH": ":".join(map(str, path)),
            "PROFILEMATE_DIR": str(tmp_path / "p"),
        }
        done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
        outcomes.append((done.returncode, done.stdout))
    assert outcomes[0] == outcomes[1]
    assert streams.only_session(tmp_path / "p")
