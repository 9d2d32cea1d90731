"""Writes the files that the README describes to the top of a session folder, with the standard library alone."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from profilemate import __version__
from profilemate.export import retention
from profilemate.export.analysis import Analysis, analyze
from profilemate.export.atomic import remove_left_overs, replacing
from profilemate.export.metadata import metadata
from profilemate.export.notes import completeness_notes, empty_file_note
from profilemate.export.tables import CSV_FILES, CsvFile
from profilemate.export.text import kv_summary_lines
from profilemate.schema import names
from profilemate.session.records import read_json
from profilemate.session.session import Session

KV_SUMMARY_FILE = "kv_cache_summary.txt"
FILE_NAMES = (*(file.name for file in CSV_FILES), KV_SUMMARY_FILE, names.METADATA_FILE)


def write(session: Session, output: Path | None = None) -> dict[str, Any]:
    """Write all files, into `output` if that is given, and return metadata.json's content.

    Raises SessionError where the session's detail was removed, OSError where nothing can be written.
    """
    retention.refuse_trimmed(session)
    folder = output or session.path
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    remove_left_overs(folder)
    fingerprint = _fingerprint(session)
    analysis = analyze(session)
    files: dict[str, int] = {}
    timeline: Counter[str] = Counter()
    for file in CSV_FILES:
        counted = timeline if file.name == "cuda_graph_timeline.csv" else Counter()
        files[file.name] = _write_csv(folder / file.name, file, analysis, counted)
    record = _record(analysis, files, timeline, fingerprint)
    with replacing(folder / KV_SUMMARY_FILE) as text:
        text.write("\n".join(kv_summary_lines(record)) + "\n")
    with replacing(folder / names.METADATA_FILE) as text:
        json.dump(record, text, indent=1, default=str)
        text.write("\n")
    return record


def _write_csv(path: Path, file: CsvFile, analysis: Analysis, counted: Counter[str]) -> int:
    rows = 0
    with replacing(path) as text:
        text.write(",".join(file.header) + "\n")
        for cells in file.rows(analysis, counted):
            text.write(",".join(cells) + "\n")
            rows += 1
    return rows


def _record(analysis: Analysis, files: dict[str, int], timeline: Counter[str], fingerprint: str) -> dict[str, Any]:
    notes = [empty_file_note(analysis, file.name, file.tracker) for file in CSV_FILES if files.get(file.name) == 0]
    return metadata(analysis, files, notes + completeness_notes(analysis, timeline), fingerprint)


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
    if stored is None or not all((session.path / name).is_file() for name in FILE_NAMES):
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
        record = _record(analyze(session), {}, Counter(), "")
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
