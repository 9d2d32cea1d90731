"""Why a file is empty or a number is not whole, in sentences."""

from __future__ import annotations

from collections.abc import Sequence

from profilemate.export.analysis import Analysis
from profilemate.session.health import SIZE_CAP
from profilemate.session.records import ProcessInfo
from profilemate.session.session import Session
from profilemate.session.stream import WRONG_HEADER
from profilemate.session.views import engine_config
from profilemate.trackers import BY_NAME
from profilemate.trackers.view import CsvFile, tables_of

ROLE_WORDS = {"EngineCore": "engine core", "Worker": "worker", "APIServer": "front end"}


def empty_file_note(analysis: Analysis, tracker: str, file: CsvFile) -> str:
    """The reason that a file has no rows."""
    return f"{file.name} is empty: {_tracker_reason(analysis, tracker) or _configured(analysis, file)}"


def _tracker_reason(analysis: Analysis, tracker: str) -> str:
    session, title = analysis.session, BY_NAME[tracker].title
    hooks = [hook for hook in analysis.health.hooks if hook.tracker == tracker]
    states = {hook.state for hook in hooks}
    chosen = session.info.settings.get("trackers")
    if "tracker_off" in states or (isinstance(chosen, list) and tracker not in chosen):
        return f"{title} was off by setting"
    if not session.processes:
        return "no vLLM process was recorded in this session"
    misfits = [hook for hook in hooks if hook.state in ("absent", "does_not_fit")]
    if misfits and "put_in" not in states:
        return f"{title} did not fit this vLLM: {misfits[0].name} ({misfits[0].reason})"
    if "switched_off" in states:
        off = next(hook for hook in hooks if hook.state == "switched_off")
        return f"hook {off.name} was switched off after failures ({off.reason})"
    role = BY_NAME[tracker].role
    if not session.with_role(role):
        return f"no {ROLE_WORDS[role]} process was recorded"
    unread = unread_streams(session, tracker)
    return f"{', '.join(unread)} could not be read" if unread else ""


def unread_streams(session: Session, tracker: str) -> list[str]:
    """Files of this tracker's streams that were left out as a whole."""
    tables = {table.name for table in tables_of(tracker)}
    whole = [fault.where for fault in session.faults.list() if fault.what.startswith(LEFT_OUT)]
    return [where for where in whole if where.rpartition("/")[2].partition(".")[0] in tables]


LEFT_OUT = (WRONG_HEADER, "cannot be read", "not a plain file")
"""How the faults of a file begin of which no row was read."""


def _configured(analysis: Analysis, file: CsvFile) -> str:
    because = file.because(engine_config(analysis.session))
    return f"{file.nothing_happened} ({because})" if because else file.nothing_happened


def warning_notes(processes: Sequence[ProcessInfo]) -> list[str]:
    """Each warning once, with the roles of the processes that gave it; without them where all of several did."""
    roles: dict[str, list[str]] = {}
    for process in processes:
        for warning in dict.fromkeys(process.warnings):
            roles.setdefault(warning, []).append(process.role)
    return [
        warning if 1 < len(given) == len(processes) else f"{', '.join(dict.fromkeys(given))}: {warning}"
        for warning, given in roles.items()
    ]


def completeness_notes(analysis: Analysis) -> list[str]:
    """What is missing or estimated, one sentence each."""
    notes = [f"clocks: {note}" for note in analysis.session.info.clock_notes]
    notes += warning_notes(analysis.session.processes)
    capped = sorted({row.table for row in analysis.health.lost if row.reason == SIZE_CAP})
    if capped:
        notes.append(f"the size cap removed the oldest rows of {', '.join(capped)}; totals are exact over the session")
    failed = [row for row in analysis.health.lost if row.reason != SIZE_CAP]
    if failed:
        count, reasons = sum(row.rows for row in failed), ", ".join(sorted({row.reason for row in failed}))
        notes.append(f"{count} rows never reached the disk ({reasons}); counts made from rows lack these")
    for part in analysis.parts:
        notes += part.view.notes(part.result, part.counted)
    return notes
