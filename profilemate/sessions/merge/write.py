"""The joined session's folder: streams linked where that can be, records with what holds in it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from profilemate.schema import names
from profilemate.session.records import ProcessInfo, read_json
from profilemate.sessions.inventory import MODE
from profilemate.sessions.merge.clocks import Clock
from profilemate.sessions.merge.engines import Shift, shifted
from profilemate.sessions.merge.parts import Part
from profilemate.sessions.merge.seen import Renamed
from profilemate.sessions.state import RUNNING
from profilemate.trackers.prefix_lookups.events import BLOCKS, LOOKUPS
from profilemate.trackers.requests.events import IN_ENGINE, PREEMPTIONS

ID_COLUMNS = {IN_ENGINE.name: ("request",), PREEMPTIONS.name: ("request", "for_request")}
ID_COLUMNS |= {table.name: ("request",) for table in (LOOKUPS, BLOCKS)}
"""Columns of an engine's streams that name a request."""


def free_name(processes: Path, wanted: str) -> str:
    """A name that no process folder has: processes of two containers may have the same host, pid and start."""
    name, number = wanted, 1
    while (processes / name).exists():
        number += 1
        name = f"{wanted}.{number}"
    return name


def write_process(part: Part, process: ProcessInfo, target: Path, clock: Clock, shift: Shift, ids: Renamed) -> None:
    """One process folder: the record with this session's clock and engine number, and the streams."""
    target.mkdir(mode=MODE)
    record = _record_of(part, process, clock)
    _write_json(target / names.PROCESS_FILE, shifted(record, process, shift))
    other_id = ids.of(process.folder)
    for path in _streams(process.folder):
        columns = ID_COLUMNS.get(path.name.partition(".")[0], ())
        if other_id and columns:
            _copy_renamed(path, target / path.name, columns, other_id)
        else:
            link_or_copy(path, target / path.name, may_grow=part.entry.state == RUNNING)


def _record_of(part: Part, process: ProcessInfo, clock: Clock) -> dict[str, Any]:
    """process.json, or what is known without one, with the anchor that puts it on the reference's clock."""
    try:
        record = read_json(process.folder / names.PROCESS_FILE)
    except (OSError, ValueError):
        record = {"format": names.FORMAT, "role": process.role, "roles": list(process.roles)}
        record |= {"host": process.host, "pid": process.pid, "start_time": process.start_time}
    monotonic_ns = process.clock[1] if process.clock else part.session.info.created_monotonic_ns
    anchor = {"wall_ns": monotonic_ns + clock.offset_ns, "monotonic_ns": monotonic_ns}
    return {**record, "boot_id": clock.boot, "clock": anchor, "merged_from": part.label}


def _streams(folder: Path) -> Iterator[Path]:
    with os.scandir(folder) as entries:
        found = [
            Path(entry.path)
            for entry in entries
            if entry.name.endswith(".csv") and entry.is_file(follow_symlinks=False)
        ]
    yield from sorted(found)


def link_or_copy(source: Path, target: Path, may_grow: bool = False) -> None:
    """A hard link costs no space; what may grow, and what another file system holds, is copied."""
    if not may_grow:
        try:
            os.link(source, target, follow_symlinks=False)
            return
        except OSError:
            pass
    shutil.copyfile(source, target, follow_symlinks=False)
    target.chmod(0o600)


def _copy_renamed(source: Path, target: Path, columns: tuple[str, ...], other_id: Callable[[str], str]) -> None:
    """A stream with the request ids of the front end that took the requests in."""
    with (
        open(source, encoding="utf-8", errors="surrogateescape", newline="\n") as old,
        open(target, "x", encoding="utf-8", errors="surrogateescape", newline="\n", opener=_privately) as new,
    ):
        header = old.readline()
        new.write(header)
        known = header.rstrip("\n").split(",")
        places = [known.index(column) for column in columns if column in known]
        for line in old:
            cells = line.rstrip("\n").split(",")
            if len(cells) == len(known):
                for place in places:
                    cells[place] = other_id(cells[place])
                line = ",".join(cells) + line[len(line.rstrip("\n")) :]
            new.write(line)


def _privately(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _write_json(path: Path, record: dict[str, Any]) -> None:
    with os.fdopen(
        os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w", encoding="utf-8"
    ) as file:
        file.write(json.dumps(record, indent=1) + "\n")


def write_session(folder: Path, record: dict[str, Any]) -> None:
    """session.json."""
    _write_json(folder / names.SESSION_FILE, record)


def in_one_step(target: Path, fill: Callable[[Path], None]) -> None:
    """Make a folder beside the target, fill it, and give it its name; nothing is left where that fails."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}.new")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(mode=MODE)
    try:
        fill(temporary)
        os.replace(temporary, target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
