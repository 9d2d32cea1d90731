"""`profilemate run` from a checkout: environment, signals, exit codes, export by whatever death."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
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
from small_disk import small_disk

from profilemate.cli.main import main
from profilemate.probe import folders

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
        command,
        env=env,
        cwd=environment.ROOT,
        capture_output=True,
        text=True,
        timeout=environment.HANGS_SECONDS,
        check=False,
        **more,
    )


def test_a_bad_setting_is_told_once(tmp_path: Path, vllm: Path) -> None:
    done = run("--dir", str(tmp_path), "--log-interval", "soon", *python(SERVE), path=[vllm])
    assert done.stderr.count("PROFILEMATE_LOG_INTERVAL='soon'") == 1


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
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2):
    signal.signal(number, tell)
print("ready", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR2])
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
    out, err = process.communicate(timeout=environment.HANGS_SECONDS)
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
    assert list(tmp_path.glob("session_*")) == []


@pytest.mark.parametrize("code", [0, 3])
def test_in_an_unwritable_folder_the_command_runs_unprofiled(tmp_path: Path, vllm: Path, code: int) -> None:
    """Also where the checkout is on its PYTHONPATH."""
    (tmp_path / "file").write_text("")
    program = python(f"{SERVE}; print('served'); raise SystemExit({code})")
    done = run("--dir", str(tmp_path / "file" / "x"), *program, path=[environment.ROOT, vllm])
    assert (done.returncode, done.stdout) == (code, "served\n")
    assert done.stderr.count("\n") == 1 and "nothing is recorded" in done.stderr


def test_on_a_full_disk_the_command_runs_unprofiled_and_its_code_is_ours(tmp_path: Path, vllm: Path) -> None:
    with small_disk(tmp_path / "disk", "size=64k") as disk:
        with contextlib.suppress(OSError):
            for name in ("ballast", "more"):
                (disk.seen / name).write_bytes(b"x" * (60 << 10))
        command = [*disk.prefix, sys.executable, "-m", "profilemate", "run", "--dir", str(disk.path / "p")]
        done = subprocess.run(
            [*command, *python(SERVE + "; raise SystemExit(3)")],
            env=environment.clean() | {"PYTHONPATH": str(vllm)}, cwd=environment.ROOT,
            capture_output=True, text=True, timeout=environment.HANGS_SECONDS, check=False,
        )  # fmt: skip
        assert done.returncode == 3 and "No space left" in done.stderr and done.stderr.count("\n") == 1
        assert list((disk.seen / "p").iterdir()) == []


def test_a_script_that_ends_gets_its_files_without_run(tmp_path: Path, vllm: Path, write: Write) -> None:
    env = environment.clean() | {
        "PYTHONPATH": os.pathsep.join(map(str, (environment.ROOT, vllm))),
        "PROFILEMATE_DIR": str(tmp_path / "p"),
    }
    done = subprocess.run(
        [sys.executable, "-c", SERVE], env=env, capture_output=True, timeout=environment.HANGS_SECONDS, check=False
    )
    assert done.returncode == 0
    session = streams.only_session(tmp_path / "p")
    deadline = time.monotonic() + environment.HANGS_SECONDS
    while time.monotonic() < deadline and not {path.name for path in session.iterdir()} >= FILES:
        time.sleep(0.1)
    assert {path.name for path in session.iterdir()} >= FILES


def start(tmp_path: Path, vllm: Path, code: str, **more: Any) -> subprocess.Popen[str]:
    """`profilemate run` in the background, with pipes."""
    command = [sys.executable, "-m", "profilemate", "run", "--dir", str(tmp_path), *python(code)]
    return subprocess.Popen(
        command, env=environment.clean() | {"PYTHONPATH": str(vllm)}, cwd=environment.ROOT,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more,
    )  # fmt: skip


# -- the command's environment ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after"),
    [(None, "{root}"), ("", "{root}"), ("/a:", "{root}:/a:"), (":/a", "{root}::/a"), ("/a b:/é", "{root}:/a b:/é")],
)
def test_ours_comes_first_and_the_rest_of_the_path_stays(tmp_path: Path, before: str | None, after: str) -> None:
    env = {} if before is None else {"PYTHONPATH": before}
    command = [sys.executable, "-m", "profilemate", "run", "--dir", str(tmp_path)]
    done = subprocess.run(
        [*command, *python("import os; print(ascii(os.environ['PYTHONPATH']))")],
        env=environment.clean() | env, cwd=environment.ROOT,
        capture_output=True, text=True, timeout=environment.HANGS_SECONDS, check=False,
    )  # fmt: skip
    assert done.stdout.strip() == ascii(after.format(root=environment.ROOT)), done.stderr


def test_options_become_the_variables_that_they_stand_for(tmp_path: Path) -> None:
    show = "import json, os; print(json.dumps({k: v for k, v in os.environ.items() if k.startswith('PROFILEMATE_')}))"
    options = ["--log-interval", "7", "--trackers", "kv_cache", "--check-replays", "--verbose"]
    done = run("--dir", str(tmp_path), *options, *python(show), path=[], env={"PROFILEMATE_ENABLE": "0"})
    variables = json.loads(done.stdout)
    assert Path(variables.pop("PROFILEMATE_SESSION")).parent == tmp_path
    assert variables == {
        "PROFILEMATE_ENABLE": "1",
        "PROFILEMATE_DIR": str(tmp_path),
        "PROFILEMATE_SESSION_OWNER": "run",
        "PROFILEMATE_LOG_INTERVAL": "7",
        "PROFILEMATE_TRACKERS": "kv_cache",
        "PROFILEMATE_CHECK_REPLAYS": "1",
        "PROFILEMATE_VERBOSE": "1",
    }


def test_the_users_own_profiling_config_counts(tmp_path: Path, checkout: Path) -> None:
    file = checkout / "sitecustomize.py"
    file.write_text(file.read_text().replace('"/tmp/vllm_profiling"', repr(str(tmp_path / "mine"))))
    show = python("import os; print(os.environ['PROFILEMATE_SESSION'])")
    command = [sys.executable, "-m", "profilemate", "run", *show]
    done = subprocess.run(
        command,
        env=environment.clean(),
        cwd=checkout,
        capture_output=True,
        text=True,
        timeout=environment.HANGS_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).parent == tmp_path / "mine"


def test_a_network_file_system_is_left_alone_unless_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(folders, "mount_type", lambda path: "nfs4")
    monkeypatch.delenv("PROFILEMATE_NETWORK_FS", raising=False)
    before = signal.getsignal(signal.SIGCHLD)
    try:
        assert main(["run", "--dir", str(tmp_path), "--", "false"]) == 1
        assert main(["run", "--dir", str(tmp_path), "--", "true"]) == 0
        assert "nfs4" in capsys.readouterr().err and list(tmp_path.iterdir()) == []
        monkeypatch.setenv("PROFILEMATE_NETWORK_FS", "1")
        assert main(["run", "--dir", str(tmp_path), "--", "true"]) == 0
    finally:
        signal.signal(signal.SIGCHLD, before)


# -- the exit code, whatever becomes of us and of the session -----------------------------------------------------------


def test_the_code_and_the_files_count_where_nobody_reads_stderr(tmp_path: Path, vllm: Path) -> None:
    process = start(tmp_path, vllm, f"import sys; sys.stdin.readline(); {SERVE}; sys.exit(3)")
    assert process.stderr is not None and process.stdin is not None
    process.stderr.close()
    process.stdin.write("\n")
    process.stdin.close()
    assert process.wait(60) == 3
    assert {path.name for path in streams.only_session(tmp_path).iterdir()} >= FILES


def test_a_session_that_the_command_removed_changes_no_exit_code(tmp_path: Path) -> None:
    code = "import os, shutil, sys; shutil.rmtree(os.environ['PROFILEMATE_SESSION']); sys.exit(3)"
    done = run("--dir", str(tmp_path), *python(code), path=[])
    assert done.returncode == 3 and "Traceback" not in done.stderr and "cannot be summed up" in done.stderr


def test_a_caller_that_ignores_sigchld_gets_the_code(tmp_path: Path, vllm: Path) -> None:
    process = start(
        tmp_path, vllm, "raise SystemExit(3)", preexec_fn=lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    )
    process.communicate(timeout=environment.HANGS_SECONDS)
    assert process.returncode == 3


def test_signals_that_come_as_the_command_ends_do_not_end_us(tmp_path: Path, vllm: Path) -> None:
    process = start(tmp_path, vllm, f"{SERVE}; print('ready', flush=True); input(); raise SystemExit(3)")
    assert process.stdout is not None and process.stdin is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGSTOP)
    process.stdin.write("\n")
    process.stdin.flush()
    time.sleep(1)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCONT):
        process.send_signal(number)
    _, err = process.communicate(timeout=environment.HANGS_SECONDS)
    assert process.returncode == 3, err
    assert {path.name for path in streams.only_session(tmp_path).iterdir()} >= FILES


def test_the_command_goes_on_when_run_is_killed(tmp_path: Path, vllm: Path) -> None:
    done_file = tmp_path / "done"
    code = (
        f"print('ready', flush=True); import sys; sys.stdin.readline(); {SERVE}; open({str(done_file)!r}, 'w').close()"
    )
    process = start(tmp_path / "p", vllm, code)
    assert process.stdout is not None and process.stdin is not None
    assert process.stdout.readline() == "ready\n"
    process.kill()
    process.wait(10)
    process.stdin.write("\n")
    process.stdin.flush()
    deadline = time.monotonic() + environment.HANGS_SECONDS
    while not done_file.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert done_file.exists()
    assert len(streams.all_rows(streams.only_session(tmp_path / "p"), "engine_steps")) == 4


COUNTS_INTERRUPTS = """
import os, signal, sys, time
if {own_group}:
    os.setpgid(0, 0)
count = 0
def interrupted(number, frame):
    global count
    count += 1
    print("got", count, flush=True)
signal.signal(signal.SIGINT, interrupted)
print("ready", flush=True)
while count < 2:
    time.sleep(0.05)
time.sleep(0.5)
print("total", count, flush=True)
sys.exit(7)
"""


@pytest.mark.parametrize("own_group", [False, True], ids=["our-group", "own-group"])
def test_each_ctrl_c_of_a_terminal_reaches_the_command_once(tmp_path: Path, own_group: bool) -> None:
    """The terminal sends it to the whole process group: passed on only to a command that left the group."""
    arguments = [
        "-m",
        "profilemate",
        "run",
        "--dir",
        str(tmp_path),
        *python(COUNTS_INTERRUPTS.format(own_group=own_group)),
    ]
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(environment.ROOT)
        os.execve(sys.executable, [sys.executable, *arguments], environment.clean())
    seen = ""

    def read_until(words: str) -> None:
        nonlocal seen
        while words not in seen and select.select([terminal], [], [], 30)[0]:
            try:
                seen += os.read(terminal, 4096).decode()
            except OSError:
                break
        assert words in seen, seen

    read_until("ready")
    os.write(terminal, b"\x03")
    read_until("got 1")
    time.sleep(0.5)
    os.write(terminal, b"\x03")
    read_until("profilemate doctor")
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    assert "total 2" in seen and os.waitstatus_to_exitcode(status) == 7, seen
