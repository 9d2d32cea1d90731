"""What a tracker adds to the half that reads: its analysis, the README's files, its part of the summary."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from profilemate.schema.table import Table
from profilemate.session.session import Session
from profilemate.trackers import BY_NAME, TRACKERS, Tracker

Cells = tuple[str, ...]
Record = dict[str, Any]
"""Plain data, as it stands in metadata.json."""


OFF: Record = {"off": True}
"""What stands for the record of a tracker that no process of the session ran: nothing was counted, which is not zero."""


def _no_reason(config: Mapping[str, object]) -> str:
    return ""


def _no_sentences(*arguments: Any) -> Sequence[str]:
    return ()


@dataclass(frozen=True)
class CsvFile:
    """A CSV file at the top of the session, the columns that users know first and in their order.

    `rows(session, result, counted)` yields its cells and may count what `View.notes` will say about them. `nothing_happened`
    is said of an empty file; `because` may add a reason from the engine's configuration.
    """

    name: str
    header: Cells
    rows: Callable[[Session, Any, Counter[str]], Iterator[Cells]]
    nothing_happened: str
    because: Callable[[Mapping[str, object]], str] = _no_reason
    is_per_event: bool = False
    """It grows with the session, so that it may go when the folder of sessions is over its cap."""


@dataclass(frozen=True)
class TextFile:
    """A file made of metadata.json's content, a text or a JSON."""

    name: str
    text: Callable[[Record], str]


@dataclass(frozen=True)
class View:
    """One tracker's part. `result` is what `analyze` gave, `record` what of it is kept in metadata.json.

    `lines` are those of `profilemate summary` under the heading, of which the first `num_short_lines` stand at the end of a
    run. `findings` are about vLLM, `notes` about what the recording lacks.
    """

    heading: str
    analyze: Callable[[Session], Any]
    csv_files: tuple[CsvFile, ...]
    record: Callable[[Any], Record]
    lines: Callable[[Record], list[str]]
    num_short_lines: int = 0
    text_files: tuple[TextFile, ...] = ()
    findings: Callable[[Any], Sequence[str]] = _no_sentences
    notes: Callable[[Any, Counter[str]], Sequence[str]] = _no_sentences


def lines_of(view: View, record: Record) -> list[str]:
    """The lines of a tracker's record, or that it was off."""
    return ["off by setting"] if record == OFF else view.lines(record)


def view_of(tracker: str) -> View:
    """The view of a tracker by its name."""
    view: View = import_module(f"profilemate.trackers.{tracker}.view").VIEW
    return view


def tables_of(tracker: str) -> tuple[Table, ...]:
    """The streams of a tracker by its name."""
    tables: tuple[Table, ...] = import_module(f"profilemate.trackers.{tracker}.events").TABLES
    return tables


def was_on(session: Session, tracker: str) -> bool:
    """Whether a process of the session says that it ran this tracker; where none says anything, the default counts."""
    settings = [process.settings for process in session.processes] + [session.info.settings]
    chosen = [trackers for one in settings if isinstance(trackers := one.get("trackers"), list)]
    return any(tracker in trackers for trackers in chosen) if chosen else BY_NAME[tracker].on_by_default


def shown_trackers(session: Session) -> list[Tracker]:
    """Those whose files a session has: what is off unless asked for has none unless it was."""
    return [one for one in TRACKERS if one.on_by_default or was_on(session, one.name)]
