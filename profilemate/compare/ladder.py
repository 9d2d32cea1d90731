"""Graphs by size, sessions side by side: what was captured, what was replayed, what ran without one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from profilemate.session.records import table_of

if TYPE_CHECKING:
    from profilemate.compare.material import Material


@dataclass(frozen=True)
class Rung:
    """A graph of one session. `share` is its part of the session's forward passes."""

    mode: str
    size: int
    is_captured: bool
    replays: int
    share: float
    padding: int


@dataclass(frozen=True)
class Step:
    """One mode and size with the rung of each session; None where a session has neither captured nor replayed it."""

    mode: str
    size: int
    rungs: tuple[Rung | None, ...]


def rungs(material: Material) -> dict[tuple[str, int], Rung]:
    """By mode and size, over the whole session."""
    graphs = material.frames.get("graphs")
    if graphs is None:
        return {}
    passes = table_of(table_of(table_of(material.metadata.get("summary")).get("cuda_graphs")).get("forward_passes"))
    total = passes.get("total") or int(graphs["replays"].sum()) or 1
    return {
        (mode, size): Rung(mode, size, captures > 0, replays, replays / total, padding)
        for mode, size, captures, replays, padding in graphs.iter_rows()
    }


def ladders(materials: Sequence[Material]) -> list[Step]:
    """All sizes of all sessions, FULL before PIECEWISE, ascending."""
    each = [rungs(material) for material in materials]
    keys = sorted({key for some in each for key in some}, key=lambda key: (key[0] != "FULL", key[0], key[1]))
    return [Step(mode, size, tuple(some.get((mode, size)) for some in each)) for mode, size in keys]
