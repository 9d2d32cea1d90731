"""One session: its processes and whether they live, hooks and their health, tables with their rows, gaps and damage.

Rows are counted as lines; `profilemate summary` reads them and counts those that do not fit. Times are seconds since the
session began.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from profilemate.cli.locate import configured_directory
from profilemate.cli.progress import Progress
from profilemate.export.metadata import process_record
from profilemate.session.alive import is_alive
from profilemate.session.errors import SessionError
from profilemate.session.find import LATEST, find_session
from profilemate.session.health import Health, read_health
from profilemate.session.records import ProcessInfo, text
from profilemate.session.session import Session
from profilemate.sessions.grid import Column, print_grid, print_lines
from profilemate.sessions.inventory import Entry, read_entry
from profilemate.sessions.state import ENDED, MEANING, RUNNING
from profilemate.sessions.tables import Stream, rows_as_text, stream_names, streams_of
from profilemate.sessions.words import bytes_text, count_of, span_text

EPILOG = """examples:
  profilemate show
  profilemate show latest --json | jq '.processes[] | {role, state}'
  profilemate show latest --table engine_steps --head 5
  profilemate show latest --table kv_evictions --head 0 > evictions.csv"""

HEAD_ROWS = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument(
        "session", nargs="?", default=LATEST, metavar="SESSION", help="a session, a folder of sessions, or latest"
    )
    parser.add_argument("--json", action="store_true", help="all of it as JSON")
    parser.add_argument("--table", metavar="NAME", help="print rows of this table instead, as CSV")
    parser.add_argument(
        "--head", type=count_of, metavar="N", help=f"so many rows of it (default {HEAD_ROWS}; 0 all of them)"
    )


@dataclass(frozen=True)
class Shown:
    """What the command tells of a session."""

    entry: Entry
    session: Session
    health: Health
    streams: tuple[Stream, ...]


def run(arguments: argparse.Namespace) -> int:
    """Print it; exit code 2 where there is no such session or table."""
    session = Session(find_session(arguments.session, configured_directory()))
    if arguments.table is not None:
        return _print_rows(session, arguments.table, HEAD_ROWS if arguments.head is None else arguments.head)
    if arguments.head is not None:
        raise SessionError("--head is about the rows of --table NAME")
    shown = _look_at(session)
    if arguments.json:
        sys.stdout.write(json.dumps(as_record(shown), indent=1) + "\n")
    else:
        _print(shown)
    return 0


def _look_at(session: Session) -> Shown:
    with Progress("counting rows") as progress:
        session.on_read = progress.read
        health = read_health(session)
        streams = [
            stream for process in session.processes for stream in streams_of(process, session.faults, progress.read)
        ]
    return Shown(read_entry(session.path), session, health, tuple(streams))


def _print_rows(session: Session, name: str, most: int) -> int:
    known = sorted({table for process in session.processes for table in stream_names(process)})
    if name not in known:
        there = f"there are {', '.join(known)}" if known else "it has none"
        raise SessionError(f"{session.path} has no table {name!r}; {there}")
    writer = csv.writer(sys.stdout, lineterminator="\n")
    for cells in itertools.islice(rows_as_text(session.processes, name), most + 1 if most else None):
        writer.writerow([text(cell) for cell in cells])
    return 0


def process_state(process: ProcessInfo) -> str:
    """running, ended, or gone: not on this machine now, and Python did not see its end (vLLM kills its engines so)."""
    return RUNNING if is_alive(process) else ENDED if process.ended_ns else "gone"


PROCESS_COLUMNS = (
    Column("process"),
    Column("ranks", rank=2),
    Column("state"),
    Column("pid", rank=3, is_number=True),
    Column("host", rank=5),
    Column("hooks", rank=1, is_number=True),
    Column("failed", rank=1, is_number=True),
    Column("rows", is_number=True),
    Column("size", rank=4, is_number=True),
    Column("vLLM", rank=6),
    Column("Python", rank=7),
    Column("torch", rank=8),
)

TABLE_COLUMNS = (
    Column("table"),
    Column("process", rank=1),
    Column("rows", is_number=True),
    Column("size", rank=2, is_number=True),
    Column("first s", rank=3, is_number=True),
    Column("last s", rank=3, is_number=True),
    Column("lost", is_number=True),
)


def _print(shown: Shown) -> None:
    print_lines([*_heading(shown), ""])
    left_out = print_grid(PROCESS_COLUMNS, [_process_cells(shown, process) for process in shown.session.processes])
    sys.stdout.write("\n")
    left_out += print_grid(TABLE_COLUMNS, [_table_cells(shown, stream) for stream in shown.streams])
    lines = _remarks(shown)
    if left_out:
        lines.append(f"no room for {', '.join(dict.fromkeys(left_out))}; a wider terminal or --json has them")
    print_lines(["", *lines, f"Files: {shown.session.path}"])


def _heading(shown: Shown) -> list[str]:
    from profilemate.export.metadata import created

    entry, info = shown.entry, shown.session.info
    begun = f"begun {created(info.created_wall_ns)}" if info.created_wall_ns else "beginning not known"
    length = f", {span_text(entry.duration_ns / 1e9)} to its last row" if entry.duration_ns is not None else ""
    merged = info.merged
    return [
        f"{info.session_id}, {begun}{length}, {bytes_text(entry.size_bytes)}",
        f"{entry.state}: {MEANING[entry.state]}" + ("; its detail was removed" if entry.is_trimmed else ""),
        *([f"model {entry.model}, vLLM {entry.vllm or 'unknown'}"] if entry.model else []),
        *([f"merged of {len(merged)} sessions: {', '.join(merged)}"] if merged else []),
    ]


def ranks_text(process: ProcessInfo) -> str:
    """Parallel groups of more than one, as `tp 1/2`."""
    groups = [group for group in ("dp", "pp", "tp") if process.ranks.get(f"{group}_size", 1) > 1]
    return " ".join(f"{group} {process.rank(group)}/{process.ranks[f'{group}_size']}" for group in groups) or "-"


def _process_cells(shown: Shown, process: ProcessInfo) -> tuple[str, ...]:
    hooks = [hook for hook in shown.health.by_process if hook.process == process.name]
    mine = [stream for stream in shown.streams if stream.process.name == process.name]
    return (
        process.role or process.name,
        ranks_text(process),
        process_state(process),
        str(process.pid or "-"),
        process.host or "-",
        str(sum(hook.state == "put_in" for hook in hooks)),
        str(sum(hook.failures > 0 or hook.state == "switched_off" for hook in hooks)),
        f"{sum(stream.rows for stream in mine):,}",
        bytes_text(sum(stream.size_bytes for stream in mine)),
        *(process.versions.get(name) or "-" for name in ("vllm", "python", "torch")),
    )


def _table_cells(shown: Shown, stream: Stream) -> tuple[str, ...]:
    return (
        stream.name,
        stream.process.role or stream.process.name,
        f"{stream.rows:,}",
        bytes_text(stream.size_bytes),
        *(_seconds(stream, moment) for moment in (stream.first_ns, stream.last_ns)),
        f"{_lost(shown, stream):,}" if _lost(shown, stream) else "-",
    )


def _seconds(stream: Stream, moment_ns: int | None) -> str:
    return "-" if moment_ns is None else f"{stream.process.at(moment_ns) / 1e9:.3f}"


def _lost(shown: Shown, stream: Stream) -> int:
    lost = shown.health.lost
    return sum(row.rows for row in lost if row.process == stream.process.name and row.table == stream.name)


def _remarks(shown: Shown) -> list[str]:
    health = shown.health
    lines = [f"hook did not fit: {hook.name} ({hook.reason or hook.state})" for hook in health.misfits]
    lines += [f"hook failed {hook.failures} times, {hook.state}: {hook.name}" for hook in health.failed]
    lines += _lost_lines(shown)
    lines += [str(fault) for fault in shown.session.faults.list()]
    return lines + [f"clocks: {sentence}" for sentence in shown.session.info.clock_notes]


def _lost_lines(shown: Shown) -> list[str]:
    return [
        f"rows missing: {row.rows:,} of {row.table} ({row.reason}), {row.process}"
        for row in shown.health.lost
        if row.rows
    ]


def as_record(shown: Shown) -> dict[str, Any]:
    """For --json. Times in seconds since the session began."""
    from profilemate.cli.list import as_record as entry_record

    return {
        **entry_record(shown.entry),
        "session_id": shown.session.info.session_id,
        "profilemate": shown.session.info.profilemate_version,
        "merged": list(shown.session.info.merged),
        "clocks": list(shown.session.info.clock_notes),
        "processes": [_process_record(shown, process) for process in shown.session.processes],
        "tables": [_table_record(shown, stream) for stream in shown.streams],
        "lost_rows": [row.__dict__ for row in shown.health.lost],
        "faults": [fault.__dict__ for fault in shown.session.faults.list()],
    }


def _process_record(shown: Shown, process: ProcessInfo) -> dict[str, Any]:
    hooks = [hook for hook in shown.health.by_process if hook.process == process.name]
    states: Sequence[str] = sorted({hook.state for hook in hooks})
    return {
        **process_record(process),
        "state": process_state(process),
        "ended_sec": None if process.ended_ns is None else process.at(process.ended_ns) / 1e9,
        "hooks": {state: sum(hook.state == state for hook in hooks) for state in states},
        "hook_failures": sum(hook.failures for hook in hooks),
    }


def _table_record(shown: Shown, stream: Stream) -> dict[str, Any]:
    first, last = (
        None if moment is None else stream.process.at(moment) / 1e9 for moment in (stream.first_ns, stream.last_ns)
    )
    return {
        "table": stream.name,
        "process": stream.process.name,
        "rows": stream.rows,
        "size_bytes": stream.size_bytes,
        "segments": stream.segments,
        "first_sec": first,
        "last_sec": last,
        "lost_rows": _lost(shown, stream),
    }
