"""What a session says about itself, as rows of the data set's small tables."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any

from profilemate.export.retention import is_trimmed
from profilemate.fleet.paths import Place, day_of
from profilemate.fleet.session_columns import KV_TOTALS, SETTINGS
from profilemate.fleet.streams import Counted, Places, shown_workers
from profilemate.fleet.tables import SESSION, fleet_tables
from profilemate.fleet.write import Staged
from profilemate.frames.session import Session
from profilemate.schema import names
from profilemate.session.records import read_json, table_of, text, whole
from profilemate.session.views import engine_config
from profilemate.sessions.inventory import Entry

OVERVIEWS = ("processes", "engines", "hooks", "lost_rows", "faults")
LONGEST_TEXT = 20_000

Row = dict[str, Any]


def write_overviews(staged: Staged, session: Session, places: Places) -> None:
    """The tables that are not streams, but for `sessions`."""
    for name in OVERVIEWS:
        table = fleet_tables()[name]
        staged.add_rows(table, _overview_rows(name, staged.key, session, places))


def _overview_rows(name: str, key: str, session: Session, places: Places) -> Iterator[tuple[Place, Row]]:
    columns = fleet_tables()[name].columns
    by_name = {process.name: process for process in session.processes}
    for row in session.table(name).iter_rows(named=True):
        folder = row.get("process") or str(row.get("file", "")).partition("/")[0]
        process = by_name.get(folder)
        place = places.of_process(process) if process else places.of_session
        told = {column.name: row.get(column.source or column.name) for column in columns}
        if process and name == "processes":
            told |= {"model_name": places.model(process) or None, "to_unix_ns": _to_unix_ns(session, process.offset_ns)}
            told["host_name"] = place.host
        if name == "engines":
            place = place._replace(engine=row["engine_number"])
        yield place, told | {SESSION: key}


def _to_unix_ns(session: Session, offset_ns: int) -> int | None:
    created = session.info.created_wall_ns
    return offset_ns + created if created else None


def write_session(staged: Staged, session: Session, places: Places, entry: Entry, counted: Counted) -> Row:
    """The row of `sessions`, which is returned as well."""
    row = _session_row(staged, session, places, entry, counted)
    staged.add_rows(fleet_tables()["sessions"], [(places.of_session, row)])
    return row


def _session_row(staged: Staged, session: Session, places: Places, entry: Entry, counted: Counted) -> Row:
    info, place = session.info, places.of_session
    lost = session.table("lost_rows")
    streams = [table.name for table in fleet_tables().values() if table.is_stream]
    return {
        SESSION: staged.key,
        "session_id": info.session_id,
        "folder": text(session.path.name),
        "state": entry.state,
        "is_trimmed": entry.is_trimmed,
        "merged_of": " ".join(info.merged) or None,
        "began": _moment(info.created_wall_ns),
        "began_unix_ns": info.created_wall_ns or None,
        "duration_sec": None if entry.duration_ns is None else entry.duration_ns / 1e9,
        "began_day": day_of(info.created_wall_ns),
        "model_name": place.model,
        "host_name": place.host,
        "host_names": " ".join(entry.hosts) or None,
        **{name: _version(session, name) for name in ("vllm", "torch", "python", "profilemate")},
        "num_processes": len(session.processes),
        "trackers": " ".join(text(name) for name in _list(session.settings.get("trackers"))) or None,
        **_settings(session),
        "device_name": _device_name(session),
        **_totals(session, counted),
        "rows": sum(staged.rows.get(name, 0) for name in streams),
        "lost_rows": int(lost["rows"].sum() or 0),
        "faults": session.table("faults").height,
        "missing": "\n".join(session.missing(read_all=False))[:LONGEST_TEXT] or None,
        "exported": datetime.now(timezone.utc),
    }


def _moment(wall_ns: int) -> datetime | None:
    if day_of(wall_ns) is None:
        return None
    return datetime.fromtimestamp(wall_ns // 10**9, timezone.utc).replace(microsecond=wall_ns % 10**9 // 1000)


def _version(session: Session, name: str) -> str | None:
    return next((process.versions[name] for process in session.processes if process.versions.get(name)), None)


def _device_name(session: Session) -> str | None:
    named = (process.engine_config.get("device_name") for process in session.processes)
    return next((text(name) for name in named if name), None)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _settings(session: Session) -> Row:
    config = engine_config(session)
    return {name: _typed(config.get(name), kind) for name, kind in SETTINGS.items()}


def _typed(value: Any, kind: str) -> Any:
    """A setting with its column's type; what is of another kind is not known, but anything can be told as a text."""
    if value is None:
        return None
    if kind == "bool":
        return value if isinstance(value, bool) else None
    if kind == "str":
        return text(json.dumps(value) if isinstance(value, (list, dict)) else value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    if kind == "float":
        return float(value)
    return whole(value) if isinstance(value, int) and whole(value) == value else None


def _totals(session: Session, counted: Counted) -> Row:
    if is_trimmed(session.path):
        return _totals_of_trimmed(session)
    engines = list(counted.engines.values())
    shown = shown_workers(session) & counted.forwards.keys()
    forwards = sum(counted.forwards[name] for name in shown) if shown else None
    return {name: _sum([engine[own] for engine in engines]) for name, own in KV_TOTALS.items()} | {
        "forward_passes": forwards
    }


def _sum(values: list[int | None]) -> int | None:
    """None where there is nothing to add, or where a version does not tell one of them."""
    return None if not values or None in values else sum(value for value in values if value is not None)


def _totals_of_trimmed(session: Session) -> Row:
    """From metadata.json, which outlives the rows."""
    try:
        summary = table_of(read_json(session.path / names.METADATA_FILE).get("summary"))
    except (OSError, ValueError):
        summary = {}
    kv, graphs = table_of(summary.get("kv_cache")), table_of(summary.get("cuda_graphs"))
    found = {name: kv.get("steps" if own == "step" else own) for name, own in KV_TOTALS.items()}
    found["forward_passes"] = table_of(graphs.get("forward_passes")).get("total")
    return {name: _typed(value, "int") for name, value in found.items()}
