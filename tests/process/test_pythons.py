"""The half inside the server on every Python from 3.10 on that this machine has, against a pretended vLLM."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import environment
import pytest
import streams
from pretend_vllm import SERVE, Write

CHILDREN = """
import multiprocessing, os, subprocess, sys
def child():
    import vllm.v1.core.sched.scheduler as s
    s.run(2)
if __name__ == "__main__":
    import vllm.engine.arg_utils as a, vllm.v1.core.sched.scheduler as s
    a.EngineArgs()
    s.run(4)
    if sys.argv[1] == "exec":
        os.execv(sys.executable, [sys.executable, "-c", "import vllm.v1.core.sched.scheduler as s; s.run(2)"])
    process = multiprocessing.get_context(sys.argv[1]).Process(target=child, name="EngineCore_DP1")
    process.start()
    process.join()
    sys.exit(process.exitcode)
"""


def interpreters() -> dict[str, str]:
    """One Python of each version from 3.10 on, by version: this one, those on PATH and those of pyenv."""
    candidates = [sys.executable]
    candidates += [str(p) for p in sorted(Path.home().glob(".pyenv/versions/3.*/bin/python"))]
    candidates += [found for minor in range(10, 16) if (found := shutil.which(f"python3.{minor}"))]
    found: dict[str, str] = {}
    for candidate in candidates:
        code = "import sys; print('%d.%d' % sys.version_info[:2])"
        done = subprocess.run(
            [candidate, "-c", code], env=environment.clean(), capture_output=True, text=True, check=False
        )
        version = done.stdout.strip()
        if done.returncode == 0 and tuple(map(int, version.split("."))) >= (3, 10):
            found.setdefault(version, candidate)
    return {version: found[version] for version in sorted(found, key=lambda text: tuple(map(int, text.split("."))))}


INTERPRETERS = interpreters()


@pytest.fixture(params=INTERPRETERS.values(), ids=INTERPRETERS.keys())
def interpreter(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def run(
    interpreter: str, *arguments: str, path: list[Path], folder: Path, **more: str
) -> subprocess.CompletedProcess[str]:
    env = environment.clean() | {
        "PYTHONPATH": os.pathsep.join(map(str, path)),
        "PROFILEMATE_DIR": str(folder),
        "PYTHONWARNINGS": "error",
        **more,
    }
    return subprocess.run(
        [interpreter, *arguments],
        env=env,
        capture_output=True,
        text=True,
        timeout=environment.HANGS_SECONDS,
        check=False,
    )


def test_an_engine_is_recorded(interpreter: str, tmp_path: Path, vllm: Path) -> None:
    done = run(interpreter, "-c", SERVE, path=[environment.ROOT, vllm], folder=tmp_path / "p")
    assert done.returncode == 0 and done.stdout == "", done.stderr
    assert done.stderr.count("\n") == 1
    rows = streams.all_rows(streams.only_session(tmp_path / "p"), "engine_steps")
    assert [row["allocated"] for row in rows] == ["3", "6", "9", "12"]


def test_a_program_without_vllm_is_left_alone(interpreter: str, tmp_path: Path) -> None:
    code = "import sys, threading; print(threading.active_count(), 'profilemate.probe' in sys.modules)"
    done = run(interpreter, "-c", code, path=[environment.ROOT], folder=tmp_path / "p")
    assert (done.stdout, done.stderr) == ("1 False\n", "") and not (tmp_path / "p").exists()


def test_a_target_run_as_a_module(interpreter: str, tmp_path: Path, vllm: Path) -> None:
    done = run(interpreter, "-m", "vllm.v1.core.block_pool", path=[environment.ROOT, vllm], folder=tmp_path / "p")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("way", ["script", "-m"])
@pytest.mark.parametrize("method", ["spawn", "fork", "forkserver", "exec"])
def test_children_have_rows_of_their_own(
    interpreter: str, tmp_path: Path, vllm: Path, write: Write, method: str, way: str
) -> None:
    """As of `python server.py` and of `python -m vllm.entrypoints.serve`."""
    script = write({"main.py": CHILDREN}, "script") / "main.py"
    write({"vllm/entrypoints/__init__.py": "", "vllm/entrypoints/serve.py": CHILDREN}, "pretend")
    program = [str(script)] if way == "script" else ["-m", "vllm.entrypoints.serve"]
    done = run(interpreter, *program, method, path=[environment.ROOT, vllm], folder=tmp_path / "p")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    session = streams.only_session(tmp_path / "p")
    steps = sorted(len(streams.rows(process, "engine_steps")) for process in streams.processes(session))
    assert steps == [2, 4]


def test_without_byte_code_files(interpreter: str, tmp_path: Path, vllm: Path) -> None:
    more = {"PYTHONDONTWRITEBYTECODE": "1"}
    done = run(interpreter, "-c", SERVE, path=[environment.ROOT, vllm], folder=tmp_path / "p", **more)
    assert done.returncode == 0, done.stderr


def test_the_files_are_made_by_the_same_python(interpreter: str, tmp_path: Path, vllm: Path) -> None:
    run(interpreter, "-c", SERVE, path=[environment.ROOT, vllm], folder=tmp_path / "p")
    session = streams.only_session(tmp_path / "p")
    done = run(
        interpreter, "-m", "profilemate", "summary", str(session), path=[environment.ROOT], folder=tmp_path / "p"
    )
    assert done.returncode == 0 and "peak 3 of 10 blocks" in done.stdout, done.stderr


COMPILES = """
import subprocess, sys
ask = "import sys; print(sorted(m for m in sys.modules if m.split('.')[0] in ('vllm', 'torch', 'profilemate')))"
print(subprocess.run([sys.executable, "-c", ask], stdout=subprocess.PIPE, text=True, check=True).stdout.strip())
"""


def test_a_compile_worker_of_a_server_imports_nothing_and_has_no_folder(
    interpreter: str, tmp_path: Path, vllm: Path
) -> None:
    done = run(interpreter, "-c", SERVE + COMPILES, path=[environment.ROOT, vllm], folder=tmp_path / "p")
    assert done.returncode == 0 and done.stdout == "['profilemate', 'profilemate.boot']\n", done.stderr
    assert len(streams.processes(streams.only_session(tmp_path / "p"))) == 1


def test_pyenvs_pythons_are_all_among_them() -> None:
    """None of them is left out because it did not start."""
    versions = [path.parent.parent.name.split(".") for path in Path.home().glob(".pyenv/versions/3.*/bin/python")]
    assert {f"3.{minor}" for _, minor, *_ in versions if int(minor) >= 10} <= set(INTERPRETERS)
