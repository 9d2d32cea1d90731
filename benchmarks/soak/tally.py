"""What a soak counted: one episode per fault, and everything that was not as it should be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Episode:
    """One fault from before it until the server was itself again, or gone. Requests by how they ended, here and without us.

    `lost` are rows that the session names as missing, by reason; `late` those of earlier faults that it names only now;
    `stalls` the times that vLLM said of itself that nothing ran; `troubles` what should not be, in sentences.
    """

    fault: str
    answered: int = 0
    answered_bare: int = 0
    failures: dict[str, int] = field(default_factory=dict)
    failures_bare: dict[str, int] = field(default_factory=dict)
    lost: dict[str, int] = field(default_factory=dict)
    named_in: str = ""
    troubles: tuple[str, ...] = ()
    stalls: int = 0
    stalls_bare: int = 0
    late: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class FaultTotal:
    """All episodes of one fault."""

    fault: str
    times: int
    answered: int
    answered_bare: int
    failed: int
    failed_bare: int
    lost: dict[str, int]
    named_in: str
    troubles: int
    stalls: int
    stalls_bare: int


def totals(episodes: Iterable[Episode]) -> list[FaultTotal]:
    """One line per fault, in the order in which they first came."""
    groups: dict[str, list[Episode]] = {}
    for episode in episodes:
        groups.setdefault(episode.fault, []).append(episode)
    return [_total(fault, group) for fault, group in groups.items()]


def _total(fault: str, group: list[Episode]) -> FaultTotal:
    lost: Counter[str] = Counter()
    for episode in group:
        lost.update(episode.lost)
    return FaultTotal(
        fault,
        len(group),
        sum(episode.answered for episode in group),
        sum(episode.answered_bare for episode in group),
        sum(sum(episode.failures.values()) for episode in group),
        sum(sum(episode.failures_bare.values()) for episode in group),
        dict(lost),
        "; ".join(dict.fromkeys(episode.named_in for episode in group if episode.named_in)),
        sum(len(episode.troubles) for episode in group),
        sum(episode.stalls for episode in group),
        sum(episode.stalls_bare for episode in group),
    )


@dataclass(frozen=True)
class LifeEnd:
    """One session after its server's end: what an oracle outside of it counted, beside what is in it."""

    server: str
    exit_code: int | None
    exit_code_bare: int | None
    cap_bytes: int
    steps: int = 0
    step_rows: int = 0
    step_rows_named_missing: int = 0
    passes: int = 0
    pass_rows: int = 0
    pass_rows_named_missing: int = 0
    bytes_kept: int = 0
    troubles: tuple[str, ...] = ()


def as_json(value: Any) -> dict[str, Any]:
    """A data class as a dictionary for JSON."""
    return asdict(value)
