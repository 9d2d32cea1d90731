"""The Session object: everything offline starts from one."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from profilemate.schema import names
from profilemate.schema.table import Table
from profilemate.session.errors import SessionError
from profilemate.session.faults import Faults
from profilemate.session.find import holds_session
from profilemate.session.records import (
    ProcessInfo,
    SessionInfo,
    printable,
    process_info,
    read_json,
    read_plain,
    session_info,
)
from profilemate.session.segments import open_segments
from profilemate.session.stream import Row, first_and_last_rows, stream_rows

ROLE_ORDER = {"APIServer": 0, "LLM": 0, "Script": 0, "EngineCore": 1, "Worker": 2}


class Session:
    """A session folder, read once for its processes; rows are read from disk each time they are asked for."""

    def __init__(self, path: Path) -> None:
        """Read session.json and every process.json. Raises SessionError where there is no session."""
        if not path.is_dir():
            raise SessionError(f"{path} is not a folder")
        if not holds_session(path):
            raise SessionError(
                f"{path} is not a session: it has neither {names.SESSION_FILE} nor {names.PROCESSES_FOLDER}/"
            )
        self.path = path
        self.faults = Faults()
        self.on_read: Callable[[int], None] = lambda num_bytes: None
        info = session_info(self._json(path / names.SESSION_FILE), path.name)
        processes = [self._process(folder) for folder in process_folders(path)]
        self.info = info if info.created_wall_ns else _guess_start(info, processes)
        self.processes = tuple(sorted((self._aligned(process) for process in processes), key=process_order))

    def rows(self, process: ProcessInfo, table: Table, *columns: str) -> Iterator[Row]:
        """Rows of a table as tuples of the given columns (all by default), oldest first.

        The files are opened now and read as the rows are taken. Damaged rows are left out and noted in `faults`.
        """
        segments = open_segments(process.folder, table.name, self.faults)
        return stream_rows(segments, table, columns or table.columns, self.faults, self._count_read)

    def first_and_last(self, process: ProcessInfo, table: Table, key: str) -> dict[Any, tuple[Row, Row]]:
        """The first and the last whole row of each value of an integer column, without reading all cells in between."""
        segments = open_segments(process.folder, table.name, self.faults)
        return first_and_last_rows(segments, table, key, self.faults, self._count_read)

    def has_rows(self, process: ProcessInfo, table: Table) -> bool:
        """Whether there is a row of this table."""
        return next(self.rows(process, table, table.columns[0]), None) is not None

    def with_role(self, role: str) -> tuple[ProcessInfo, ...]:
        """Processes that have this role, in order."""
        return tuple(process for process in self.processes if role in process.roles)

    def _count_read(self, num_bytes: int) -> None:
        self.on_read(num_bytes)

    def _process(self, folder: Path) -> ProcessInfo:
        return process_info(self._json(folder / names.PROCESS_FILE), folder)

    def _json(self, path: Path) -> dict[str, Any]:
        where = f"{printable(path.parent.name)}/{path.name}"
        try:
            record = read_json(path)
        except FileNotFoundError:
            self.faults.note(where, "missing")
            return {}
        except (OSError, ValueError) as error:
            self.faults.note(where, f"cannot be read: {error}")
            return {}
        written = record.get("format", names.FORMAT)
        if isinstance(written, int) and written != names.FORMAT:
            raise SessionError(
                f"{where} has format {written}, this ProfileMate reads format {names.FORMAT}: use the one that wrote it"
            )
        return record

    def _aligned(self, process: ProcessInfo) -> ProcessInfo:
        return replace(process, offset_ns=offset_of(process, self.info))

    def fingerprint(self) -> str:
        """Changes whenever a stream or a record does, and survives a copy to another machine."""
        digest = hashlib.sha256(f"{names.FORMAT}\n".encode())
        for path in [self.path / names.SESSION_FILE, *_stream_files(self.path)]:
            digest.update(os.fsencode(f"{path.relative_to(self.path)} {_size(path)}\n"))
            if path.suffix == ".json":
                digest.update(_content(path))
        return digest.hexdigest()[:32]


def offset_of(process: ProcessInfo, info: SessionInfo) -> int:
    """From its monotonic clock to nanoseconds since the session began: by that clock itself within one boot."""
    if not process.boot_id or not process.clock or process.boot_id == info.boot_id:
        return -info.created_monotonic_ns
    wall_ns, monotonic_ns = process.clock
    return wall_ns - monotonic_ns - info.created_wall_ns


def process_folders(session: Path) -> list[Path]:
    """Process folders by name; links are not followed."""
    try:
        with os.scandir(session / names.PROCESSES_FOLDER) as entries:
            return sorted(Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False))
    except OSError:
        return []


def process_order(process: ProcessInfo) -> tuple[Any, ...]:
    """Front end, engine cores, workers; within each by rank, then by age."""
    kind = ROLE_ORDER.get(process.role.split("_")[0], 3)
    ranks = [process.rank(group) for group in ("dp", "pp", "tp", "rank")]
    return (kind, process.engine_index or 0, *ranks, process.start_time, process.pid, process.name)


def _guess_start(info: SessionInfo, processes: list[ProcessInfo]) -> SessionInfo:
    """Without session.json the first process's first known moment is the session's start."""
    known = [process for process in processes if process.clock]
    if not known:
        return info
    first = min(known, key=lambda process: process.clock or (0, 0))
    wall_ns, monotonic_ns = first.clock or (0, 0)
    return replace(info, created_wall_ns=wall_ns, created_monotonic_ns=monotonic_ns, boot_id=first.boot_id)


def _stream_files(session: Path) -> list[Path]:
    found = []
    for folder in process_folders(session):
        with os.scandir(folder) as entries:
            found += [
                Path(entry.path) for entry in entries if entry.name.endswith(".csv") or entry.name == names.PROCESS_FILE
            ]
    return sorted(found)


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except OSError:
        return -1


def _content(path: Path) -> bytes:
    try:
        return read_plain(path)
    except (OSError, ValueError):
        return b""
