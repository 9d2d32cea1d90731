"""This process in the session: which session, which role and ranks, its folder, its process.json and its writer.

One object, `THIS`, lives for the life of the process; a forked child starts it anew and keeps only the session's path.
"""

from __future__ import annotations

import contextlib
import os
import platform
import socket
import sys
import time
from collections.abc import Callable
from hashlib import blake2b
from typing import Any

from profilemate import __version__
from profilemate.probe import folders
from profilemate.probe.cost import Bias
from profilemate.probe.settings import Settings, quarter
from profilemate.probe.stream import Stream
from profilemate.probe.writer import Writer, process_share
from profilemate.schema import names

HookRecords = Callable[[], "list[dict[str, Any]]"]
DEFAULT_PROCESSES = 8
SAVE_AGAIN_NS = 10_000_000_000
FULL_FLUSH_NS = 1_000_000_000


class Process:
    """State of ProfileMate in this process. Methods that touch the disk swallow OSError and switch recording off."""

    def __init__(self) -> None:
        """Nothing is written before a role and a session are known."""
        self.settings = Settings()
        self.writer = Writer()
        self.session = ""
        self.secret = b""
        self.off = False
        self.hook_records: HookRecords = list
        self.cost_bias = Bias()
        self.began_ns = time.monotonic_ns()
        self.turn_sampler: Callable[[], int] = lambda: 1
        self.at_flush: list[Callable[[int], None]] = []
        self.at_exit: list[Callable[[], None]] = []
        self.warnings: list[str] = []
        self.forget_identity()

    def forget_identity(self) -> None:
        """A forked child has no role yet, and a process folder of its own to come."""
        self.role = ""
        self.roles: list[str] = []
        self.ranks: dict[str, int] = {}
        self.engine_index: int | None = None
        self.engine_config: dict[str, Any] = {}
        self.num_processes = DEFAULT_PROCESSES
        self.folder = ""
        self.dirty = False
        self.intervals_left = 0
        self.ended_ns: int | None = None
        self._full_flush_ns = 0
        self._next_save_ns = 0
        self._told_trouble = ""
        self._told_once = False

    # -- session ---------------------------------------------------------------------------------------------------

    def join_or_begin_session(self, launches: bool) -> None:
        """Settle the session of this process: an inherited one, or a new one where this process launches a server.

        `launches` is true at engine arguments, which only a front end builds: there a child of a process of the session,
        made by multiprocessing, joins, and a program that merely inherited the variable begins its own. An engine or
        worker process joins whatever session it inherits (Ray actors are nobody's multiprocessing children).
        """
        if self.session or self.off:
            return
        inherited = os.environ.get(names.ENV_SESSION, "") or self._session_of_parent()
        if inherited and (not launches or self._belongs_to(inherited)):
            self._join(inherited)
        elif launches or not inherited:
            if not self.secret:  # another session's, unless ids were hashed with it already
                os.environ.pop(names.ENV_SECRET, None)
            self._begin()
        if self.session:
            self.session_secret()

    def _belongs_to(self, session: str) -> bool:
        owner = os.environ.get(names.ENV_SESSION_OWNER, names.RUN_OWNER)
        if owner == names.RUN_OWNER or owner == str(os.getpid()):
            return True
        parent = multiprocessing_parent()
        return parent is not None and (owner == str(parent.pid) or folders.takes_part(session, parent.pid))

    def _session_of_parent(self) -> str:
        """For a child of a fork server that ran before the session began, whose environment does not name it."""
        parent = multiprocessing_parent()
        if parent is None:
            return ""
        session = folders.session_of_process(self.settings.directory, parent.pid)
        if session:
            os.environ[names.ENV_SESSION] = session
            os.environ[names.ENV_SESSION_OWNER] = str(parent.pid)
        return session

    def _join(self, path: str) -> None:
        """Take part in a session. On a host where its folder is not there, it is made under the same name."""
        try:
            folders.join_session(path, self.settings)
        except OSError as error:
            self.switch_off(str(error))
            return
        self.session = path
        if os.environ.get(names.ENV_SESSION_OWNER) == names.RUN_OWNER and not _has_processes(path):
            self._announce()  # `profilemate run` has told of the settings

    def _begin(self) -> None:
        try:
            self._refuse_network_mount()
            self.session = folders.create_session(self.settings.directory, self.settings)
        except OSError as error:
            self.switch_off(str(error))
            return
        os.environ[names.ENV_SESSION] = self.session
        os.environ[names.ENV_SESSION_OWNER] = str(os.getpid())
        self._announce(*self.settings.warnings)
        _export_at_exit(self.session)
        if folders.has_company(self.session):
            launch_tidying(self.session)

    def _refuse_network_mount(self) -> None:
        kind = folders.mount_type(self.settings.directory)
        if kind in folders.NETWORK and not self.settings.network_file_system:
            raise folders.FolderRefusedError(
                f"{self.settings.directory} is on a network file system ({kind}); PROFILEMATE_NETWORK_FS=1 uses it anyway"
            )

    def _announce(self, *warnings: str) -> None:
        lines = [f"{names.START_LINE}: session {self.session}"]
        lines += [f"[profilemate] {warning}" for warning in (*warnings, *self.warnings)]
        tell("\n".join(lines))

    def switch_off(self, reason: str) -> None:
        """Record nothing in this process and its children, and say why in one line."""
        self.off = True
        os.environ["PROFILEMATE_ENABLE"] = "0"
        tell(f"[profilemate] off, nothing is recorded: {reason}")

    # -- role ------------------------------------------------------------------------------------------------------

    def take_role(self, role: str, name: str = "", launches: bool = False) -> None:
        """Note what this process is ("APIServer", "EngineCore", "Worker", "LLM"); the first role names the folder.

        `name` is the role with its number or ranks, as vLLM titles the process.
        """
        if role not in self.roles:
            self.roles.append(role)
            self.role = self.role or name or role
            self.dirty = True
        self.join_or_begin_session(launches)
        self.open_folder()

    def open_folder(self) -> None:
        """Make this process's folder once a session and a role are known, and let the writer begin."""
        if self.folder or self.off or not self.session or not self.role:
            return
        try:
            self.folder = folders.create_process_folder(self.session, self.role)
        except OSError as error:
            self.switch_off(str(error))
            return
        settings = self._caps()
        share = process_share(settings, max(self.num_processes, _announced_processes()))
        self.writer.open(self.folder, share, settings.disk_floor_bytes)
        self.dirty = True
        self.save()
        if self.settings.verbose:
            tell(f"[profilemate] {self.role} (pid {os.getpid()}) writes to {self.folder}")
        self.flush()  # a front end has no engine step that would do it

    def _caps(self) -> Settings:
        if folders.mount_type(self.session) not in folders.MEMORY_BACKED:
            return self.settings
        self.warnings.append("the session lies on a memory-backed mount: the caps are a quarter of the settings")
        return quarter(self.settings)

    def save(self) -> None:
        """Write process.json if something in it changed."""
        if not self.dirty or not self.folder or time.monotonic_ns() < self._next_save_ns:
            return
        try:
            folders.write_json(os.path.join(self.folder, names.PROCESS_FILE), self.record())
            self.dirty = False
        except OSError:
            self._next_save_ns = time.monotonic_ns() + SAVE_AGAIN_NS

    def record(self) -> dict[str, Any]:
        """Content of process.json."""
        return {
            "format": names.FORMAT,
            "role": self.role,
            "roles": self.roles,
            "ranks": self.ranks,
            "engine_index": self.engine_index,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "start_time": folders.process_start_time(os.getpid()),
            "boot_id": folders.boot_id(),
            "python": platform.python_version(),
            "vllm": _version_of("vllm"),
            "torch": _version_of("torch"),
            "profilemate": __version__,
            "clock": {"wall_ns": time.time_ns(), "monotonic_ns": time.monotonic_ns()},
            "settings": self.settings._asdict(),
            "secret_id": self._secret_id(),
            "warnings": [*self.settings.warnings, *self.warnings, *self._dropping()],
            "engine_config": self.engine_config,
            "cost": {"began_ns": self.began_ns, **self.cost_bias._asdict()},
            "ended_ns": self.ended_ns,
            "hooks": self.hook_records(),
        }

    def session_secret(self) -> bytes:
        """What request ids are hashed with; made at its first use, and inherited by the processes that this one starts."""
        if not self.secret:
            self.secret = os.environ.setdefault(names.ENV_SECRET, os.urandom(16).hex()).encode()[:64]
        return self.secret

    def _secret_id(self) -> str:
        """Tells which processes have the same secret, and nothing of it."""
        return blake2b(b"id", key=self.session_secret(), digest_size=8).hexdigest()

    def _dropping(self) -> list[str]:
        return [f"rows are being dropped: {self._told_trouble}"] if self._told_trouble else []

    # -- end of a step ---------------------------------------------------------------------------------------------

    def flush_step(self, streams: tuple[Stream, ...], now: int) -> None:
        """Bring the rows of an engine step in these streams to the kernel.

        Everything else is looked at once a second: a step is at its end many times in one.
        """
        if now >= self._full_flush_ns or not self.folder or not self.writer.write_simply(streams, now):
            self.flush(now)
        self.intervals_left -= 1
        if self.intervals_left <= 0:
            self.intervals_left = self.turn_sampler()

    def flush(self, now: int = 0) -> None:
        """Bring everything recorded so far to the kernel. Call it where no engine step will end soon."""
        if not self.folder:
            if not self.off:
                self._open_late()
            if self.off:
                self.writer.drop_pending()
                return
        now = now or time.monotonic_ns()
        self._full_flush_ns = now + FULL_FLUSH_NS
        for prepare in self.at_flush:
            prepare(now)
        self.writer.flush(now)
        if self.writer.trouble != self._told_trouble:
            self._told_trouble = self.writer.trouble
            self.dirty = True
            self._tell_trouble()
        if self.dirty:
            self.save()

    def _tell_trouble(self) -> None:
        """One line at the first trouble of this process; the summary tells of all."""
        if self._told_trouble and not self._told_once:
            self._told_once = True
            tell(
                f"[profilemate] {self.role} (pid {os.getpid()}): rows are being dropped ({self._told_trouble}); "
                f"serving goes on, and so does recording when {self.folder} can be written again"
            )

    def _open_late(self) -> None:
        """Rows came before any role did (a scheduler driven by a script of the user's own): the process is a "Script"."""
        self.take_role("Script", launches=True)

    def after_fork(self) -> None:
        """In the child: own files, own numbers, no role yet."""
        self.began_ns = time.monotonic_ns()
        self.writer.forget_files()
        self.forget_identity()


def tell(text: str) -> None:
    """One message on stderr, never stdout; silent where stderr is closed."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stderr.write(text + "\n")
        sys.stderr.flush()


def _has_processes(session: str) -> bool:
    try:
        return bool(os.listdir(os.path.join(session, names.PROCESSES_FOLDER)))
    except OSError:
        return False


def multiprocessing_parent() -> Any:
    """The process that started this one by multiprocessing; None for a program of its own."""
    multiprocessing = sys.modules.get("multiprocessing.process")
    return None if multiprocessing is None else multiprocessing.parent_process()


def _announced_processes() -> int:
    try:
        return int(os.environ.get(names.ENV_PROCESSES, "0"))
    except ValueError:
        return 0


def _version_of(module: str) -> str:
    return str(getattr(sys.modules.get(module), "__version__", ""))


def _export_at_exit(session: str) -> None:
    """When this program ends, make the session's files in a process of its own that outlives it."""
    import atexit

    owner = os.getpid()

    def start_export() -> None:
        if os.getpid() == owner:
            launch_export(session)

    atexit.register(start_export)


def launch_export(session: str) -> None:
    """Start `python -m profilemate export --wait` detached. Raises nothing: the streams are on disk anyway."""
    import subprocess

    with contextlib.suppress(Exception):
        started = subprocess.Popen(_export_command("--wait", "30", session), **_detached())
        started.returncode = 0  # it outlives this process on purpose; Popen would warn of that


def launch_tidying(session: str) -> None:
    """Keep the folder of the session under its cap, detached: a server that is killed and restarted never exports.

    It is started by a shell that ends at once: a child of ours would stay a zombie for as long as the server runs.
    """
    import subprocess

    command = ["/bin/sh", "-c", '"$@" &', "sh", *_export_command("--tidy", session)]
    with contextlib.suppress(Exception):
        subprocess.run(command, check=False, timeout=10, **_detached())


def _export_command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "profilemate", "export", *arguments]


def _detached() -> dict[str, Any]:
    import subprocess

    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    return {
        "env": {**os.environ, "PYTHONPATH": root, "PROFILEMATE_ENABLE": "0"},
        "cwd": root,  # with -m, Python would import from the server's folder before all else
        "stdin": subprocess.DEVNULL,
        "stdout": subprocess.DEVNULL,
        "stderr": subprocess.DEVNULL,
        "start_new_session": True,
    }


THIS = Process()
