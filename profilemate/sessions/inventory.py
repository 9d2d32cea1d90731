"""What lies in a folder of sessions: one entry per session, from a little of each of its files."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from profilemate.export.retention import TRIMMED_FILE
from profilemate.schema import names
from profilemate.session.records import ProcessInfo, SessionInfo, process_info, session_info, text, whole
from profilemate.session.session import offset_of
from profilemate.sessions.head import last_lines, last_time_ns, record_head
from profilemate.sessions.requests_ended import Count, Folder, requests_ended
from profilemate.sessions.state import state_of

MODE = 0o700
"""Of folders that are made: a session is its user's alone."""

STEPS = "engine_steps.csv"
TIMED_STREAMS = (STEPS, "forward_passes.csv", "request_ends.csv", "request_arrivals.csv", "health.csv")
"""Streams whose last rows tell how long a session was."""


@dataclass(frozen=True)
class Entry:
    """One session. Times in nanoseconds of the wall clock; None is not known.

    `steps` are engine steps by the engines' own numbers, `requests` those that were over. `trouble` is what could not be
    read.
    """

    path: Path
    begun_ns: int | None
    size_bytes: int
    state: str
    is_trimmed: bool
    model: str
    vllm: str
    roles: tuple[str, ...]
    hosts: tuple[str, ...]
    duration_ns: int | None
    steps: int | None
    requests: Count | None
    trouble: str

    @property
    def name(self) -> str:
        """The folder's."""
        return self.path.name


def looks_like_session(path: Path) -> bool:
    """Whether a folder holds a session's record or its processes."""
    return (path / names.SESSION_FILE).is_file() or (path / names.PROCESSES_FOLDER).is_dir()


def session_paths(directory: Path) -> list[Path]:
    """Folders of sessions right below a folder, whatever their name; links are left out. Raises OSError."""
    with os.scandir(directory) as entries:
        folders = [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
    return sorted(folder for folder in folders if looks_like_session(folder))


def entries_in(directory: Path, on_read: Callable[[int, int], None] = lambda done, of: None) -> list[Entry]:
    """Every session of a folder, newest first. `on_read` hears of each. Raises OSError where the folder cannot be read."""
    paths = session_paths(directory)
    entries = []
    for number, path in enumerate(paths, 1):
        entries.append(read_entry(path))
        on_read(number, len(paths))
    return sorted(entries, key=lambda entry: (-(entry.begun_ns or 0), entry.name))


def read_entry(path: Path) -> Entry:
    """One session, whatever is missing of it; raises nothing for damage."""
    record, trouble = _head(path / names.SESSION_FILE)
    top, folders = scan(path)
    info = session_info(record, path.name)
    processes = [_process(folder) for folder in folders]
    if not info.created_wall_ns:
        info = _with_start(info, processes)
    is_trimmed = TRIMMED_FILE in top
    has_rows = any(name.endswith(".csv") for folder in folders for name in folder.files)
    return Entry(
        path=path,
        begun_ns=info.created_wall_ns or None,
        size_bytes=sum(sum(files.values()) for files in (top, *(folder.files for folder in folders))),
        state=state_of(processes, _starter(record, path), info.pid_namespace, has_rows, is_trimmed),
        is_trimmed=is_trimmed,
        model=next((text(p.engine_config["model"]) for p in processes if p.engine_config.get("model")), ""),
        vllm=next((p.versions["vllm"] for p in processes if p.versions.get("vllm")), ""),
        roles=tuple(process.role for process in processes),
        hosts=tuple(dict.fromkeys(p.host for p in processes if p.host)) or ((info.host,) if info.host else ()),
        duration_ns=_duration_ns(info, processes, folders),
        steps=_steps(folders),
        requests=requests_ended(folders),
        trouble=trouble or _format_trouble(record),
    )


def _head(path: str | Path) -> tuple[dict[str, Any], str]:
    try:
        return record_head(path), ""
    except FileNotFoundError:
        return {}, f"{os.path.basename(path)} is missing"
    except (OSError, ValueError):
        return {}, f"{os.path.basename(path)} cannot be read"


def _format_trouble(record: dict[str, Any]) -> str:
    written = record.get("format", names.FORMAT)
    return f"format {written}, this ProfileMate reads {names.FORMAT}" if written != names.FORMAT else ""


def scan(path: Path) -> tuple[dict[str, int], list[Folder]]:
    """Plain files at the top of a session and in its process folders, with their sizes."""
    top, below = _plain_files(str(path))
    if names.PROCESSES_FOLDER not in below:
        return top, []
    _, folders = _plain_files(f"{path}/{names.PROCESSES_FOLDER}")
    where = [f"{path}/{names.PROCESSES_FOLDER}/{name}" for name in sorted(folders)]
    return top, [Folder(folder, _plain_files(folder)[0]) for folder in where]


def _plain_files(folder: str) -> tuple[dict[str, int], list[str]]:
    """Its plain files with their sizes, and its folders; links are neither."""
    files, folders = {}, []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                found = entry.stat(follow_symlinks=False)
                if stat.S_ISREG(found.st_mode):
                    files[entry.name] = found.st_size
                elif stat.S_ISDIR(found.st_mode):
                    folders.append(entry.name)
    except OSError:
        pass
    return files, folders


USED = ("role", "roles", "host", "pid", "start_time", "boot_id", "clock", "ended_ns", "engine_config", "vllm")
"""Entries of process.json that a list needs; what else is in it would take as long again to be looked at."""


def _process(folder: Folder) -> ProcessInfo:
    record, _ = _head(f"{folder.path}/{names.PROCESS_FILE}")
    return process_info({key: record[key] for key in USED if key in record}, Path(folder.path))


def _with_start(info: SessionInfo, processes: list[ProcessInfo]) -> SessionInfo:
    """Without a record the first known moment of a process is the session's start, as for `Session`."""
    first = min((process for process in processes if process.clock), key=lambda p: p.clock or (0, 0), default=None)
    if first is None or first.clock is None:
        return info
    return replace(info, created_wall_ns=first.clock[0], created_monotonic_ns=first.clock[1], boot_id=first.boot_id)


def _starter(record: dict[str, Any], path: Path) -> ProcessInfo | None:
    """The process that began the session: `profilemate run`, or the program itself."""
    pid, start_time = whole(record.get("pid")), whole(record.get("start_time"))
    if not pid or not start_time:
        return None
    return ProcessInfo(path, "", (), pid=pid, start_time=start_time, boot_id=text(record.get("boot_id")))


def _duration_ns(info: SessionInfo, processes: list[ProcessInfo], folders: list[Folder]) -> int | None:
    """From the session's start to the last row or recorded end of a process."""
    moments = []
    for process, folder in zip(processes, folders, strict=True):
        ends = [last_time_ns(f"{folder.path}/{name}") for name in TIMED_STREAMS if name in folder.files]
        known = [moment for moment in (*ends, process.ended_ns) if moment is not None]
        moments += [max(known) + offset_of(process, info)] if known else []
    return max(0, *moments, 0) if moments and info.created_wall_ns else None


def _steps(folders: list[Folder]) -> int | None:
    """Sum over engines of their newest step's number; every engine of a process is among its last rows."""
    counts: list[int] = []
    for folder in folders:
        latest: dict[str, int] = {}
        for line in last_lines(f"{folder.path}/{STEPS}") if STEPS in folder.files else ():
            _, engine, step, *_ = [*line.split(",", 3), "", "", ""]
            if step.isascii() and step.isdecimal() and len(step) < 19:
                latest[engine] = int(step)
        counts += latest.values()
    return sum(counts) if counts else None
