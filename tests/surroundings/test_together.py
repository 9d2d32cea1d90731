"""Several servers, several processes of one role, several ways in, and processes that are none of ours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import environment
import pytest
import streams
from pretend_vllm import SERVE, Write

SERVERS = 6
START_LINE = "[sitecustomize] vLLM Comprehensive Instrumentation Loaded"

AT_ONCE = """
import os, sys, time
import vllm.engine.arg_utils as a, vllm.v1.core.sched.scheduler as s
print("ready", flush=True)
sys.stdin.readline()
a.EngineArgs()
s.run({steps})
"""


def environment_for(directory: Path, *path: Path | str, **more: str) -> dict[str, str]:
    return environment.clean() | {
        "PYTHONPATH": os.pathsep.join(map(str, path)), "PROFILEMATE_DIR": str(directory), **more,
    }  # fmt: skip


def test_servers_that_start_in_the_same_second_in_one_folder(tmp_path: Path, vllm: Path) -> None:
    """Each has a session of its own with its rows alone, whatever else goes on in the folder."""
    env = environment_for(tmp_path / "p", environment.ROOT, vllm)
    servers = [
        subprocess.Popen(
            [sys.executable, "-c", AT_ONCE.format(steps=10 + n)], env=env,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for n in range(SERVERS)
    ]  # fmt: skip
    for server in servers:
        assert server.stdout is not None and server.stdout.readline() == "ready\n"
    for server in servers:
        assert server.stdin is not None
        server.stdin.write("\n")
        server.stdin.flush()
    told = [server.communicate(timeout=environment.HANGS_SECONDS)[1] for server in servers]
    assert [server.returncode for server in servers] == [0] * SERVERS, told
    sessions = sorted((tmp_path / "p").glob("session_*"))
    assert len(sessions) == SERVERS
    assert len({session.name[:21] for session in sessions}) < SERVERS, "no two began in the same second"
    for session in sessions:
        assert sum(f"session {session}\n" in text for text in told) == 1
    assert sorted(len(streams.all_rows(session, "engine_steps")) for session in sessions) == [
        10 + n for n in range(SERVERS)
    ]


CHILDREN = """
import multiprocessing, sys
def core(steps):
    import vllm.v1.core.sched.scheduler as s
    s.run(steps)
if __name__ == "__main__":
    import vllm.engine.arg_utils as a
    a.EngineArgs()
    children = [multiprocessing.get_context("spawn").Process(target=core, args=(n,)) for n in range(1, 6)]
    for child in children:
        child.start()
    for child in children:
        child.join()
        assert child.exitcode == 0
"""


def test_processes_of_one_role_have_folders_of_their_own(tmp_path: Path, vllm: Path, write: Write) -> None:
    script = write({"main.py": CHILDREN}, "script") / "main.py"
    env = environment_for(tmp_path / "p", environment.ROOT, vllm)
    done = subprocess.run(
        [sys.executable, str(script)],
        env=env,
        capture_output=True,
        text=True,
        timeout=environment.HANGS_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    session = streams.only_session(tmp_path / "p")
    folders = streams.processes(session, "EngineCore")
    assert {streams.record(folder)["role"] for folder in folders} == {"EngineCore"}
    assert sorted(len(streams.rows(folder, "engine_steps")) for folder in folders) == [1, 2, 3, 4, 5]
    streams.export(session)
    metadata = json.loads((session / "metadata.json").read_text())
    assert metadata["summary"]["kv_cache"]["steps"] == 15


def test_two_processes_with_one_name_have_two_folders(tmp_path: Path) -> None:
    """As of two hosts of one name that share a folder: pid and start may be the same as well."""
    from profilemate.probe import folders
    from profilemate.probe.settings import Settings

    session = folders.create_session(str(tmp_path), Settings())
    paths = [Path(folders.create_process_folder(session, "Worker_TP0")) for _ in range(3)]
    assert len(set(paths)) == 3 and all(path.is_dir() for path in paths)
    assert folders.takes_part(session, os.getpid())


# -- ways in ------------------------------------------------------------------------------------------------------------

ENTRY_POINT = {
    "profilemate-0.dist-info/METADATA": "Metadata-Version: 2.1\nName: profilemate\nVersion: 0\n",
    "profilemate-0.dist-info/entry_points.txt": "[vllm.general_plugins]\nprofilemate = profilemate.plugin:register\n",
}
LOADS_PLUGINS = """
import importlib.metadata, vllm
for _ in range(2):
    for entry in importlib.metadata.entry_points(group="vllm.general_plugins"):
        if entry.name == "profilemate":
            entry.load()()
"""
HOOKED_ONCE = """
import sys
import vllm.v1.core.block_pool as b
from profilemate.probe import install
print(sum(type(finder).__name__ == "TargetFinder" for finder in sys.meta_path), hasattr(b.BlockPool.touch, "profilemate_hook"))
install.remove_all()
print([name for name, function in vars(b.BlockPool).items() if hasattr(function, "profilemate_hook")])
"""


@pytest.mark.parametrize("ways", ["path", "plugin", "path plugin", "run plugin", "run path plugin", "path path plugin"])
def test_two_ways_in_are_one_set_of_hooks_and_one_start_line(
    tmp_path: Path, vllm: Path, write: Write, checkout: Path, ways: str
) -> None:
    """Sitecustomize of one checkout or of two, the entry point loaded twice, and `profilemate run`, in any company."""
    installed = write(ENTRY_POINT, "installed")
    (installed / "profilemate").symlink_to(environment.ROOT / "profilemate")
    path: list[Path | str] = {0: [], 1: [environment.ROOT], 2: [environment.ROOT, checkout]}[ways.split().count("path")]
    env = environment_for(tmp_path / "p", *path, vllm, installed, PROFILEMATE_ENABLE="1")
    code = (LOADS_PLUGINS if "plugin" in ways else "") + SERVE + "\n" + HOOKED_ONCE
    command = [sys.executable, "-c", code]
    if "run" in ways:
        command = [sys.executable, "-m", "profilemate", "run", "--dir", str(tmp_path / "p"), "--", *command]
    done = subprocess.run(
        command,
        env=env,
        cwd=environment.ROOT,
        capture_output=True,
        text=True,
        timeout=environment.HANGS_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "1 True\n[]\n" and done.stderr.count(START_LINE) == 1
    rows = streams.all_rows(streams.only_session(tmp_path / "p"), "engine_steps")
    assert [row["allocated"] for row in rows] == ["3", "6", "9", "12"]


# -- processes that are none of ours ------------------------------------------------------------------------------------

COMPILES = """
import multiprocessing, os, subprocess, sys
from concurrent.futures import ProcessPoolExecutor
ASK = "import sys; print(sorted(m for m in sys.modules if m.split('.')[0] in ('vllm', 'torch', 'profilemate')))"
def compile_kernel(n):
    return sorted(m for m in sys.modules if m.split(".")[0] in ("vllm", "torch") or m.startswith("profilemate.probe"))
if __name__ == "__main__":
    import vllm.engine.arg_utils as a, vllm.v1.core.sched.scheduler as s
    a.EngineArgs()
    s.run(2)
    print(subprocess.run([sys.executable, "-c", ASK], capture_output=True, text=True, check=True).stdout.strip())
    for method in ("spawn", "forkserver", "fork"):
        with ProcessPoolExecutor(2, multiprocessing.get_context(method)) as pool:
            found = list(pool.map(compile_kernel, range(4)))
        print(method, found[0] if method != "fork" else "as its parent")
    s.run(2)
"""


def test_compile_workers_of_a_server_make_nothing_and_import_nothing(tmp_path: Path, vllm: Path, write: Write) -> None:
    """As Inductor's: programs and multiprocessing children that inherit PYTHONPATH and the session and never use vLLM."""
    script = write({"main.py": COMPILES}, "script") / "main.py"
    env = environment_for(tmp_path / "p", environment.ROOT, vllm)
    done = subprocess.run(
        [sys.executable, str(script)],
        env=env,
        capture_output=True,
        text=True,
        timeout=environment.HANGS_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "['profilemate', 'profilemate.boot']", "spawn []", "forkserver []", "fork as its parent",
    ]  # fmt: skip
    session = streams.only_session(tmp_path / "p")
    (process,) = streams.processes(session)
    assert len(streams.rows(process, "engine_steps")) == 4 and done.stderr.count("\n") == 1


BAD_SETTINGS = """
import multiprocessing
def core():
    import vllm.v1.core.sched.scheduler as s
    s.run(1)
if __name__ == "__main__":
    import vllm.engine.arg_utils as a, vllm.v1.core.sched.scheduler as s
    a.EngineArgs()
    s.run(1)
    for _ in range(2):
        child = multiprocessing.get_context("spawn").Process(target=core)
        child.start()
        child.join()
"""


def test_a_bad_setting_is_one_note_however_many_processes_read_it(tmp_path: Path, vllm: Path, write: Write) -> None:
    script = write({"main.py": BAD_SETTINGS}, "script") / "main.py"
    env = environment_for(tmp_path / "p", environment.ROOT, vllm, PROFILEMATE_LOG_INTERVAL="soon")
    done = subprocess.run(
        [sys.executable, str(script)],
        env=env,
        capture_output=True,
        text=True,
        timeout=environment.HANGS_SECONDS,
        check=False,
    )
    assert done.returncode == 0 and done.stderr.count("PROFILEMATE_LOG_INTERVAL") == 1, done.stderr
    session = streams.only_session(tmp_path / "p")
    assert len(streams.processes(session)) == 3
    streams.export(session)
    notes = json.loads((session / "metadata.json").read_text())["notes"]
    assert [note for note in notes if "PROFILEMATE_LOG_INTERVAL" in note] == [
        "PROFILEMATE_LOG_INTERVAL='soon' is not a number from 1; 100 is used"
    ]


ONE_CANNOT = """
import multiprocessing, os
def core(steps):
    import vllm.v1.core.sched.scheduler as s
    s.run(steps)
    print("served", flush=True)
def run(steps):
    child = multiprocessing.get_context("spawn").Process(target=core, args=(steps,))
    child.start()
    child.join()
if __name__ == "__main__":
    import vllm.engine.arg_utils as a, vllm.v1.core.sched.scheduler as s
    a.EngineArgs()
    s.run(3)
    processes = os.path.join(os.environ["PROFILEMATE_SESSION"], "processes")
    os.rename(processes, processes + ".away")
    open(processes, "w").close()
    run(4)
    os.unlink(processes)
    os.rename(processes + ".away", processes)
    run(5)
    s.run(6)
"""


def test_only_the_process_that_cannot_write_is_off(tmp_path: Path, vllm: Path, write: Write) -> None:
    script = write({"main.py": ONE_CANNOT}, "script") / "main.py"
    env = environment_for(tmp_path / "p", environment.ROOT, vllm)
    done = subprocess.run(
        [sys.executable, str(script)],
        env=env,
        capture_output=True,
        text=True,
        timeout=environment.HANGS_SECONDS,
        check=False,
    )
    assert done.returncode == 0 and done.stdout == "served\nserved\n", done.stderr
    assert done.stderr.count("nothing is recorded") == 1
    session = streams.only_session(tmp_path / "p")
    assert sorted(len(streams.rows(folder, "engine_steps")) for folder in streams.processes(session)) == [5, 9]
