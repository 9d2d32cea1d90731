"""Queries of the CUDA graphs: how forward passes ran, and what each graph was used for.

One worker stands for its engine, as in the README's files. Passes whose rows were removed are in `graph_totals`, whose newest
block counts, so that the numbers are exact under a cap too.
"""

from __future__ import annotations

from typing import Any

from profilemate.fleet.packages import load
from profilemate.fleet.query_parts import GROUP, Tables, ordered, owned, percent
from profilemate.trackers.cuda_graphs.events import DESCRIPTOR as DESCRIPTOR_FIELDS

DESCRIPTOR = tuple(name for name, _, _ in DESCRIPTOR_FIELDS)
NAMING = 4
"""So many of these name a graph; the others are of runners and settings that few have, and come last."""
SUMS = ("forwards", "replays", "graphs", "unpadded_tokens", "padded_tokens", "captures")
WORKER = ("session", "process")
MAIN, ESTIMATE = "main", "estimate"


def coverage(tables: Tables) -> Any:
    """Serving forward passes of the main model: in a full graph, in piecewise graphs, in none; padding of the replayed."""
    counts = _counts(tables)
    full = counts.replays.sum(where=counts.runtime_mode == "FULL").fill_null(0)
    piecewise = counts.replays.sum(where=counts.runtime_mode == "PIECEWISE").fill_null(0)
    found = counts.group_by(*GROUP).agg(
        sessions=counts.session.nunique(),
        forwards=counts.forwards.sum(),
        full_graph=full,
        piecewise_graph=piecewise,
        padded_tokens=counts.padded_tokens.sum(),
        unpadded_tokens=counts.unpadded_tokens.sum(),
    )
    replayed = found.full_graph + found.piecewise_graph
    found = found.select(
        *GROUP,
        "sessions",
        "forwards",
        "full_graph",
        "piecewise_graph",
        no_graph=found.forwards - replayed,
        in_graph_pct=percent(replayed, found.forwards),
        padded_tokens=found.padded_tokens,
        padding_pct=percent(found.padded_tokens - found.unpadded_tokens, found.padded_tokens),
    )
    return ordered(found)


def ladder(tables: Tables) -> Any:
    """Every graph that was captured or replayed, by vLLM's batch descriptor, the most used of a model and host first."""
    ibis = load("ibis")
    counts = _counts(tables)
    found = counts.group_by(*GROUP, *DESCRIPTOR).agg(
        replays=counts.replays.sum(),
        pieces=counts.graphs.sum(),
        captures=counts.captures.sum(),
        padded_tokens=counts.padded_tokens.sum(),
        unpadded_tokens=counts.unpadded_tokens.sum(),
    )
    found = found.filter((found.replays > 0) | (found.captures > 0))
    found = found.mutate(padding_pct=percent(found.padded_tokens - found.unpadded_tokens, found.padded_tokens))
    sums = ("replays", "padding_pct", "captures", "padded_tokens", "unpadded_tokens", "pieces")
    found = found.select(*GROUP, *DESCRIPTOR[:NAMING], *sums, *DESCRIPTOR[NAMING:])
    return ordered(found, ibis.desc("replays"), *(ibis.asc(name) for name in DESCRIPTOR))


def _counts(tables: Tables) -> Any:
    """Rows to add up, of passes, of totals and of captures: model, host, session, descriptor and sums."""
    columns = (*GROUP, "session", *DESCRIPTOR, *SUMS)
    totals = _newest_totals(tables)
    parts = (_passes(tables, totals), totals, _captures(tables))
    first, *others = (part.select(*columns) for part in parts)
    return first.union(*others)


def _newest_totals(tables: Tables) -> Any:
    ibis = load("ibis")
    rows = owned(tables, tables["graph_totals"].drop("day", "model", "host", "engine"), shown_only=True)
    newest = rows.time_ns.max().over(ibis.window(group_by=list(WORKER)))
    rows = rows.mutate(newest_ns=newest)
    rows = rows.filter(rows.time_ns == rows.newest_ns)
    counts = [name for name in SUMS if name != "captures"]
    is_main = rows.owner == MAIN
    return rows.mutate(captures=_zero(), **{name: is_main.ifelse(rows[name].fill_null(0), _zero()) for name in counts})


def _passes(tables: Tables, totals: Any) -> Any:
    """Forward passes that are in no total."""
    stream = tables["forward_passes"]
    columns = ("forward", "graphs", "unpadded_tokens", *DESCRIPTOR)
    rows = owned(
        tables, stream.filter(stream.graphs.notnull()).select(*WORKER, *columns), shown_only=True
    )  # fmt: skip
    through = totals.group_by(*WORKER).agg(through=totals.through_forward.max())
    joined = rows.left_join(through, list(WORKER))
    rows = joined.select(*(joined[name] for name in rows.columns), through=joined.through.fill_null(0))
    rows = rows.filter(rows.forward > rows.through)
    ran = rows.graphs > 0
    return rows.mutate(
        forwards=_zero() + 1,
        replays=ran.ifelse(_zero() + 1, _zero()),
        unpadded_tokens=ran.ifelse(rows.unpadded_tokens.fill_null(0), _zero()),
        padded_tokens=ran.ifelse(rows.num_tokens.fill_null(0), _zero()),
        captures=_zero(),
    )


def _captures(tables: Tables) -> Any:
    """Captures that vLLM kept; those of its memory estimate are thrown away."""
    stream = tables["graph_captures"]
    kept = stream.filter((stream.purpose != ESTIMATE) & (stream.owner == MAIN))
    rows = owned(tables, kept.select(*WORKER, *DESCRIPTOR), shown_only=True)
    return rows.mutate(captures=_zero() + 1, **{name: _zero() for name in SUMS if name != "captures"})


def _zero() -> Any:
    return load("ibis").literal(0, "int64")
