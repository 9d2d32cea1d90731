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


def shifts_of(parts: Sequence[Part]) -> tuple[Shift, ...]:
    """In the order of the sessions: those whose numbers are taken go up past all that are."""
    taken: set[int] = set()
    shifts = []
    for part in parts:
        mine = engines_of(part)
        common = taken & mine
        by = max(taken) + 1 - min(mine) if common else 0
        note = ""
        if common:
            moved = ", ".join(f"{number} is {number + by}" for number in sorted(mine))
            note = f"engine numbers {_listed(common)} of {part.label} are taken: of its engines {moved} here"
        shifts.append(Shift(by, note))
        taken |= {number + by for number in mine}
    return tuple(shifts)


def engines_of(part: Part) -> set[int]:
    """Numbers of the engines that the session's engine cores and workers belong to."""
    return {number_of(process) for process in part.processes if set(process.roles) - set(WITHOUT_ENGINE)}


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
