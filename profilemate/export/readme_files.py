"""Writes the files that the README describes to the top of a session folder, with the standard library alone."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from profilemate import __version__
from profilemate.export import retention
from profilemate.export.analysis import Analysis, analyze
from profilemate.export.atomic import remove_left_overs, replacing
from profilemate.export.metadata import metadata
from profilemate.export.notes import completeness_notes, empty_file_note
from profilemate.export.user_files import clashes, user_rows, user_tables
from profilemate.schema import names
from profilemate.session.records import read_json
from profilemate.session.session import Session
from profilemate.trackers.view import Cells, shown_trackers, view_of


def file_names(session: Session) -> list[str]:
    """The files that this session has, metadata.json last."""
    views = [view_of(tracker.name) for tracker in shown_trackers(session)]
    csv_files = [file.name for view in views for file in view.csv_files]
    csv_files += [table.file for table in user_tables(session)]
    return [*csv_files, *(file.name for view in views for file in view.text_files), names.METADATA_FILE]


def write(session: Session, output: Path | None = None) -> dict[str, Any]:
    """Write all files, into `output` if that is given, and return metadata.json's content.

    Raises SessionError where the session's detail was removed, OSError where nothing can be written.
    """
    retention.refuse_trimmed(session)
    folder = output or session.path
    folder.mkdir(parents=True, exist_ok=True)
    is_asked_for = output is not None
    remove_left_overs(folder)
    fingerprint = _fingerprint(session)
    analysis = analyze(session)
    files: dict[str, int] = {}
    for part in analysis.parts:
        for file in part.view.csv_files:
            files[file.name] = _write_csv(folder / file.name, file.header, part.rows(session, file), is_asked_for)
    for table in user_tables(session):
        files[table.file] = _write_csv(folder / table.file, table.header, user_rows(session, table), is_asked_for)
    record = _record(analysis, files, fingerprint)
    for part in analysis.parts:
        for text_file in part.view.text_files:
            with replacing(folder / text_file.name, is_asked_for) as text:
                text.write(text_file.text(record))
    with replacing(folder / names.METADATA_FILE, is_asked_for) as text:
        json.dump(record, text, indent=1, default=str)
        text.write("\n")
    return record


def _write_csv(path: Path, header: Cells, rows: Iterable[Cells], is_asked_for: bool) -> int:
    count = 0
    with replacing(path, is_asked_for) as text:
        text.write(",".join(header) + "\n")
        for cells in rows:
            text.write(",".join(cells) + "\n")
            count += 1
    return count


def _record(analysis: Analysis, files: dict[str, int], fingerprint: str) -> dict[str, Any]:
    notes = [
        empty_file_note(analysis, part.name, file)
        for part in analysis.parts
        for file in part.view.csv_files
        if files.get(file.name) == 0
    ]
    notes += completeness_notes(analysis) + clashes(analysis.session)
    record = metadata(analysis, files, notes, fingerprint)
    return {**record, "user_files": [table.file for table in user_tables(analysis.session)]}


def _fingerprint(session: Session) -> str:
    return f"{__version__} {session.fingerprint()}"


def stored_metadata(path: Path) -> dict[str, Any] | None:
    """metadata.json of an earlier export; None if there is none that can be read."""
    try:
        return read_json(path / names.METADATA_FILE)
    except (OSError, ValueError):
        return None


def is_current(session: Session) -> bool:
    """Whether every file is there and made from the streams as they are now."""
    stored = stored_metadata(session.path)
    if stored is None or not all((session.path / name).is_file() for name in file_names(session)):
        return False
    return stored.get("streams_fingerprint") == _fingerprint(session)


def make_current(session: Session) -> bool:
    """Write the files anew where they are older than the streams. Raises OSError where that cannot be done."""
    if not is_current(session):
        write(session)
    return True


def current_metadata(session: Session) -> dict[str, Any]:
    """metadata.json's content as of now: the files are made anew if they are older than the streams.

    In a folder that cannot be written the content is worked out without them. Raises SessionError as `write` does.
    """
    if retention.is_trimmed(session.path) or is_current(session):
        stored = stored_metadata(session.path)
        if stored is not None:
            return stored
    try:
        return write(session)
    except OSError as error:
        record = _record(analyze(session), {}, "")
        record["notes"].append(f"the files of this session could not be written: {error.strerror}")
        return record


def export(session: Session, output: Path | None) -> str:
    """Format `csv`: write the files, keep the folder of sessions under its cap, and say where they are."""
    write(session, output)
    if output is None:
        tidy(session)
    return f"{output or session.path}\n"


def tidy(session: Session) -> None:
    """Apply the folder cap where the session was recorded; what cannot be removed stays."""
    directory = retention.recorded_in(session)
    if directory is not None:
        try:
            retention.enforce(directory, retention.cap_of(session), make_current)
        except (OSError, ValueError):
            return
