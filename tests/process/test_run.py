"""`profilemate run`: environment, signals, exit codes, export by whatever death, from a checkout and installed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import environment
import pytest
import streams
from pretend_vllm import SERVE, Write

FILES = {
    "metadata.json",
    "cuda_graph_usage.csv",
    "kv_cache_usage.csv",
    "kv_cache_evictions.csv",
    "kv_cache_summary.txt",
}


def run(*arguments: str, path: list[Path], **more: Any) -> subprocess.CompletedProcess[str]:
    env = environment.clean() | {"PYTHONPATH": os.pathsep.join(map(str, path))} | more.pop("env", {})
    command = [sys.executable, "-m", "profilemate", "run", *arguments]
    return subprocess.run(
        command, env=env, cwd=environment.ROOT, capture_output=True, text=True, timeout=120, check=False, **more
    )


def python(code: str) -> list[str]:
    return ["--", sys.executable, "-c", code]


@pytest.mark.parametrize("folder", ["plain", "with space", "ünïcödé"])
def test_a_command_is_recorded_exported_and_summed_up(tmp_path: Path, vllm: Path, folder: str) -> None:
    target = tmp_path / folder
    done = run("--dir", str(target), *python(SERVE + "; print('served')"), path=[vllm])
    assert (done.returncode, done.stdout) == (0, "served\n"), done.stderr
    session = streams.only_session(target)
    assert {path.name for path in session.iterdir()} >= FILES
    assert f"[profilemate] session {session}" in done.stderr
    assert "peak 3 of 10 blocks" in done.stderr
    assert json.loads((session / "metadata.json").read_text())


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("import sys; sys.exit(3)", 3),
        ("raise ValueError", 1),
        ("import os; os._exit(9)", 9),
        ("import os; os.kill(os.getpid(), 9)", 128 + 9),
        ("import os; os.kill(os.getpid(), 15)", 128 + 15),
    ],
)
def test_whatever_the_commands_end_its_code_is_ours_and_the_files_are_there(
    tmp_path: Path, vllm: Path, code: str, expected: int
) -> None:
    done = run("--dir", str(tmp_path / "p"), *python(f"{SERVE}\n{code}"), path=[vllm])
    assert done.returncode == expected, done.stderr
    assert {path.name for path in streams.only_session(tmp_path / "p").iterdir()} >= FILES


WAITS = """
import signal, sys, time
def tell(number, frame):
    print("got", number, flush=True)
    if number != signal.SIGUSR1:
        sys.exit(40)
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
    signal.signal(number, tell)
print("ready", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_reach_the_command_once(tmp_path: Path, vllm: Path, number: signal.Signals) -> None:
    command = [
        sys.executable,
        "-m",
        "profilemate",
        "run",
        "--dir",
        str(tmp_path),
        "--",
        sys.executable,
        "-c",
        SERVE + WAITS,
    ]
    env = environment.clean() | {"PYTHONPATH": str(vllm)}
    process = subprocess.Popen(
        command, env=env, cwd=environment.ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGUSR1)
    assert process.stdout.readline() == f"got {signal.SIGUSR1.value}\n"
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (out, process.returncode) == (f"got {number.value}\n", 40), err
    assert {path.name for path in streams.only_session(tmp_path).iterdir()} >= FILES


def test_a_command_that_is_not_there_is_one_sentence_and_no_session(tmp_path: Path) -> None:
    done = run("--dir", str(tmp_path / "p"), "--", "no-such-command", path=[])
    assert done.returncode == 127 and "no-such-command" in done.stderr and "Traceback" not in done.stderr
    assert list((tmp_path / "p").glob("session_*")) == []


def test_no_command_is_bad_input(tmp_path: Path) -> None:
    done = run("--dir", str(tmp_path), path=[])
    assert done.returncode == 2 and "no command given" in done.stderr


def test_a_command_without_an_engine_says_so(tmp_path: Path) -> None:
    done = run("--dir", str(tmp_path), *python("print(1)"), path=[])
    assert (done.returncode, done.stdout) == (0, "1\n")
    assert "nothing was recorded" in done.stderr and "profilemate doctor" in done.stderr


def test_an_unwritable_folder_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = run("--dir", str(tmp_path / "file" / "x"), *python("print(1)"), path=[])
    assert done.returncode == 1 and "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as pip installs it, in a folder of its own, built from a copy of the tree."""
    source = tmp_path_factory.mktemp("source") / "profilemate"
    ignored = shutil.ignore_patterns(".git", ".venv", ".cache", "__pycache__", "*.egg-info", "build")
    shutil.copytree(environment.ROOT, source, ignore=ignored)
    target = tmp_path_factory.mktemp("installed")
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "--target",
        str(target),
    ]
    done = subprocess.run([*command, str(source)], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return target


def test_the_wheel_has_no_top_level_sitecustomize(installed: Path) -> None:
    top = {path.name for path in installed.iterdir() if not path.name.endswith(".dist-info")} - {"bin"}
    assert top == {"profilemate"}
    assert (installed / "profilemate" / "inject" / "sitecustomize.py").exists()


def test_run_works_installed_and_only_profilemate_gets_on_the_childs_path(
    tmp_path: Path, installed: Path, vllm: Path
) -> None:
    code = "import sys; print([p for p in sys.path if 'installed' in p])"
    command = [str(installed / "bin" / "profilemate"), "run", "--dir", str(tmp_path), *python(f"{SERVE}; {code}")]
    env = environment.clean() | {"PYTHONPATH": os.pathsep.join((str(installed), str(vllm)))}
    shim = [sys.executable, "-c", "import sys; from profilemate.cli.main import main; sys.exit(main(sys.argv[1:]))"]
    done = subprocess.run(
        [*shim, *command[1:]], env=env, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert f"{installed}/profilemate/inject" in done.stdout
    assert {path.name for path in streams.only_session(tmp_path).iterdir()} >= FILES


def test_the_entry_point_is_found_in_an_installation(installed: Path) -> None:
    (folder,) = installed.glob("profilemate-*.dist-info")
    text = (folder / "entry_points.txt").read_text()
    assert "[vllm.general_plugins]\nprofilemate = profilemate.plugin:register" in text


def test_a_script_that_ends_gets_its_files_without_run(tmp_path: Path, vllm: Path, write: Write) -> None:
    env = environment.clean() | {
        "PYTHONPATH": os.pathsep.join(map(str, (environment.ROOT, vllm))),
        "PROFILEMATE_DIR": str(tmp_path / "p"),
    }
    done = subprocess.run([sys.executable, "-c", SERVE], env=env, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0
    session = streams.only_session(tmp_path / "p")
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and not {path.name for path in session.iterdir()} >= FILES:
        time.sleep(0.1)
    assert {path.name for path in session.iterdir()} >= FILES
