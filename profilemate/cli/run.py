"""Run a command with profiling on, then export the session and print a short summary.

Signals go on to the command, and its exit code is ours (128 plus the number for a death by signal).
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from profilemate.cli.locate import injection_folder, own_command, with_folder_first
from profilemate.cli.summary import short_summary
from profilemate.probe.folders import create_session
from profilemate.probe.settings import Settings, load
from profilemate.schema import names
from profilemate.session.errors import SessionError

EPILOG = """examples:
  profilemate run -- vllm serve meta-llama/Llama-3.1-8B
  profilemate run --dir /data/profiles --log-interval 10 -- python my_offline_script.py"""

NOT_FOUND, NOT_EXECUTABLE = 127, 126
WAIT_FOR_PROCESSES_SECONDS = 15
PASSED_ON = {
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
}
FROM_KERNEL = 0x80
"""si_code of a signal that the terminal sent to the whole process group, so to the command as well."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("--dir", metavar="FOLDER", help="where the session goes (default /tmp/vllm_profiling)")
    parser.add_argument("--log-interval", metavar="N", help="block operations between two rows of kv_cache_usage.csv")
    parser.add_argument("--trackers", metavar="A,B", help="only these trackers")
    parser.add_argument(
        "--check-replays", action="store_true", help="count replays at torch.cuda.CUDAGraph and report unexplained ones"
    )
    parser.add_argument("--no-summary", action="store_true", help="do not print the summary at the end")
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="-- COMMAND ...", help="what to run")


def run(arguments: argparse.Namespace) -> int:
    """Run the command under a session of its own; returns its exit code."""
    command = arguments.command[1:] if arguments.command[:1] == ["--"] else arguments.command
    if not command:
        raise SessionError("no command given; for instance: profilemate run -- vllm serve MODEL")
    environment = {**os.environ, **option_variables(arguments)}
    settings = load(environment)
    for warning in settings.warnings:
        say(warning)
    session = create_session(settings.directory, settings)
    environment = child_environment(environment, session, settings)
    try:
        code = run_child(command, environment)
    except OSError as error:
        shutil.rmtree(session, ignore_errors=True)
        say(f"{command[0]} cannot be run: {error.strerror}")
        return NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE
    report(Path(session), summary=not arguments.no_summary)
    return code


def option_variables(arguments: argparse.Namespace) -> dict[str, str]:
    """The options as the environment variables that they stand for."""
    values = {
        "PROFILEMATE_DIR": arguments.dir and os.path.abspath(arguments.dir),
        "PROFILEMATE_LOG_INTERVAL": arguments.log_interval,
        "PROFILEMATE_TRACKERS": arguments.trackers,
        "PROFILEMATE_CHECK_REPLAYS": "1" if arguments.check_replays else None,
    }
    return {name: value for name, value in values.items() if value}


def child_environment(environment: dict[str, str], session: str, settings: Settings) -> dict[str, str]:
    """The command's environment: profiling on, this session, our sitecustomize in front."""
    return {
        **environment,
        "PROFILEMATE_ENABLE": "1",
        "PROFILEMATE_DIR": settings.directory,
        names.ENV_SESSION: session,
        names.ENV_SESSION_OWNER: names.RUN_OWNER,
        "PYTHONPATH": with_folder_first(environment.get("PYTHONPATH"), injection_folder()),
    }


def run_child(command: list[str], environment: dict[str, str]) -> int:
    """Start the command, pass signals on, and return its exit code. Raises OSError if it cannot be started."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON | {signal.SIGCHLD})
    try:
        child = subprocess.Popen(
            command, env=environment, preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_SETMASK, before)
        )
        while child.poll() is None:
            arrived = signal.sigtimedwait(PASSED_ON | {signal.SIGCHLD}, 1.0)
            if arrived is not None and arrived.si_signo in PASSED_ON and arrived.si_code != FROM_KERNEL:
                child.send_signal(arrived.si_signo)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


def report(session: Path, summary: bool) -> None:
    """Export the session in a process of its own, and say where it lies and what is in it."""
    if not any((session / names.PROCESSES_FOLDER).iterdir()):
        say(f"nothing was recorded in {session}: no process of the command started a vLLM engine under ProfileMate")
        say("`profilemate doctor` tells what may be in the way")
        return
    command, environment = own_command("export", "--wait", str(WAIT_FOR_PROCESSES_SECONDS), str(session))
    try:
        done = subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=False)
    except KeyboardInterrupt:
        say(f"interrupted; `profilemate export {session}` makes the files")
        return
    if done.returncode:
        say(f"the export failed; `profilemate export {session}` tries again")
        return
    say(f"session {session}")
    if summary:
        sys.stderr.write(short_summary(session) + "\n")


def say(text: str) -> None:
    """One line on stderr: stdout belongs to the command."""
    sys.stderr.write(f"[profilemate] {text}\n")
