"""metadata.json: what was recorded, by whom, with which settings, and what the other files lack."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from profilemate.export.analysis import Analysis
from profilemate.export.record import summary_record
from profilemate.schema import names
from profilemate.session.health import ProcessHook
from profilemate.session.records import ProcessInfo
from profilemate.session.views import engine_config


def metadata(analysis: Analysis, files: Mapping[str, int], notes: list[str], fingerprint: str) -> dict[str, Any]:
    """The content, the same for the same streams. `files` are the rows of each CSV file."""
    info = analysis.session.info
    return {
        "format": names.FORMAT,
        "session": {
            "session_id": info.session_id,
            "created": created(info.created_wall_ns),
            "created_wall_ns": info.created_wall_ns,
            "host": info.host,
            "pid": info.pid,
            "profilemate_version": info.profilemate_version,
        },
        "processes": [process_record(process) for process in analysis.session.processes],
        "engine_configuration": dict(engine_config(analysis.session)),
        "settings": dict(info.settings),
        "files": dict(files),
        "notes": notes,
        "findings": list(dict.fromkeys(one for part in analysis.parts for one in part.view.findings(part.result))),
        "faults": [str(fault) for fault in analysis.session.faults.list()],
        "gaps": [
            {"process": row.process, "table": row.table, "reason": row.reason, "rows": row.rows}
            for row in analysis.health.lost
        ],
        "summary": summary_record(analysis),
        "hooks": [_hook(hook) for hook in analysis.health.by_process],
        "streams_fingerprint": fingerprint,
    }


def created(wall_ns: int) -> str:
    """Date and time in UTC."""
    return datetime.fromtimestamp(wall_ns // 1_000_000_000, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def process_record(process: ProcessInfo) -> dict[str, Any]:
    """What metadata.json says of a process."""
    return {
        "name": process.name,
        "role": process.role,
        "roles": list(process.roles),
        "ranks": dict(process.ranks),
        "engine_index": process.engine_index,
        "host": process.host,
        "pid": process.pid,
        "start_time": process.start_time,
        "versions": dict(process.versions),
        "warnings": list(process.warnings),
    }


def _hook(hook: ProcessHook) -> dict[str, Any]:
    return {
        "process": hook.process,
        "name": hook.record.name,
        "tracker": hook.record.tracker,
        "target": hook.record.target,
        "state": hook.state,
        "reason": hook.record.reason,
        "calls": hook.calls,
        "failures": hook.failures,
        "as_of_sec": None if hook.as_of_ns is None else round(hook.as_of_ns / 1e9, 6),
    }
