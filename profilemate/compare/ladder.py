"""Graphs by size, sessions side by side: what was captured, what was replayed, what ran without one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from profilemate.frames.packages import load

if TYPE_CHECKING:
    from profilemate.compare.material import Material

MODES = ("FULL", "PIECEWISE")


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
    """By mode and size, over all kept rows of the session."""
    polars = load("polars")
    passes, captures = material.frames["passes"], material.frames.get("captures")
    total = int(passes["has_graph_cells"].sum()) or 1
    used = passes.filter(polars.col("is_replayed").fill_null(False)).group_by("mode", "size").agg(
        polars.len().alias("replays"), polars.col("padding").sum()
    )  # fmt: skip
    found = {
        (mode, size): Rung(mode, size, False, replays, replays / total, padding or 0)
        for mode, size, replays, padding in used.select("mode", "size", "replays", "padding").iter_rows()
    }
    if captures is not None:
        for mode, size in captures.select("mode", "size").unique().iter_rows():
            known = found.get((mode, size), Rung(mode, size, False, 0, 0.0, 0))
            found[mode, size] = Rung(mode, size, True, known.replays, known.share, known.padding)
    return found


def ladders(materials: Sequence[Material]) -> list[Step]:
    """All sizes of all sessions, FULL before PIECEWISE, ascending."""
    each = [rungs(material) for material in materials]
    keys = sorted({key for some in each for key in some}, key=lambda key: (key[0] != "FULL", key[0], key[1]))
    return [Step(mode, size, tuple(some.get((mode, size)) for some in each)) for mode, size in keys]
