"""The top of the page: what the session is, in one line, and whether it is over."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timezone
from typing import Any

from profilemate.report.model import Masthead
from profilemate.report.numbers import lasting
from profilemate.report.source import Source
from profilemate.session.records import items_of, table_of, text
from profilemate.sessions.state import ENDED, MEANING, RUNNING

SO_FAR = "The server still runs: all figures are so far."


def masthead(source: Source) -> Masthead:
    """Model, vLLM, processes, when, how long."""
    record, entry = source.record, source.entry
    session = table_of(record.get("session"))
    name = text(session.get("session_id")) or text(source.session.path.name)
    model = text(table_of(record.get("engine_configuration")).get("model"))
    facts = [
        _versions(record),
        _processes(record),
        _date(session.get("created_wall_ns")),
        f"{lasting(entry.duration_ns / 1e9)} recorded" if entry.duration_ns is not None else "",
        f"on {text(session.get('host'))}" if session.get("host") else "",
    ]
    says = {RUNNING: SO_FAR, ENDED: ""}.get(entry.state, f"{entry.state.capitalize()}: {MEANING[entry.state]}.")
    return Masthead(model or name, name, tuple(fact for fact in facts if fact), entry.state, says)


def _versions(record: dict[str, Any]) -> str:
    versions = {
        text(table_of(one.get("versions")).get("vllm")) for one in map(table_of, items_of(record.get("processes")))
    }
    known = sorted(versions - {""})
    return f"vLLM {', '.join(known)}" if known else "vLLM's version is not known"


def _processes(record: dict[str, Any]) -> str:
    roles = Counter(text(table_of(one).get("role")).split("_")[0] for one in items_of(record.get("processes")))
    if not roles:
        return "no process"
    return ", ".join(role if number == 1 else f"{number} {role}" for role, number in roles.items())


def _date(wall_ns: Any) -> str:
    if not isinstance(wall_ns, int) or wall_ns <= 0:
        return ""
    try:
        moment = datetime.fromtimestamp(wall_ns / 1e9, timezone.utc)
    except (OverflowError, ValueError, OSError):
        return ""
    return f"{moment.day} {moment:%B %Y, %H:%M} UTC"
