"""Everything the exports need of a session, read once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from profilemate.session.health import Health, read_health
from profilemate.session.own_cost import ProcessCost, read_own_cost
from profilemate.session.session import Session
from profilemate.trackers.view import Cells, CsvFile, View, shown_trackers, view_of


@dataclass(frozen=True)
class TrackerPart:
    """One tracker's result; `counted` is what was counted while its files were written."""

    name: str
    view: View
    result: Any
    counted: Counter[str] = field(default_factory=Counter)

    def rows(self, session: Session, file: CsvFile) -> Iterator[Cells]:
        """Rows of one of its files."""
        return file.rows(session, self.result, self.counted)


@dataclass(frozen=True)
class Analysis:
    """A session and what its trackers say."""

    session: Session
    health: Health
    parts: tuple[TrackerPart, ...]
    own_cost: tuple[ProcessCost, ...]

    def result_of(self, tracker: str) -> Any:
        """What one tracker's `analyze` gave. Raises KeyError for a tracker that is not shown."""
        return {part.name: part.result for part in self.parts}[tracker]


def analyze(session: Session) -> Analysis:
    """Run every tracker's analysis."""
    parts = []
    for tracker in shown_trackers(session):
        view = view_of(tracker.name)
        parts.append(TrackerPart(tracker.name, view, view.analyze(session)))
    health = read_health(session)
    return Analysis(session, health, tuple(parts), read_own_cost(session, health))
