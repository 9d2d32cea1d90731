"""Sessions into a data set, one after the other: one that cannot be read is named and stops none of the others."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from profilemate import __version__
from profilemate.fleet.dataset import STAGING, Dataset
from profilemate.fleet.paths import key_of
from profilemate.fleet.record import Row, write_overviews, write_session
from profilemate.fleet.streams import Places, write_streams
from profilemate.fleet.tables import FORMAT, fingerprint
from profilemate.fleet.write import Staged
from profilemate.frames.session import Session, open_session
from profilemate.session.alive import SILENT_SECONDS
from profilemate.session.errors import SessionError
from profilemate.session.records import text
from profilemate.sessions.choice import last_active
from profilemate.sessions.inventory import Entry, looks_like_session, read_entry, session_paths
from profilemate.sessions.state import RUNNING, UNKNOWN

EXPORTED, REPLACED, UNCHANGED, LEFT_OUT, FAILED = "exported", "replaced", "unchanged", "left out", "failed"


@dataclass(frozen=True)
class Wanted:
    """What was asked for. `since` is a moment in Unix seconds: sessions whose last row is older are not looked at."""

    since: float | None = None
    running_too: bool = False
    again: bool = False
    """Also sessions that did not change since they were exported."""
    dry: bool = False
    """Say what would be done."""


@dataclass(frozen=True)
class Done:
    """What became of one session; `why` says it where it was left out or failed, `notes` what it lacks."""

    path: Path
    outcome: str
    key: str = ""
    why: str = ""
    rows: int = 0
    num_bytes: int = 0
    lost_rows: int = 0
    notes: tuple[str, ...] = field(default=())


def sessions_below(folders: Sequence[Path]) -> list[Path]:
    """Session folders: those named, and those right below a named one. Raises SessionError where one is neither."""
    found: dict[Path, None] = {}
    for folder in folders:
        if not folder.is_dir():
            raise SessionError(f"there is no folder {folder}")
        own = [folder] if looks_like_session(folder) else session_paths(folder)
        if not own:
            raise SessionError(f"there is no session in {folder}")
        found.update(dict.fromkeys(path.resolve() for path in own))
    return list(found)


def export_all(
    dataset: Dataset | None, paths: Sequence[Path], wanted: Wanted, on_read: Callable[[str, int], None]
) -> Iterator[Done]:
    """Export them; `on_read` hears of the session and of bytes as they are read. A dry run may have no data set."""
    seen: dict[str, Path] = {}
    for path in paths:
        try:
            yield from _one(dataset, path, wanted, seen, on_read)
        except Exception as error:  # whatever a damaged session makes a library raise concerns that session alone
            yield Done(path, FAILED, why=text(_told(error)))


def _told(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if isinstance(error, SessionError):
        return str(error)
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"


def _one(
    dataset: Dataset | None,
    path: Path,
    wanted: Wanted,
    seen: dict[str, Path],
    on_read: Callable[[str, int], None],
) -> Iterator[Done]:
    entry = read_entry(path)
    if wanted.since is not None and last_active(entry) < wanted.since:
        return
    session = open_session(path)
    session.on_read = lambda num_bytes: on_read(path.name, num_bytes)
    key = key_of(session.info)
    if key in seen:
        raise SessionError(f"it is the same session as {seen[key]}, a copy of it: only that was exported")
    seen[key] = path
    obstacle = "" if wanted.running_too else _obstacle(entry)
    if obstacle:
        yield Done(path, LEFT_OUT, key, obstacle)
    elif dataset is None:
        yield Done(path, EXPORTED, key)
    else:
        yield _into(dataset, session, entry, key, wanted)


def _obstacle(entry: Entry) -> str:
    """Why a session is not exported yet, empty where it is."""
    if entry.state == RUNNING:
        return "it is running"
    if entry.state == UNKNOWN and time.time() - last_active(entry) < SILENT_SECONDS:
        return "it was recorded elsewhere, did not tell its end and has rows of the last hour, so it may run there"
    return ""


def _into(dataset: Dataset, session: Session, entry: Entry, key: str, wanted: Wanted) -> Done:
    before = dataset.manifest(key)
    told = (FORMAT, fingerprint(), session.fingerprint())
    if not wanted.again and told == tuple(before.get(name) for name in ("format", "columns", "fingerprint")):
        return Done(session.path, UNCHANGED, key)
    outcome = REPLACED if before else EXPORTED
    if wanted.dry:
        return Done(session.path, outcome, key)
    with dataset.taken(key) as folder:
        root = folder / STAGING
        with Staged(root, key) as staged:
            row = _write(staged, session, entry)
        num_bytes = sum((root / file).stat().st_size for file in staged.files)
        dataset.publish(staged, _manifest(session, staged, row, told))
    notes = tuple(str(row["missing"] or "").splitlines())
    return Done(session.path, outcome, key, "", row["rows"], num_bytes, row["lost_rows"], notes)


def _write(staged: Staged, session: Session, entry: Entry) -> Row:
    places = Places.of(session)
    counted = write_streams(staged, session, places)
    write_overviews(staged, session, places)
    return write_session(staged, session, places, entry, counted)


def _manifest(session: Session, staged: Staged, row: Row, told: tuple[int, str, str]) -> dict[str, Any]:
    lost: Counter[str] = Counter()
    for table, reason, rows in session.table("lost_rows").select("table", "reason", "rows").iter_rows():
        lost[f"{table}: {reason}"] += rows or 0
    return {
        **dict(zip(("format", "columns", "fingerprint"), told, strict=True)),
        "session": staged.key,
        "session_id": session.info.session_id,
        "profilemate": __version__,
        "exported": row["exported"].isoformat(),
        "state": row["state"],
        "rows": dict(sorted(staged.rows.items())),
        "lost_rows": dict(sorted(lost.items())),
        "faults": [str(fault) for fault in session.faults.list()],
        "missing": str(row["missing"] or "").splitlines(),
        "not_exported": [f"the stream {name} of a tracker of your own" for name in session.user_streams],
        "files": [],
    }
