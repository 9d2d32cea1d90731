"""The questions that are asked of a fleet, by name. Each is an Ibis expression, so that DuckDB and Spark answer it alike.

`answer(name, fleet)` gives its rows. What they count is what a session's own summary counts, added up by model and host.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from profilemate.fleet import query_graphs, query_kv, query_sessions
from profilemate.session.errors import SessionError

Tables = Mapping[str, Any]


class Query(NamedTuple):
    """`ask` makes the expression of the data set's tables."""

    name: str
    help: str
    ask: Callable[[Tables], Any]


QUERIES = (
    Query("kv_usage", "how full the KV cache was: percentiles over time, by model and host", query_kv.usage),
    Query("hit_rates", "prefix-cache hits by model and host", query_kv.hit_rates),
    Query("preemptions", "preemptions, why, and what was lost, by model and host", query_kv.preemptions),
    Query("graph_coverage", "forward passes by how they ran, by model and host", query_graphs.coverage),
    Query("graph_ladder", "uses and padding of each CUDA graph by model and host", query_graphs.ladder),
    Query("sessions", "each session: what ran, how much was recorded", query_sessions.sessions),
    Query("missing", "sessions that lack something, and what", query_sessions.missing),
)


def query(name: str) -> Query:
    """By name. Raises SessionError."""
    found = {one.name: one for one in QUERIES}
    if name not in found:
        raise SessionError(f"there is no query {name!r}; there are {', '.join(found)}")
    return found[name]


def answer(name: str, fleet: Tables) -> list[dict[str, Any]]:
    """The rows of an answer. Raises SessionError where there is no such query."""
    rows: list[dict[str, Any]] = query(name).ask(fleet).to_pyarrow().to_pylist()
    return rows
