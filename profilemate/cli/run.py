"""Run a command with profiling on, then export the session and print a short summary.

Signals go on to the command, and its exit code is ours (128 plus the number for a death by signal), whatever becomes of
the session.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from profilemate.cli.locate import injection_folder, own_command, profiling_config, with_folder_first
from profilemate.cli.summary import short_summary
from profilemate.probe import folders
from profilemate.probe.settings import Settings, load, with_absolute_paths
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
    parser.add_argument(
        "--trackers",
        metavar="A,B",
        help="only these trackers: names, default, all, -NAME, or a file of yours (./mine.py)",
    )
    parser.add_argument(
        "--check-replays", action="store_true", help="count replays at torch.cuda.CUDAGraph and report unexplained ones"
    )
    parser.add_argument("--verbose", action="store_true", help="sets PROFILEMATE_VERBOSE=1 for the command")
    parser.add_argument("--no-summary", action="store_true", help="do not print the summary at the end")
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="-- COMMAND ...", help="what to run")


def run(arguments: argparse.Namespace) -> int:
    """Run the command under a session of its own; returns its exit code."""
    command = arguments.command[1:] if arguments.command[:1] == ["--"] else arguments.command
    if not command:
        raise SessionError("no command given; for instance: profilemate run -- vllm serve MODEL")
    environment = {**os.environ, **option_variables(arguments)}
    settings = load(environment, profiling_config())
    for warning in settings.warnings:
        say(warning)
    session = begin_session(settings)
    environment = child_environment(environment, session, settings) if session else unprofiled(environment)
    try:
        code = run_child(command, environment)
    except OSError as error:
        if session:
            shutil.rmtree(session, ignore_errors=True)
        say(f"{command[0]} cannot be run: {error.strerror}")
        return NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE
    if not session:
        return code
    try:
        report(Path(session), summary=not arguments.no_summary)
    except (OSError, SessionError, ValueError) as error:
        say(f"the session cannot be summed up: {error}")
    except KeyboardInterrupt:
        say(f"interrupted; `profilemate export {session}` makes the files")
    return code


def begin_session(settings: Settings) -> str:
    """The new session's path; empty where there can be none: a server starts with a full disk as it would without us."""
    try:
        refuse_network_mount(settings)
        return folders.create_session(settings.directory, settings)
    except OSError as error:
        say(f"off, nothing is recorded: {error}")
        return ""


def unprofiled(environment: dict[str, str]) -> dict[str, str]:
    """The command's environment where nothing can be recorded."""
    return {**environment, "PROFILEMATE_ENABLE": "0"}


def refuse_network_mount(settings: Settings) -> None:
    """Raises FolderRefusedError where a session would be on a network file system that nobody asked for."""
    kind = folders.mount_type(settings.directory)
    if kind in folders.NETWORK and not settings.network_file_system:
        raise folders.FolderRefusedError(
            f"{settings.directory} is on a network file system ({kind}); PROFILEMATE_NETWORK_FS=1 uses it anyway"
        )


def option_variables(arguments: argparse.Namespace) -> dict[str, str]:
    """The options as the environment variables that they stand for."""
    values = {
        "PROFILEMATE_DIR": arguments.dir and os.path.abspath(arguments.dir),
        "PROFILEMATE_LOG_INTERVAL": arguments.log_interval,
        "PROFILEMATE_TRACKERS": arguments.trackers,
        "PROFILEMATE_CHECK_REPLAYS": "1" if arguments.check_replays else None,
        "PROFILEMATE_VERBOSE": "1" if arguments.verbose else None,
    }
    return {name: value for name, value in values.items() if value}


def child_environment(environment: dict[str, str], session: str, settings: Settings) -> dict[str, str]:
    """The command's environment: profiling on, this session, our sitecustomize in front."""
    return {
        **environment,
        **with_absolute_paths(environment),
        "PROFILEMATE_ENABLE": "1",
        "PROFILEMATE_DIR": settings.directory,
        names.ENV_SESSION: session,
        names.ENV_SESSION_OWNER: names.RUN_OWNER,
        "PYTHONPATH": with_folder_first(environment.get("PYTHONPATH"), injection_folder()),
    }


def run_child(command: list[str], environment: dict[str, str]) -> int:
    """Start the command, pass signals on, and return its exit code. Raises OSError if it cannot be started."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # where our caller ignores it, the kernel throws exit codes away
    before = signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON | {signal.SIGCHLD})
    try:
        child = subprocess.Popen(
            command, env=environment, preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_SETMASK, before)
        )
        while child.poll() is None:
            arrived = signal.sigtimedwait(PASSED_ON | {signal.SIGCHLD}, 1.0)
            if arrived is not None and arrived.si_signo in PASSED_ON and not has_it_already(child, arrived):
                child.send_signal(arrived.si_signo)
        while signal.sigtimedwait(PASSED_ON, 0):
            pass  # meant for the command, which is gone; left pending they would end us before the export
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


def has_it_already(child: subprocess.Popen[bytes], arrived: signal.struct_siginfo) -> bool:
    """Whether a signal came from the terminal (Ctrl-C) and the command is still in the process group that got it."""
    try:
        return arrived.si_code == FROM_KERNEL and os.getpgid(child.pid) == os.getpgrp()
    except ProcessLookupError:
        return True


def report(session: Path, summary: bool) -> None:
    """Export the session in a process of its own, and say where it lies and what is in it."""
    if not any((session / names.PROCESSES_FOLDER).iterdir()):
        shutil.rmtree(session, ignore_errors=True)
        say("nothing was recorded: no process of the command started a vLLM engine under ProfileMate")
        say("`profilemate doctor` tells what may be in the way")
        return
    command, environment = own_command("export", "--wait", str(WAIT_FOR_PROCESSES_SECONDS), str(session))
    folder = environment["PYTHONPATH"]  # with -m, Python would import from the current folder before all else
    done = subprocess.run(command, env=environment, cwd=folder, stdout=subprocess.DEVNULL, check=False)
    if done.returncode:
        say(f"the export failed; `profilemate export {session}` tries again")
        return
    say(f"session {session}")
    if summary:
        write(short_summary(session) + "\n")


def say(text: str) -> None:
    """One line on stderr: stdout belongs to the command."""
    write(f"[profilemate] {text}\n")


def write(text: str) -> None:
    """Write to stderr; where nobody reads it any more, the command's exit code and files still count."""
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except AttributeError:
        pass  # Python was started with a closed stderr
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
