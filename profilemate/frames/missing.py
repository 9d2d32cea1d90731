"""Sentences about what a session lacks: damage, lost rows, hooks that did not do their work, processes without a record."""

from __future__ import annotations

from collections.abc import Iterator

from profilemate.export import retention
from profilemate.export.notes import warning_notes
from profilemate.export.user_files import clashes
from profilemate.frames.describe import our_streams
from profilemate.frames.overviews import is_recorded
from profilemate.frames.scan import lacking
from profilemate.frames.shape import Shape
from profilemate.session.alive import SILENT_SECONDS, has_ended, is_elsewhere, living
from profilemate.session.health import SIZE_CAP, Health, read_health
from profilemate.session.records import ProcessInfo
from profilemate.session.session import Session
from profilemate.session.views import missing_ranks
from profilemate.trackers import TRACKERS
from profilemate.trackers.view import was_on


def sentences(session: Session) -> list[str]:
    """All of them, what concerns most first. Damage in rows is told of the streams that were read before."""
    health = read_health(session)
    return [
        *_whole_session(session),
        *_processes(session),
        *missing_ranks(session),
        *_hooks(health),
        *_lost_rows(health),
        *(str(fault) for fault in session.faults.list() if not fault.where.endswith(".json")),
        *_columns(session),
        *clashes(session),
        *warning_notes(session.processes),
        *_trackers_off(session),
    ]


def _whole_session(session: Session) -> Iterator[str]:
    if retention.is_trimmed(session.path):
        yield (
            "the rows of this session were removed to keep its folder under the cap: streams are empty, totals stand in "
            "metadata.json"
        )
    for fault in session.faults.list():
        if fault.where == f"{session.path.name}/session.json":
            yield f"{fault}: the first process's clock stands for the session's start, its settings are not known"
    if not session.processes:
        yield "no vLLM process was recorded"
    elif not living(session) and is_elsewhere(session) and not has_ended(session):
        yield (
            f"it has processes on another machine or in another container, and a row that is less than "
            f"{SILENT_SECONDS / 60:.0f} minutes old: it may still be running"
        )


def _processes(session: Session) -> Iterator[str]:
    for process in living(session):
        yield f"{process.name} is still running: its rows are those up to now"
    for process in session.processes:
        if not is_recorded(session, process):
            yield f"{process.name}: no readable process.json, so what it was is told by its name and its files"
        yield from _clock(session, process)


def _clock(session: Session, process: ProcessInfo) -> Iterator[str]:
    if not process.boot_id or not process.clock:
        yield f"{process.name}: its clock was not recorded; it is taken to be the session's"
    elif process.boot_id != session.info.boot_id:
        yield (
            f"{process.name}: it ran under another boot or on another machine; its times are aligned by the wall clocks, and "
            "are as good as these"
        )


def _hooks(health: Health) -> Iterator[str]:
    for hook in health.misfits:
        yield f"hook {hook.name} did not fit this vLLM: {hook.reason}"
    for hook in health.failed:
        end = " and is switched off" if hook.state == "switched_off" else ""
        yield f"hook {hook.name} failed {hook.failures} times{end}"
    silent = ", ".join(hook.name for hook in health.never_called)
    if silent:
        yield f"hooks that are in place and that vLLM never called: {silent}"


def _lost_rows(health: Health) -> Iterator[str]:
    for lost in health.lost:
        if lost.reason == SIZE_CAP:
            yield f"{lost.process}: the size cap removed the {lost.rows} oldest rows of {lost.table}"
        else:
            yield f"{lost.process}: {lost.rows} rows of {lost.table} never reached the disk ({lost.reason})"


def _columns(session: Session) -> Iterator[str]:
    for shape in map(Shape, our_streams().values()):
        for process in session.processes:
            for file, columns in lacking(session, process, shape).items():
                yield f"{file}: another version wrote it, without {', '.join(columns)}: these are empty"


def _trackers_off(session: Session) -> Iterator[str]:
    off = [tracker.name for tracker in TRACKERS if not was_on(session, tracker.name)]
    if off and session.processes:
        yield f"trackers that were off: {', '.join(off)}"
