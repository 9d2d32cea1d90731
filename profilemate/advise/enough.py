"""Whether there is enough data for a statement, and how the finding says that there is not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from profilemate.advise.finding import THIN, Evidence, Finding
from profilemate.session.health import read_health

if TYPE_CHECKING:
    from profilemate.session.session import Session


class Need(NamedTuple):
    """So many of something are there, and so many are needed."""

    what: str
    have: float
    need: float

    @property
    def is_met(self) -> bool:
        """Whether there are enough."""
        return self.have >= self.need

    @property
    def words(self) -> str:
        """What is there, what is needed, how much is missing."""
        missing = self.need - self.have
        return (
            f"{self.have:,.0f} of the {self.need:,.0f} {self.what} that it takes ({max(1, -int(-missing // 1)):,} more)"
        )


def unmet(needs: Sequence[Need]) -> list[Need]:
    """Those that are not met."""
    return [need for need in needs if not need.is_met]


def thin(
    topic: str, name: str, about: str, needs: Sequence[Need], says: str = "", evidence: Sequence[Evidence] = ()
) -> Finding:
    """A finding that says only what is missing, and in `says` what can be told all the same."""
    missing = unmet(needs)
    lacks = "; ".join(need.words for need in missing)
    return Finding(
        topic=topic,
        name=name,
        level=THIN,
        title=_title(about),
        says=f"There are {lacks}.{' ' if says else ''}{says}",
        evidence=tuple(evidence),
        to_be_sure="Record for longer under the load that matters.",
        numbers={"needed": {need.what: {"have": need.have, "need": need.need} for need in needs}},
    )


def absent(topic: str, name: str, about: str, because: str) -> Finding:
    """A finding that cannot be made, since what it needs was not recorded at all."""
    return Finding(topic, name, THIN, _title(about), because)


def _title(about: str) -> str:
    """What it would be about, as a title; names of settings stay as they are."""
    return about if "_" in about.split()[0] else about[:1].upper() + about[1:]


def lost_rows(session: Session, *tables: str) -> str:
    """A sentence about rows of these tables that are not in the session; empty where all are."""
    lost: dict[str, int] = {}
    for row in read_health(session).lost:
        if row.table in tables and row.rows:
            lost[row.table] = lost.get(row.table, 0) + row.rows
    if not lost:
        return ""
    parts = ", ".join(f"{rows:,} rows of {table}" for table, rows in lost.items())
    return f" This is over the rows that are there: {parts} were removed or never reached the disk."
