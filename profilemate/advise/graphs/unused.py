"""Graphs that were captured in vain: never replayed, or a whole mode that was never dispatched."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from profilemate.advise.finding import FINE, LOOK, THIN, Evidence, Finding
from profilemate.advise.graphs import causes, words
from profilemate.advise.graphs.plan import reach_of
from profilemate.advise.graphs.rules import FULL, PIECEWISE
from profilemate.advise.graphs.use_finding import MIN_PASSES, MOST_NAMED, use_finding
from profilemate.advise.words import counted
from profilemate.session.views import graph_workers
from profilemate.trackers.cuda_graphs import events
from profilemate.trackers.cuda_graphs.tally import MAIN

if TYPE_CHECKING:
    from profilemate.advise.graphs.reading import GraphData
    from profilemate.frames.session import Session
    from profilemate.trackers.cuda_graphs.analyze import Capture
    from profilemate.trackers.cuda_graphs.graph import Descriptor


def estimate_captures(session: Session) -> tuple[int, float]:
    """Captures for vLLM's memory estimate of one engine, which it throws away: how many, and seconds inside them."""
    for worker in graph_workers(session):
        rows = session.rows(worker.process, events.CAPTURES, "purpose", "owner", "duration_ns")
        durations = [row[2] or 0 for row in rows if row[0] == "estimate" and row[1] == MAIN]
        return len(durations), sum(durations) / 1e9
    return 0, 0.0


def never_replayed(data: GraphData, estimate: tuple[int, float]) -> Finding:
    """Captures and replays joined by the whole descriptor. `estimate` is what `estimate_captures` gives."""
    setup, unused = data.setup, data.setup.never_replayed
    keys = set(unused)
    captures = [one for one in setup.first_engine if one.descriptor in keys]
    total = len({one.descriptor for one in setup.first_engine})
    seconds, memory = _seconds(captures), _memory(captures)
    forwards = setup.replays.forwards
    kept = _sizes_in_use(data)
    numbers: dict[str, Any] = {
        "never_replayed": [_graph(graph, captures) for graph in unused], "graphs": total,
        "seconds_in_captures": seconds, "all_seconds_in_captures": _seconds(setup.first_engine), "memory_bytes": memory,
        "all_memory_bytes": _memory(setup.first_engine), "forward_passes": forwards, "estimate_captures": estimate[0],
        "seconds_in_estimate_captures": estimate[1], "kept_sizes": kept,
    }  # fmt: skip
    evidence = (
        Evidence("graph_captures", len(captures), "of one engine, descriptors without a replay in any engine"),
        Evidence("forward_passes", forwards, "all, by graph_totals where rows are gone"),
    )
    if not unused:
        return use_finding(
            "never_replayed", FINE, "Every captured graph was replayed", f"{counted(total, 'graph')}, all replayed.",
            evidence=evidence, numbers=numbers,
        )  # fmt: skip
    can_drop = forwards >= MIN_PASSES and kept and len(kept) < len(setup.present.sizes)
    return use_finding(
        "never_replayed",
        LOOK if forwards >= MIN_PASSES else THIN,
        f"{len(unused)} of {total} graphs were never replayed",
        _never_replayed_says(data, captures, estimate),
        evidence=evidence,
        alternatives=(f"--cudagraph-capture-sizes {words.sizes(kept)}",) if can_drop else (),
        to_be_sure=(
            "Look at a session that covers your busiest hours before you drop a size: a graph for a load that comes once a "
            "day is not useless. capture_sizes.ladder says which sizes to have instead."
        ),
        numbers=numbers,
    )


def _never_replayed_says(data: GraphData, captures: list[Capture], estimate: tuple[int, float]) -> str:
    unused = data.setup.never_replayed
    named = "; ".join(graph.label for graph in unused[:MOST_NAMED])
    more = f"; {len(unused) - MOST_NAMED} more" if len(unused) > MOST_NAMED else ""
    memory = _memory(captures)
    sentences = [
        f"In {words.passes(data.setup.replays.forwards)} no engine replayed {named}{more}.",
        f"Each engine spent {_seconds(captures):.2f} s inside their captures (of {_seconds(data.setup.first_engine):.2f} s)",
    ]
    sentences[-1] += f" and {memory / words.MIB:.0f} MiB." if memory is not None else "; the device told no memory."
    if estimate[0]:
        sentences.append(
            f"Apart from these, {counted(estimate[0], 'capture')} ({estimate[1]:.2f} s) served vLLM's estimate of "
            "graph memory, which throws them away."
        )
    return " ".join(sentences)


def _sizes_in_use(data: GraphData) -> list[int]:
    """Sizes to keep: those with a replay in any mode, and the ends that no advice takes away."""
    setup = data.setup
    used = {graph.num_tokens for graph in setup.replays.by_graph}
    ends = {setup.rules.decode_cap, reach_of(setup)} & set(setup.present.sizes)
    return sorted(size for size in setup.present.sizes if size in used | ends)


def _graph(graph: Descriptor, captures: Iterable[Capture]) -> dict[str, Any]:
    mine = [one for one in captures if one.descriptor == graph]
    return {
        "graph": graph.label, "runtime_mode": graph.runtime_mode, "num_tokens": graph.num_tokens,
        "seconds": _seconds(mine), "memory_bytes": _memory(mine),
    }  # fmt: skip


def _seconds(captures: Iterable[Capture]) -> float:
    return sum(one.duration_ns or 0 for one in captures) / 1e9


def _memory(captures: Iterable[Capture]) -> int | None:
    known = [one.memory_bytes for one in captures if one.memory_bytes is not None]
    return sum(known) if known else None


WITHOUT = {FULL: "PIECEWISE", PIECEWISE: "FULL_DECODE_ONLY"}
"""Captured in vain -> the cudagraph_mode that does not capture it, where there are graphs of both modes."""


def modes_never_dispatched(data: GraphData) -> list[Finding]:
    """A finding for each captured mode that no pass ran in."""
    setup = data.setup
    captured = {one.descriptor.runtime_mode for one in setup.captures}
    dispatched = {graph.runtime_mode for graph in setup.replays.by_graph}
    if setup.replays.forwards < MIN_PASSES:
        return []
    return [_mode_never_dispatched(data, mode, captured) for mode in sorted(captured - dispatched)]


def _mode_never_dispatched(data: GraphData, mode: str, captured: set[str]) -> Finding:
    setup = data.setup
    captures = [one for one in setup.first_engine if one.descriptor.runtime_mode == mode]
    reasons = _reasons(data, mode)
    flags = (f'--compilation-config \'{{"cudagraph_mode": "{WITHOUT[mode]}"}}\'',) if len(captured) == 2 else ()
    return use_finding(
        f"{mode.lower()}_never_dispatched",
        LOOK,
        f"{mode} graphs were captured and never dispatched",
        f"{counted(len(captures), 'graph')} of {mode} ({_seconds(captures):.2f} s inside captures per engine), and none "
        f"of {words.passes(setup.replays.forwards)} ran in one. {reasons}",
        evidence=(Evidence("graph_captures", len(captures), f"runtime_mode {mode}, of one engine"),),
        alternatives=flags,
        to_be_sure="That is right for this traffic alone: the mode without these graphs serves no batch of that kind later.",
        numbers={"runtime_mode": mode, "graphs": len(captures), "seconds_in_captures": _seconds(captures)},
    )


def _reasons(data: GraphData, mode: str) -> str:
    decode = sum(batch.passes for batch in data.batches.groups if batch.uniform)
    if mode == FULL and not decode:
        return "No batch was a uniform decode, for which they are."
    rows = causes.fallbacks(data)
    named = [f"{row.cause.says}: {row.passes:,}" for row in rows[:MOST_NAMED]]
    return f"Passes that had no such graph: {'; '.join(named)}." if named else "No batch came that they are for."
