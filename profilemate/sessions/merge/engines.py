"""Engine numbers that stay apart: engines of a headless node have numbers of their own, engines of another server may not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from profilemate.session.records import ProcessInfo
from profilemate.sessions.merge.parts import Part

WITHOUT_ENGINE = ("APIServer",)


@dataclass(frozen=True)
class Shift:
    """By how much the engine numbers of a session go up, and the sentence that names the collision; 0 where there is none."""

    by: int = 0
    note: str = ""


@dataclass(frozen=True)
class Claim:
    """What a session has of an engine: its scheduler or workers alone, and the secrets that its processes were given."""

    has_scheduler: bool
    secrets: frozenset[str]

    def is_part_of(self, other: Claim) -> bool:
        """Whether both are one engine, spread over hosts by the program that started all: one scheduler, one secret."""
        return not (self.has_scheduler and other.has_scheduler) and bool(self.secrets & other.secrets)


def shifts_of(parts: Sequence[Part]) -> tuple[Shift, ...]:
    """In the order of the sessions: those whose numbers are taken by other engines go up past all that are."""
    taken: dict[int, list[Claim]] = {}
    shifts = []
    for part in parts:
        mine = claims_of(part)
        common = {
            number
            for number, claim in mine.items()
            if not all(claim.is_part_of(other) for other in taken.get(number, ()))
        }
        by = max(taken) + 1 - min(mine) if common else 0
        note = ""
        if common:
            moved = ", ".join(f"{number} is {number + by}" for number in sorted(mine))
            note = f"engine numbers {_listed(common)} of {part.label} are taken: of its engines {moved} here"
        shifts.append(Shift(by, note))
        for number, claim in mine.items():
            taken.setdefault(number + by, []).append(claim)
    return tuple(shifts)


def claims_of(part: Part) -> dict[int, Claim]:
    """By the number of each engine that the session's engine cores and workers belong to."""
    members: dict[int, list[ProcessInfo]] = {}
    for process in part.processes:
        if set(process.roles) - set(WITHOUT_ENGINE):
            members.setdefault(number_of(process), []).append(process)
    return {
        number: Claim(
            any(set(process.roles) - {"Worker"} for process in processes),
            frozenset(process.secret_id for process in processes if process.secret_id),
        )
        for number, processes in members.items()
    }


def number_of(process: ProcessInfo) -> int:
    """An engine core's index, a worker's data-parallel rank."""
    return process.rank("dp") if process.engine_index is None else process.engine_index


def shifted(record: dict[str, Any], process: ProcessInfo, shift: Shift) -> dict[str, Any]:
    """process.json with the numbers that hold in the joined session."""
    if not shift.by or not set(process.roles) - set(WITHOUT_ENGINE):
        return record
    index = process.engine_index
    if index is not None or "EngineCore" in process.roles:
        index = (index or 0) + shift.by
    return {**record, "engine_index": index, "ranks": {**process.ranks, "dp": process.rank("dp") + shift.by}}


def _listed(numbers: set[int]) -> str:
    return ", ".join(str(number) for number in sorted(numbers))
