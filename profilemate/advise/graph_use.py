"""Use of the graphs that there are: never replayed, a mode never dispatched, passes that fell back, sizes that vLLM dropped."""

from __future__ import annotations

from typing import TYPE_CHECKING

from profilemate.advise.finding import LOOK, THIN, Evidence, Finding
from profilemate.advise.graphs import reading, words
from profilemate.advise.graphs.dropped import dropped_sizes
from profilemate.advise.graphs.fell_back import fallback_findings, times_by_mode
from profilemate.advise.graphs.rules import NONE
from profilemate.advise.graphs.unused import estimate_captures, modes_never_dispatched, never_replayed
from profilemate.advise.graphs.use_finding import use_finding

if TYPE_CHECKING:
    from profilemate.advise.graphs.reading import GraphData
    from profilemate.frames.session import Session


def advise(session: Session) -> list[Finding]:
    """Findings about captures and dispatch; counts of replays are exact over the whole session, also past the size cap."""
    data = reading.read(session)
    if data.missing:
        return [use_finding("use", THIN, "Use of the graphs is not known", f"{data.missing}.".capitalize())]
    if not data.setup.captures:
        return [_without_graphs(data)]
    return [
        never_replayed(data, estimate_captures(session)),
        *modes_never_dispatched(data),
        *fallback_findings(data, times_by_mode(session, data)),
        *dropped_sizes(data),
    ]


def _without_graphs(data: GraphData) -> Finding:
    config, total = data.setup.config, data.batches.passes
    why = (
        "enforce_eager" if config.get("enforce_eager") else f"cudagraph_mode {config.get('cudagraph_mode', 'unknown')}"
    )
    in_graphs = sum(batch.passes for batch in data.batches.groups if batch.mode != NONE)
    if in_graphs:
        return use_finding(
            "off", LOOK, "Captures were not recorded", f"{words.of(in_graphs, total)} passes replayed graphs, but the session "
            "has no capture: the hooks on captures did not fit, or the session began after them.",
            numbers={"passes": total, "passes_in_graphs": in_graphs},
        )  # fmt: skip
    decode = sum(batch.passes for batch in data.batches.groups if batch.phase == "decode")
    return use_finding(
        "off", LOOK, "The server runs without CUDA graphs",
        f"No graph was captured ({why}): all {words.passes(total)}, {decode:,} of them decode, launched every kernel from "
        "Python.",
        evidence=(Evidence("forward_passes", total, "runtime_mode NONE"),),
        to_be_sure="Run it once with vLLM's default mode (no --enforce-eager, no cudagraph_mode NONE), and compare.",
        numbers={"passes": total, "decode_passes": decode, "cudagraph_mode": str(config.get("cudagraph_mode"))},
    )  # fmt: skip
