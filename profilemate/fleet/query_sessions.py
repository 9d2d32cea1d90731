"""Queries of the sessions themselves: what there is, and what is missing of it."""

from __future__ import annotations

from typing import Any

from profilemate.fleet.packages import load
from profilemate.fleet.query_parts import NOT_KNOWN, Tables

SHOWN = ("vllm", "state", "engine_steps", "forward_passes", "preemptions", "rows", "lost_rows", "faults")
INCOMPLETE = ("state", "is_trimmed", "rows", "lost_rows", "faults", "missing")


def sessions(tables: Tables) -> Any:
    """The newest first."""
    table = tables["sessions"]
    rows = _named(table).select("began_day", "session", "model", "host", *SHOWN)
    return rows.order_by(load("ibis").desc("began_day"), "session")


def missing(tables: Tables) -> Any:
    """Those of which rows were lost or removed, whose files are damaged, or that ran when they were exported."""
    table = _named(tables["sessions"])
    told = (
        (table.lost_rows > 0) | (table.faults > 0) | table.is_trimmed | (table.state == "running") | (table.rows == 0)
    )
    return table.filter(told).select("session", "model", "host", *INCOMPLETE).order_by("session")


def _named(table: Any) -> Any:
    return table.mutate(model=table.model_name.fill_null(NOT_KNOWN), host=table.host_name.fill_null(NOT_KNOWN))
