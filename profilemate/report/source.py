"""What the sections are made from, each worked out once: the session's record, its figures, its findings."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

from profilemate.frames.packages import load
from profilemate.report.drawing import OWN_FAULT, drawing_of
from profilemate.report.model import Drawing, NoDrawing
from profilemate.session.errors import SessionError
from profilemate.session.records import items_of, table_of, text
from profilemate.sessions.inventory import Entry, read_entry
from profilemate.trackers import TRACKERS

if TYPE_CHECKING:
    from profilemate.advise.finding import Finding
    from profilemate.frames.session import Session

Draw = Callable[["Session", str], Any]
Advise = Callable[["Session"], "list[Finding]"]


class Source:
    """A session as the sections see it."""

    def __init__(self, session: Session, draw: Draw, advise: Advise) -> None:
        """`draw` makes a figure by name, `advise` the findings."""
        self.session = session
        self._draw = draw
        self._advise = advise

    @cached_property
    def record(self) -> dict[str, Any]:
        """metadata.json's content."""
        return self.session.metadata

    @cached_property
    def summary(self) -> dict[str, Any]:
        """What the trackers counted, by tracker."""
        return table_of(self.record.get("summary"))

    def tracker(self, name: str) -> dict[str, Any]:
        """One tracker's part, empty where nothing counted for it: 0 would say that something did."""
        part = table_of(self.summary.get(name))
        return {} if part.get("off") is True or name in self._nobody_counted else part

    @cached_property
    def _nobody_counted(self) -> frozenset[str]:
        """Trackers whose process is not in the session. The front end tells of requests, too."""
        processes = [table_of(process) for process in items_of(self.record.get("processes"))]
        roles = {text(role) for process in processes for role in items_of(process.get("roles"))}
        return frozenset(
            one.name for one in TRACKERS if one.role not in roles and not (one.name == "requests" and roles)
        )

    @cached_property
    def entry(self) -> Entry:
        """State, duration and size, as `profilemate list` has them."""
        return read_entry(self.session.path)

    @cached_property
    def findings(self) -> list[Finding]:
        """The advice."""
        return self._advise(self.session)

    def figure(self, name: str, title: str) -> Drawing | NoDrawing:
        """A figure by its name. One that fails says so in its place: a page that lacks a figure is still worth reading.

        Raises SessionError where a package is missing.
        """
        panic = load("polars").exceptions.PanicException
        try:
            return drawing_of(self._draw(self.session, name))
        except SessionError:
            raise
        except (Exception, panic) as error:
            reason = f"it cannot be put on the page, which is a {OWN_FAULT}: {type(error).__name__}: {str(error)[:300]}"
            return NoDrawing(name, title, reason, is_fault=True)
