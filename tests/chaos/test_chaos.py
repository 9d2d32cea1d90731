"""Our own code made to fail, and vLLM's objects made strange: the server does what it does without us, and health says so."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any, NamedTuple

import cases
import environment
import exported
import pytest
import streams
from pretend_vllm import SERVE

DRIVE = environment.ROOT / "tests" / "chaos" / "chaos_drive.py"


class Chaos(NamedTuple):
    """What every case did, and the session of all of them."""

    cases: dict[str, Any]
    session: Path


@pytest.fixture(scope="module")
def chaos(tmp_path_factory: pytest.TempPathFactory) -> Chaos:
    folder = tmp_path_factory.mktemp("chaos")
    env = environment.vllm(PROFILEMATE_DIR=str(folder / "sessions"))
    command = [sys.executable, str(DRIVE), str(folder / "out.json"), "--requests", "40", "--blocks", "100"]
    done = subprocess.run(
        command, env=env, capture_output=True, text=True, timeout=environment.HANGS_SECONDS, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return Chaos(json.loads((folder / "out.json").read_text()), streams.only_session(folder / "sessions"))


def test_whatever_fails_of_ours_the_scheduler_does_the_same(chaos: Chaos) -> None:
    assert chaos.cases[""]["worked"]["preemptions"] > 0
    assert cases.that_differ(chaos.cases) == []
    assert len(chaos.cases) > 60


def test_exactly_the_failing_hooks_are_named_and_off_after_five(chaos: Chaos) -> None:
    broken = cases.of_broken_handlers(chaos.cases)
    assert {cases.faults(name, case) for name, case in broken.items()} == {""}
    assert {name.partition(":")[0] for name in broken} == {"before", "after"}
    assert len(broken["after:all"]["told"]) > 10


def test_hooks_that_cannot_read_what_they_record_are_named(chaos: Chaos) -> None:
    for kind in ("removed attributes", "raising attributes"):
        assert cases.switched_off(chaos.cases[f"{kind}:all"]) >= {
            "block_pool.get_new_blocks", "block_pool.touch", "block_pool.free_blocks", "scheduler.schedule",
            "scheduler.update_from_output",
        }  # fmt: skip


def test_undoing_restores_every_original_object(chaos: Chaos) -> None:
    profiled = [case for name, case in chaos.cases.items() if name]
    assert [case["restored"] for case in profiled] == [True] * len(profiled)
    assert min(case["hooks"] for case in profiled) > 20


def test_the_files_of_a_session_full_of_rubbish_can_be_read(chaos: Chaos) -> None:
    streams.export(chaos.session)
    assert exported.unreadable(chaos.session) == []
    damaged = {fault.split(":")[0] for fault in exported.broken_streams(chaos.session)}
    assert damaged <= {fault.split(":")[0] for fault in exported.metadata(chaos.session)["faults"]}


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
