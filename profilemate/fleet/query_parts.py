"""What several queries are made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Tables = Mapping[str, Any]

MODEL, HOST = "model", "host"
GROUP = (MODEL, HOST)
ENGINE = ("session", "process", "local_engine")
"""Names one scheduler."""
NOT_KNOWN = "(unknown)"


def processes(tables: Tables) -> Any:
    """Of every process: model and host, never null, so that rows can be joined by them."""
    table = tables["processes"]
    return table.select(
        "session",
        "process",
        "shown_engine",
        model=table.model_name.fill_null(NOT_KNOWN),
        host=table.host_name.fill_null(NOT_KNOWN),
    )


def owned(tables: Tables, rows: Any, shown_only: bool = False) -> Any:
    """Rows with their process's model and host; of those of workers only one of each engine's where that is wanted."""
    owners = processes(tables)
    if shown_only:
        owners = owners.filter(owners.shown_engine.notnull())
    return rows.inner_join(owners.drop("shown_engine"), ["session", "process"])


def last_rows(steps: Any) -> Any:
    """Of engine steps, whose counters are cumulative, the last of each engine: by its number, which needs no sorting."""
    last = steps.group_by(*ENGINE).agg(step=steps.step.max())
    found = steps.inner_join(last, [*ENGINE, "step"])
    counters = [name for name in steps.columns if name not in (*ENGINE, "step", *GROUP)]
    return found.group_by(*GROUP, *ENGINE, "step").agg(**{name: found[name].max() for name in counters})


def kv_steps(tables: Tables, *columns: str) -> Any:
    """Engine steps with the KV cache's cells, each with its model and host."""
    steps = tables["engine_steps"]
    present = steps.filter(steps.in_use.notnull())
    return owned(tables, present.select(*ENGINE, "time_ns", "step", *columns))


def lost(tables: Tables, *streams: str) -> Any:
    """Rows of these streams that are known to be missing, by model and host: `rows_lost`."""
    table = tables["lost_rows"]
    rows = owned(tables, table.filter(table.table.isin(streams)).select("session", "process", "rows"))
    return rows.group_by(GROUP).agg(rows_lost=rows.rows.sum())


def with_lost(tables: Tables, found: Any, *streams: str) -> Any:
    """An answer by model and host with `rows_lost` at its end."""
    own = lost(tables, *streams)
    joined = found.left_join(own, list(GROUP))
    columns = [joined[name] for name in found.columns]
    return joined.select(*columns, rows_lost=joined.rows_lost.fill_null(0))


def percent(part: Any, whole: Any) -> Any:
    """None of nothing."""
    return 100.0 * part.cast("float64") / whole.nullif(0).cast("float64")


def ordered(found: Any, *order: Any) -> Any:
    """By model and host, then by more."""
    return found.order_by(*GROUP, *order)
