"""Whole processes with a small pretence of vLLM: started by two ways at once, and names bound before ProfileMate came."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import environment
import streams
from pretend_vllm import SERVE

START_LINE = "[sitecustomize] vLLM Comprehensive Instrumentation Loaded"

TWO_WAYS = f"""
import profilemate.plugin as plugin, profilemate.boot as boot, sitecustomize
plugin.register()
import vllm.v1.core.block_pool as pool
once = pool.BlockPool.get_new_blocks
plugin.register(); boot.start(sitecustomize.ProfilingConfig, sitecustomize.__file__); plugin.register()
assert pool.BlockPool.get_new_blocks is once and hasattr(once, "profilemate_hook")
{SERVE}
"""

BOUND_EARLIER = f"""
import sys, time
import vllm.engine.arg_utils as a, vllm.v1.core.block_pool as pool, vllm.v1.core.sched.scheduler as s
class Own(pool.BlockPool):
    free_blocks = pool.BlockPool.free_blocks
s.BlockPool = Own
sys.path.insert(0, {str(environment.ROOT)!r})
import profilemate.plugin as plugin
plugin.register()
a.EngineArgs()
scheduler = s.Scheduler()
for pause in (0, 0, 1.2, 0):  # calls are reported once a second
    time.sleep(pause)
    scheduler.update_from_output(scheduler.schedule(), None)
"""


def python(code: str, folder: Path, *path: Path) -> subprocess.CompletedProcess[str]:
    env = environment.clean() | {
        "PYTHONPATH": os.pathsep.join(map(str, path)), "PROFILEMATE_DIR": str(folder), "PROFILEMATE_ENABLE": "1",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=env,
        capture_output=True,
        text=True,
        timeout=environment.HANGS_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


def test_two_ways_in_record_each_call_once(tmp_path: Path, vllm: Path) -> None:
    done = python(TWO_WAYS, tmp_path / "p", environment.ROOT, vllm)
    assert done.stderr.count(START_LINE) == 1 and done.stdout == ""
    rows = streams.all_rows(streams.only_session(tmp_path / "p"), "engine_steps")
    assert [(row["step"], row["allocated"], row["freed"]) for row in rows] == [
        (str(n), str(3 * n), str(3 * n)) for n in range(1, 5)
    ]


def test_a_function_bound_before_us_is_missed_and_its_hook_is_named(tmp_path: Path, vllm: Path) -> None:
    """Usage stays exact, since it is read from the pool; what only the missed calls tell stays zero, and that is said."""
    python(BOUND_EARLIER, tmp_path / "p", vllm)
    session = streams.only_session(tmp_path / "p")
    streams.export(session)
    rows = streams.all_rows(session, "engine_steps")
    assert [(row["allocated"], row["freed"], row["in_use"]) for row in rows] == [
        (str(3 * n), "0", "0") for n in range(1, 5)
    ]
    hooks: list[dict[str, Any]] = json.loads((session / "metadata.json").read_text())["hooks"]
    calls = {hook["name"]: hook["calls"] for hook in hooks if hook["state"] == "put_in"}
    assert calls["block_pool.get_new_blocks"] > 0 and calls["block_pool.free_blocks"] == 0
    command = [sys.executable, "-m", "profilemate", "summary", str(session)]
    done = subprocess.run(
        command,
        cwd=environment.ROOT,
        env=environment.clean(),
        capture_output=True,
        text=True,
        timeout=environment.HANGS_SECONDS,
        check=True,
    )
    (said,) = [line for line in done.stdout.splitlines() if "never called" in line]
    assert "block_pool.free_blocks" in said
