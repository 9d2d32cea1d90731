"""session.json and process.json as typed objects; a field that is missing or of the wrong kind gets its default."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from profilemate.session.plain_files import NotPlainError, open_plain

LARGEST_JSON_BYTES = 16 << 20
MOST_JSON_PARTS = 500_000
"""Lists and objects; each takes some hundred bytes of memory."""
DEEPEST_JSON = 60
"""Our records have five levels; what is deeper could be read and not be written again."""


@dataclass(frozen=True)
class HookRecord:
    """State of one hook in one process, from process.json."""

    name: str
    tracker: str
    target: str
    state: str
    reason: str
    failures: int = 0


@dataclass(frozen=True)
class SessionInfo:
    """session.json. Times in nanoseconds. `merged` names the sessions that it was joined of, `clock_notes` how."""

    session_id: str
    created_wall_ns: int = 0
    created_monotonic_ns: int = 0
    boot_id: str = ""
    host: str = ""
    pid: int = 0
    profilemate_version: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    pid_namespace: str = ""
    merged: tuple[str, ...] = ()
    clock_notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ProcessInfo:
    """process.json and the folder it lies in. `offset_ns` turns its monotonic times into session time.

    `began_ns` is when ProfileMate came into it, monotonic; `entry_ns` what a wrapper costs beside its handlers. `ended_ns` is
    when Python ended it, None where it saw no end; an older ProfileMate does not tell (`tells_end`). Processes with one
    `secret_id` were started by one program, on whatever hosts.
    """

    folder: Path
    role: str
    roles: tuple[str, ...]
    ranks: Mapping[str, int] = field(default_factory=dict)
    engine_index: int | None = None
    host: str = ""
    pid: int = 0
    start_time: int = 0
    boot_id: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    clock: tuple[int, int] | None = None
    offset_ns: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    engine_config: Mapping[str, Any] = field(default_factory=dict)
    hooks: tuple[HookRecord, ...] = ()
    began_ns: int = 0
    entry_ns: float = 0.0
    ended_ns: int | None = None
    tells_end: bool = False
    secret_id: str = ""

    @property
    def name(self) -> str:
        """Name of the process folder, unique in the session as far as its characters can be shown."""
        return printable(self.folder.name)

    def rank(self, group: str) -> int:
        """Rank in a parallel group ("dp", "pp", "tp", ...), 0 where there is no such group."""
        return self.ranks.get(group, 0)

    def at(self, time_ns: int) -> int:
        """Nanoseconds since the session began, of a monotonic time of this process."""
        return time_ns + self.offset_ns


def read_plain(path: Path, most: int = LARGEST_JSON_BYTES) -> bytes:
    """A plain file's content, never through a link and never waiting for a pipe. Raises OSError, ValueError if it is larger."""
    try:
        descriptor = open_plain(path)
    except NotPlainError:
        raise ValueError("not a plain file") from None
    with open(descriptor, "rb") as file:
        if os.fstat(descriptor).st_size > most:
            raise ValueError(f"larger than {most >> 20} MiB")
        return file.read(most)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a plain file; see `json_object`. Raises OSError or ValueError."""
    return json_object(read_plain(path))


def json_object(data: bytes) -> dict[str, Any]:
    """A JSON object in which everything can be computed with and written again. Raises ValueError.

    What is no JSON although Python takes it (NaN, infinity), or fits nowhere (an integer beyond 64 bits), is None.
    """
    if data.count(b"[") + data.count(b"{") > MOST_JSON_PARTS:
        raise ValueError("too many lists and objects")
    try:
        record = _usable(json.loads(data), 0)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(record, dict):
        raise ValueError("not a JSON object")
    return record


def _usable(value: Any, depth: int) -> Any:
    if depth > DEEPEST_JSON:
        raise ValueError("nested too deeply")
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {_usable(key, depth): _usable(one, depth + 1) for key, one in value.items()}
    if isinstance(value, list):
        return [_usable(one, depth + 1) for one in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return None if isinstance(value, int) and not -(1 << 63) <= value < 1 << 63 else value


def printable(line: str) -> str:
    """A line without control characters, which would reach a terminal, and without those that turn its order round."""
    if line.isprintable() or _is_printable_as_bytes(line):
        return line
    return "".join(c if c.isprintable() else "?" for c in line)


def _is_printable_as_bytes(line: str) -> bool:
    """Whether it is good UTF-8 that a locale without it (LANG=C) had to read as single bytes, which it writes as they were."""
    try:
        return line.encode(errors="surrogateescape").decode().isprintable()
    except UnicodeError:
        return False


def text(value: Any) -> str:
    """Text of one printable line: control characters would reach a terminal."""
    if value is None:
        return ""
    return printable(str(value)[:4000])


def whole(value: Any) -> int:
    """An integer of at most 64 bits, else 0."""
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 63 else 0


def number(value: Any) -> float:
    """A finite number that is not negative, else 0."""
    fits = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < math.inf
    return float(value) if fits else 0.0


def table_of(value: Any) -> dict[str, Any]:
    """An object, else an empty one."""
    return value if isinstance(value, dict) else {}


def items_of(value: Any) -> list[Any]:
    """A list, else an empty one."""
    return value if isinstance(value, list) else []


def session_info(record: Mapping[str, Any], name: str) -> SessionInfo:
    """SessionInfo from session.json; `name` is the folder's."""
    return SessionInfo(
        session_id=text(record.get("session_id")) or name,
        created_wall_ns=whole(record.get("created_wall_ns")),
        created_monotonic_ns=whole(record.get("created_monotonic_ns")),
        boot_id=text(record.get("boot_id")),
        host=text(record.get("host")),
        pid=whole(record.get("pid")),
        profilemate_version=text(record.get("profilemate_version")),
        settings=table_of(record.get("settings")),
        pid_namespace=text(record.get("pid_namespace")),
        merged=tuple(text(table_of(part).get("session_id")) for part in items_of(record.get("merged"))),
        clock_notes=tuple(text(note) for note in items_of(record.get("clock_notes"))),
    )


def process_info(record: Mapping[str, Any], folder: Path) -> ProcessInfo:
    """ProcessInfo from process.json; what it lacks comes from the folder's name."""
    is_whole = all(record.get(name) for name in ("role", "roles", "host", "pid", "start_time"))
    named = ProcessInfo(folder, "", ()) if is_whole else info_from_name(folder)
    clock = table_of(record.get("clock"))
    index = record.get("engine_index")
    return ProcessInfo(
        folder=folder,
        role=text(record.get("role")) or named.role,
        roles=tuple(text(role) for role in items_of(record.get("roles"))) or named.roles,
        ranks={text(k): whole(v) for k, v in table_of(record.get("ranks")).items() if isinstance(v, int)},
        engine_index=index if isinstance(index, int) and 0 <= index < 1 << 31 else None,
        host=text(record.get("host")) or named.host,
        pid=whole(record.get("pid")) or named.pid,
        start_time=whole(record.get("start_time")) or named.start_time,
        boot_id=text(record.get("boot_id")),
        versions={name: text(record.get(name)) for name in ("python", "vllm", "torch", "profilemate")},
        clock=(whole(clock["wall_ns"]), whole(clock["monotonic_ns"])) if len(clock) >= 2 and _paired(clock) else None,
        settings=table_of(record.get("settings")),
        warnings=tuple(text(warning) for warning in items_of(record.get("warnings"))),
        engine_config=table_of(record.get("engine_config")),
        began_ns=whole(table_of(record.get("cost")).get("began_ns")),
        secret_id=text(record.get("secret_id")),
        entry_ns=number(table_of(record.get("cost")).get("entry_ns")),
        ended_ns=whole(record.get("ended_ns")) or None,
        tells_end="ended_ns" in record,
        hooks=tuple(_hook(item) for item in items_of(record.get("hooks")) if isinstance(item, dict)),
    )


def _paired(clock: Mapping[str, Any]) -> bool:
    return bool(whole(clock.get("wall_ns")) and whole(clock.get("monotonic_ns")))


def _hook(item: Mapping[str, Any]) -> HookRecord:
    return HookRecord(
        name=text(item.get("name")),
        tracker=text(item.get("tracker")),
        target=text(item.get("target")),
        state=text(item.get("state")),
        reason=text(item.get("reason")),
        failures=whole(item.get("failures")),
    )


def info_from_name(folder: Path) -> ProcessInfo:
    """What the name `<role>.<host>.<pid>.<start>` says, and the tables: which roles write which is known."""
    parts = [*folder.name.split("."), "", "", "", ""]
    role, host, pid, start = parts[:4]
    roles: list[str] = [kind for kind in ("APIServer", "LLM", "EngineCore", "Worker") if role.split("_")[0] == kind]
    for kind, table in (("EngineCore", "engine_steps"), ("Worker", "forward_passes"), ("Worker", "graph_captures")):
        if kind not in roles and (folder / f"{table}.csv").exists():
            roles.append(kind)
    numbers = [int(part) if part.isdecimal() and len(part) < 19 else 0 for part in (pid, start)]
    return ProcessInfo(folder, text(role), tuple(roles), host=text(host), pid=numbers[0], start_time=numbers[1])
