"""The ladder of CUDA graph sizes: configured, effective, captured and replayed, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import altair as alt
import polars as pl

from profilemate.export.retention import is_trimmed
from profilemate.figures import style
from profilemate.figures.columns import least, most
from profilemate.figures.passes import FULL, PIECEWISE, captured, counted
from profilemate.figures.source import Drawn, notes, nothing
from profilemate.figures.style import kinds
from profilemate.figures.thin import MOST_POINTS
from profilemate.schema.names import ASKED_SIZES
from profilemate.session.views import engine_config, graph_workers
from profilemate.trackers.cuda_graphs import events

if TYPE_CHECKING:
    from profilemate.frames.session import Session

SIZES = "cudagraph_capture_sizes"
CONFIGURED, EFFECTIVE = "configured", "in effect"
REPLAYED, NEVER, SET = "replayed", "captured, never replayed", "in the configuration"
STATES = kinds((SET, "grey"), ("captured", "orange"), (REPLAYED, "blue"), (NEVER, "vermilion"))
SHAPES = {SET: "M-0.18,-1L0.18,-1L0.18,1L-0.18,1Z", "captured": "square", REPLAYED: "circle", NEVER: "cross"}
MODES = (FULL, PIECEWISE)
MOST_NAMED = 8
MOST_LARGE = 16


@dataclass(frozen=True)
class _Rung:
    row: str
    size: int
    state: str
    replays: int = 0


def graph_ladder(session: Session) -> Drawn:
    """One row per list of sizes; what was captured and never replayed has a shape of its own."""
    asked, effective = _configured(session)
    taken, used = captured(session), counted(session)
    replays = {
        (mode, size): count
        for mode, size, count in used.select("runtime_mode", "num_tokens", "replays").rows()
        if count
    }
    kept = {(mode, size) for mode, size in taken.select("runtime_mode", "num_tokens").rows()}
    if not replays and ((not kept and not effective) or is_trimmed(session.path)):
        raise nothing(session, "no CUDA graph was configured, captured or replayed", events.PASSES, events.CAPTURES)
    rungs = [_Rung(CONFIGURED, size, SET) for size in asked] + [_Rung(EFFECTIVE, size, SET) for size in effective]
    for mode in MODES:
        sizes = sorted(size for name, size in kept if name == mode)
        rungs += [_Rung(f"captured {mode}", size, "captured" if (mode, size) in replays else NEVER) for size in sizes]
        ran = sorted(size for name, size in replays if name == mode)
        rungs += [_Rung(f"replayed {mode}", size, REPLAYED, replays[mode, size]) for size in ran]
    if not rungs:
        raise nothing(
            session, "no CUDA graph of a mode that vLLM has was configured, captured or replayed", events.PASSES
        )
    says = _says(asked, effective, kept, replays)
    together = -(-len(rungs) // MOST_POINTS)
    chart = style.chart_of(_chart(rungs[::together]), says, height=26 * len({rung.row for rung in rungs}) + 10)
    return Drawn(chart, says, _note(session, f"Of each {together} sizes one is drawn." if together > 1 else ""))


def _configured(session: Session) -> tuple[list[int], list[int]]:
    """Sizes by the front end's configuration (or as they were asked, where that is recorded) and by the workers'."""
    on_command_line = (process.engine_config.get(ASKED_SIZES) for process in session.processes)
    asked = next(filter(None, on_command_line), None) or engine_config(session).get(SIZES)
    of_workers = (worker.process.engine_config.get(SIZES) for worker in graph_workers(session))
    effective = next((sizes for sizes in of_workers if isinstance(sizes, list)), None)
    return _numbers(asked), _numbers(effective if effective is not None else asked)


def _numbers(value: Any) -> list[int]:
    return sorted({size for size in value if isinstance(size, int) and size > 0}) if isinstance(value, list) else []


def _chart(rungs: Sequence[_Rung]) -> Any:
    frame = pl.DataFrame([(rung.row, rung.size, rung.state, rung.replays) for rung in rungs],
                         schema=["row", "size", "state", "replays"], orient="row")  # fmt: skip
    states = style.present(STATES, frame["state"].unique().to_list())
    rows = list(dict.fromkeys(rung.row for rung in rungs))
    return (
        alt.Chart(frame)
        .mark_point(filled=True, opacity=1)
        .encode(
            x=style.doublings_x("size of the graph (tokens)", least(frame["size"]), most(frame["size"]), "size"),
            y=alt.Y("row:N", title=None, sort=rows),
            color=style.by_kind(states, "state"),
            shape=alt.Shape("state:N", scale=alt.Scale(domain=[state.label for state in states],
                                                       range=[SHAPES[state.label] for state in states])),
            size=alt.Size("replays:Q", scale=alt.Scale(type="sqrt", range=_sizes(frame)), legend=None),
            tooltip=style.tips("row|list", "size|tokens|,", "state|state", "replays|forward passes|,"),
        )
    )  # fmt: skip


def _sizes(frame: pl.DataFrame) -> list[int]:
    """Areas of the symbols: small ones where many sizes stand in a row."""
    return [70, 420] if most(frame.group_by("row").len()["len"]) <= MOST_LARGE else [18, 130]


def _says(
    asked: list[int], effective: list[int], kept: set[tuple[str, int]], replays: dict[tuple[str, int], int]
) -> str:
    idle = sorted(kept - set(replays))
    by_mode = " and ".join(
        f"{sum(name == mode for name, _ in kept)} {mode}" for mode in MODES if any(name == mode for name, _ in kept)
    )
    named = ", ".join(f"{mode} {size}" for mode, size in idle[:MOST_NAMED])
    more = f" and {len(idle) - MOST_NAMED} more" if len(idle) > MOST_NAMED else ""
    return (
        f"{len(asked)} sizes were configured, {len(effective)} were in effect; {by_mode or 'no'} graphs were captured and "
        f"{len(replays)} of them replayed" + (f". Never replayed: {named}{more}." if idle else ".")
    )


def _note(session: Session, thinned: str) -> str:
    is_told = any(ASKED_SIZES in process.engine_config for process in session.processes)
    told = "" if is_told else "What the command line asked for is not recorded apart from vLLM's configuration."
    return notes("A larger circle stands for more forward passes.", thinned, told)
