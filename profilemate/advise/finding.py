"""What a piece of advice consists of, and what became of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

ACT, LOOK, FINE, THIN = "act", "look", "fine", "thin"
"""How much a finding matters: a flag should be changed; look at it; nothing to do; too little data to say anything."""


@dataclass(frozen=True)
class Evidence:
    """Where a reader finds the rows that a finding rests on: a stream or file, which of its rows, and how many."""

    table: str
    rows: int
    which: str = ""


@dataclass(frozen=True)
class Gain:
    """A predicted change of one quantity. `low` and `high` bound `expected`; all are in `unit`."""

    quantity: str
    unit: str
    now: float
    expected: float
    low: float
    high: float
    how: str
    """Where the range comes from."""


@dataclass(frozen=True)
class Finding:
    """One finding. `flags` are ready for a shell, and empty where there is nothing to set; all of them belong together.

    A flag is one text with its values, such as `--max-num-seqs 64`. `alternatives` are whole command lines that bring
    the same in another way. `numbers` are plain data: everything that the sentence is made of, and what `verify` needs.
    """

    topic: str
    name: str
    """Unique in the session, such as `capture_sizes.ladder`."""
    level: str
    title: str
    says: str
    evidence: tuple[Evidence, ...] = ()
    flags: tuple[str, ...] = ()
    gains: tuple[Gain, ...] = ()
    to_be_sure: str = ""
    numbers: Mapping[str, Any] = field(default_factory=dict)
    alternatives: tuple[str, ...] = ()

    @property
    def command_line(self) -> str:
        """The flags as one line to be copied; empty where there is nothing to set."""
        return " ".join(self.flags)


@dataclass(frozen=True)
class Verdict:
    """What was predicted from one session and what another one shows."""

    name: str
    """Of the finding."""
    quantity: str
    unit: str
    predicted: float
    low: float
    high: float
    observed: float
    says: str

    @property
    def holds(self) -> bool:
        """Whether what was observed lies in the predicted range."""
        return self.low <= self.observed <= self.high
