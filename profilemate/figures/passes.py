"""Forward passes with the graph that ran and their time, as a lazy frame; and graphs counted over the whole session."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from profilemate.figures.source import worker_rows
from profilemate.session.totals import newest_block
from profilemate.session.views import graph_workers
from profilemate.trackers.cuda_graphs import events as graphs
from profilemate.trackers.cuda_graphs.analyze import read_captures
from profilemate.trackers.cuda_graphs.tally import MAIN
from profilemate.trackers.forward_passes import events as forwards
from profilemate.trackers.forward_passes.device_times import has_device

if TYPE_CHECKING:
    from profilemate.frames.session import Session

FULL, PIECEWISE, NONE = "FULL", "PIECEWISE", "no graph"
SUMS = ("forwards", "replays", "unpadded_tokens", "padded_tokens")


def mode() -> pl.Expr:
    """FULL or PIECEWISE where a graph was replayed, else that none was."""
    return (
        pl.when(pl.col("graphs").fill_null(0) == 0)
        .then(pl.lit(NONE))
        .when(pl.col("runtime_mode") == FULL)
        .then(pl.lit(FULL))
        .otherwise(pl.lit(PIECEWISE))
    )


def passes(session: Session) -> pl.LazyFrame:
    """Kept serving passes: `kind` (how it ran), `duration_ns` (on the device where there is one, else the host's).

    `duration_ns` is null for passes of a device that were not sampled. Phase, tokens and requests are null where the
    forward pass tracker was off.
    """
    on_device = any(has_device(session, worker.process) for worker in graph_workers(session))
    rows = worker_rows(session, graphs.PASSES).with_columns(mode().alias("kind"))
    if not on_device:
        return rows.with_columns(pl.col("host_ns").alias("duration_ns"))
    latencies = worker_rows(session, forwards.LATENCIES).select("worker", "forward", "device_ns")
    return rows.join(latencies, on=["worker", "forward"], how="left").with_columns(
        pl.col("device_ns").alias("duration_ns")
    )


def is_sampled(session: Session) -> bool:
    """Whether only a sample of the passes has a time: that of the device."""
    return any(has_device(session, worker.process) for worker in graph_workers(session))


def counted(session: Session) -> pl.DataFrame:
    """Passes by mode and size over the whole session, those whose rows the size cap removed included.

    Columns `runtime_mode`, `num_tokens` and SUMS; the token sums are over the passes that replayed a graph.
    """
    frames = []
    for worker in graph_workers(session):
        block = newest_block(session, worker.process, graphs.TOTALS)
        through = block.through_forward if block else 0
        if block:
            places = [graphs.TOTALS.columns.index(name) for name in ("runtime_mode", "num_tokens", *SUMS)]
            frames.append(
                pl.DataFrame(
                    [[row[place] for place in places] for row in block.rows if row[2] == MAIN],
                    schema={"runtime_mode": pl.String, "num_tokens": pl.Int64, **dict.fromkeys(SUMS, pl.Int64)},
                    orient="row",
                )
            )
        replayed = pl.col("graphs").fill_null(0) > 0
        frames.append(
            worker_rows(session, graphs.PASSES, worker.process.name)
            .filter(pl.col("forward") > through)
            .group_by("runtime_mode", "num_tokens")
            .agg(
                pl.len().cast(pl.Int64).alias("forwards"),
                replayed.sum().cast(pl.Int64).alias("replays"),
                pl.col("unpadded_tokens").filter(replayed).sum(),
                pl.col("num_tokens").filter(replayed).sum().alias("padded_tokens"),
            )
            .collect(engine="streaming")
        )
    if not frames:
        return pl.DataFrame(schema={"runtime_mode": pl.String, "num_tokens": pl.Int64, **dict.fromkeys(SUMS, pl.Int64)})
    return (
        pl.concat(frames)
        .group_by("runtime_mode", "num_tokens")
        .agg(pl.col(*SUMS).sum())
        .sort("runtime_mode", "num_tokens")
    )


def captured(session: Session) -> pl.DataFrame:
    """Graphs of the main model that vLLM kept, by mode and size: `graphs`, `duration_ns`, `memory_bytes` (null if unknown)."""
    rows = [
        (one.descriptor.runtime_mode, one.descriptor.num_tokens, one.duration_ns, one.memory_bytes)
        for one in read_captures(session)
        if one.owner == MAIN
    ]
    schema = {"runtime_mode": pl.String, "num_tokens": pl.Int64, "duration_ns": pl.Int64, "memory_bytes": pl.Int64}
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    return (
        frame.group_by("runtime_mode", "num_tokens")
        .agg(pl.len().cast(pl.Int64).alias("captures"), pl.col("duration_ns").sum(), pl.col("memory_bytes").sum())
        .sort("runtime_mode", "num_tokens")
    )
