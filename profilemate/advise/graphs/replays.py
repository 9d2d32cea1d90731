"""Replays of the main model by the whole descriptor, exact over the session: rows, and totals for those that are gone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from profilemate.frames.packages import load
from profilemate.session.views import graph_workers
from profilemate.trackers.cuda_graphs import events
from profilemate.trackers.cuda_graphs.graph import DESCRIPTOR_COLUMNS, Descriptor
from profilemate.trackers.cuda_graphs.tally import MAIN, newest_totals

if TYPE_CHECKING:
    from profilemate.frames.session import Session

REPLAYS_CELL = events.TOTALS.columns.index("replays")
FORWARDS_CELL = events.TOTALS.columns.index("forwards")


@dataclass(frozen=True)
class Replays:
    """Forward passes that replayed each graph, and all forward passes, summed over engines."""

    by_graph: Counter[Descriptor]
    forwards: int


def count_replays(session: Session) -> Replays:
    """Count over the workers that stand for their engines."""
    counts: Counter[Descriptor] = Counter()
    forwards = 0
    through: dict[str, int] = {}
    for worker in graph_workers(session):
        block = newest_totals(session, worker.process)
        through[worker.process.name] = block.through_forward if block else 0
        for row in block.rows if block else ():
            if row[2] == MAIN:
                counts[Descriptor.of(row[3:12])] += row[REPLAYS_CELL] or 0
                forwards += row[FORWARDS_CELL] or 0
    for found in _rows(session, through):
        counts[Descriptor.of([found[name] for name in DESCRIPTOR_COLUMNS])] += found["replays"]
        forwards += found["forwards"]
    return Replays(Counter({graph: count for graph, count in counts.items() if count}), forwards)


def _rows(session: Session, through: Mapping[str, int]) -> Iterator[dict[str, Any]]:
    """Passes after the last one of each worker's totals, by descriptor."""
    polars = load("polars")
    last = {"process": list(through), "through": list(through.values())}
    totals = polars.LazyFrame(last, schema={"process": polars.String, "through": polars.Int64})
    rows = session.scan("forward_passes").join(totals, on="process")
    counted = (
        rows.filter((polars.col("forward") > polars.col("through")) & polars.col("graphs").is_not_null())
        .group_by(*DESCRIPTOR_COLUMNS)
        .agg((polars.col("graphs") > 0).sum().alias("replays"), polars.len().alias("forwards"))
    )
    yield from counted.collect(engine="streaming").iter_rows(named=True)
