"""The sessions that are to be joined, and whether they may be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from profilemate.export.retention import is_trimmed
from profilemate.session.errors import SessionError
from profilemate.session.records import ProcessInfo
from profilemate.session.session import Session
from profilemate.sessions.inventory import Entry, read_entry
from profilemate.sessions.state import RUNNING
from profilemate.sessions.words import span_text


@dataclass(frozen=True)
class Part:
    """One of the sessions. `label` is what sentences call it: its folder's name, with its parent's where two are alike."""

    session: Session
    entry: Entry
    label: str

    @property
    def processes(self) -> tuple[ProcessInfo, ...]:
        """Its processes."""
        return self.session.processes

    def boot_of(self, process: ProcessInfo) -> str:
        """Names the clock of a process: its kernel's boot; that of the session where the process did not tell."""
        return process.boot_id or self.session.info.boot_id or f"unknown, {self.label}"

    @property
    def span_ns(self) -> tuple[int, int]:
        """Wall clock from its beginning to its last row."""
        begun = self.entry.begun_ns or 0
        return begun, begun + (self.entry.duration_ns or 0)


def read_parts(paths: Sequence[Path]) -> tuple[Part, ...]:
    """Open the sessions. Raises SessionError where one is none, is of another format, or was named twice."""
    if len(paths) < 2:
        raise SessionError("name two sessions at least")
    resolved = [path.resolve() for path in paths]
    if len(set(resolved)) < len(resolved):
        raise SessionError("the same session was named twice")
    alike = len({path.name for path in resolved}) < len(resolved)
    return tuple(
        Part(Session(path), read_entry(path), f"{path.parent.name}/{path.name}" if alike else path.name)
        for path in resolved
    )


def refuse_unfit(parts: Sequence[Part], force: bool) -> list[str]:
    """Sentences about what speaks against joining them. Raises SessionError for what force does not allow, or without it."""
    for part in parts:
        if is_trimmed(part.session.path):
            raise SessionError(f"{part.label}: its detail was removed, so there is nothing to join")
        if not part.processes:
            raise SessionError(f"{part.label} has no process")
    doubts = [f"{part.label} is running; it is joined as it is now" for part in parts if part.entry.state == RUNNING]
    doubts += _apart(parts)
    if doubts and not force:
        raise SessionError(f"{'; '.join(doubts)}; --force joins them all the same")
    return doubts


def _apart(parts: Sequence[Part]) -> list[str]:
    """Sessions that were not recorded while any other was."""
    doubts = []
    for part in parts:
        gaps = [
            max(other.span_ns[0] - part.span_ns[1], part.span_ns[0] - other.span_ns[1])
            for other in parts
            if other is not part
        ]
        if min(gaps) > 0:
            doubts.append(
                f"{part.label} was not recorded at the same time as any of the others ({span_text(min(gaps) / 1e9)} apart)"
            )
    return doubts
