"""What the key numbers are made from: rows of a session in frames of one shape, seconds since the session began.

| frame | one row per | columns |
| --- | --- | --- |
| requests | request | arrival, end, stay (seconds in the server), ttft, tpot, e2e, queue, prompt_tokens, output_tokens |
| steps | engine step | t (its end), is_busy, wall, schedule, update, requests, tokens, running, waiting, limit_*, drafted, |
| | | accepted; seconds (until the next step), in_use, total_blocks, kv_usage, used_block_seconds, block_seconds, |
| | | query_tokens, hit_tokens, evicted, preempted |
| passes | forward pass | t, seconds (device time where there is a device), is_prefill, is_decode, is_mixed, tokens, |
| | | has_graph_cells, is_full, is_piecewise, is_uncovered, is_replayed, padding, padded, size, mode |
| preemptions | preemption | t, lost_tokens |
| graphs | graph of the main model, exact whatever rows were removed | mode, size, captures, replays, padding |

What is not known is null. Counters that the streams hold cumulatively are differences here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from profilemate.compare.steady import Window
from profilemate.frames.packages import load
from profilemate.session.errors import SessionError
from profilemate.session.views import graph_workers
from profilemate.trackers.engine_steps.events import LIMITS
from profilemate.trackers.forward_passes.device_times import has_device
from profilemate.trackers.requests.join import lives

if TYPE_CHECKING:
    import polars as pl

    from profilemate.frames.session import Session

SECOND = 1_000_000_000
COUNTERS = {
    "query_tokens": "query_tokens",
    "hit_tokens": "hit_tokens",
    "evicted": "evicted",
    "preemptions": "preempted",
}
"""Cumulative columns of engine_steps and what their differences are called."""


@dataclass(frozen=True)
class Material:
    """Frames of a session by name, its metadata.json, and the part of it in which the server worked steadily."""

    name: str
    frames: Mapping[str, pl.DataFrame]
    metadata: Mapping[str, Any] = field(default_factory=dict)
    steady: Window | None = None


def frames_of(session: Session) -> dict[str, pl.DataFrame]:
    """All frames of a session."""
    workers = [worker.process.name for worker in graph_workers(session)]
    on_device = [process.name for process in session.processes if has_device(session, process)]
    return {
        "requests": requests_frame(session),
        "steps": steps_frame(session),
        "passes": passes_frame(session, workers, on_device),
        "preemptions": preemptions_frame(session),
        "graphs": graphs_frame(session),
    }


REQUESTS = {
    "arrival": "Float64", "end": "Float64", "stay": "Float64", "ttft": "Float64", "tpot": "Float64", "e2e": "Float64",
    "queue": "Float64", "prompt_tokens": "Int64", "output_tokens": "Int64",
}  # fmt: skip


def requests_frame(session: Session) -> pl.DataFrame:
    """Joined rows of front ends and schedulers; a request without a front end arrives when it comes to the scheduler."""
    polars = load("polars")
    rows = []
    for life in lives(session):
        arrival = life.queued_ns if life.arrival_ns is None else life.arrival_ns
        stay = None if arrival is None or life.finished_ns is None else life.finished_ns - arrival
        tpot = life.tpot_ns if (life.output_tokens or 0) > 1 else None
        times = (arrival, life.finished_ns, *map(_positive, (stay, life.ttft_ns, tpot, life.e2e_ns, life.queue_ns)))
        rows.append((*(None if one is None else one / SECOND for one in times), life.prompt_tokens, life.output_tokens))
    schema = {name: getattr(polars, kind) for name, kind in REQUESTS.items()}
    frame: pl.DataFrame = polars.DataFrame(rows, schema=schema, orient="row")
    return frame


def _positive(value: int | None) -> int | None:
    """Clocks of two hosts may put an effect before its cause."""
    return None if value is None else max(0, value)


def steps_frame(session: Session) -> pl.DataFrame:
    """Engine steps of all engines."""
    polars = load("polars")
    col, engine = polars.col, ["process", "engine"]
    frame = session.table("engine_steps").sort("time_sec", maintain_order=True)
    wall = col("schedule_ns") + col("blocked_ns") + col("update_ns") + col("between_ns")
    known = frame["in_use"].is_not_null()
    kept = col("in_use").is_not_null()
    changes = [
        col(name).diff().over(engine).fill_null(polars.when(col("step") == 1).then(col(name))).alias(short)
        for name, short in COUNTERS.items()
    ]
    cache = frame.filter(known).select(
        "process", "engine", "step", *changes,
        (col("time_sec").shift(-1).over(engine) - col("time_sec")).fill_null(0).alias("seconds"),
    )  # fmt: skip
    frame = frame.select(
        *engine, "step", col("time_sec").alias("t"), (col("step_tokens") > 0).alias("is_busy"),
        (wall / SECOND).alias("wall"), (col("schedule_ns") / SECOND).alias("schedule"),
        (col("update_ns") / SECOND).alias("update"), col("step_requests").alias("requests"),
        col("step_tokens").alias("tokens"), "running", "waiting",
        *((col("limit") == limit).alias(f"limit_{limit}") for limit in LIMITS),
        col("drafted_tokens").alias("drafted"), col("accepted_tokens").alias("accepted"),
        polars.when(kept).then("in_use").alias("in_use"), "total_blocks",
    ).join(cache, on=[*engine, "step"], how="left")  # fmt: skip
    return frame.with_columns(
        (col("in_use") / col("total_blocks")).alias("kv_usage"),
        (col("in_use") * col("seconds")).alias("used_block_seconds"),
        (col("total_blocks") * col("seconds")).alias("block_seconds"),
    )


def passes_frame(session: Session, workers: list[str], on_device: list[str]) -> pl.DataFrame:
    """Serving forward passes of the workers that stand for their engines; with a device, only its own time is a pass's."""
    polars = load("polars")
    col = polars.col
    device = session.scan("forward_latencies").select("process", "forward", "device_ns")
    frame = (
        session.scan("forward_passes").filter(col("process").is_in(workers))
        .join(device, on=["process", "forward"], how="left", maintain_order="left").collect()
    )  # fmt: skip
    host = polars.when(col("process").is_in(on_device).not_()).then("host_ns")
    has_cells, replayed = col("graphs").is_not_null(), col("graphs") > 0
    padding = col("num_tokens") - col("unpadded_tokens")
    return frame.select(
        col("time_sec").alias("t"), (polars.coalesce("device_ns", host) / SECOND).alias("seconds"),
        *((col("phase") == phase).alias(f"is_{phase}") for phase in ("prefill", "decode", "mixed")),
        col("tokens").fill_null(col("unpadded_tokens")).alias("tokens"), has_cells.alias("has_graph_cells"),
        ((col("runtime_mode") == "FULL") & replayed).alias("is_full"),
        ((col("runtime_mode") == "PIECEWISE") & replayed).alias("is_piecewise"),
        replayed.not_().alias("is_uncovered"), replayed.alias("is_replayed"),
        polars.when(replayed).then(padding).alias("padding"), polars.when(replayed).then("num_tokens").alias("padded"),
        col("num_tokens").alias("size"), col("runtime_mode").alias("mode"),
    )  # fmt: skip


def preemptions_frame(session: Session) -> pl.DataFrame:
    """One row per preemption."""
    col = load("polars").col
    frame = session.table("preemptions").filter(col("event") == "preempted")
    return frame.select(col("time_sec").alias("t"), "lost_tokens")


def graphs_frame(session: Session) -> pl.DataFrame:
    """What was captured and how often it was replayed; empty where a session has nothing but its summary left."""
    polars = load("polars")
    col = polars.col
    names = ("mode", "size", "captures", "replays", "padding")
    try:
        frame = session.table("cuda_graph_usage")
    except (SessionError, OSError):
        return _empty(names)
    found: pl.DataFrame = (
        frame.filter(col("runtime_mode") != "NONE").group_by("runtime_mode", "num_tokens")
        .agg(
            col("captures").sum(), col("replay_count").sum().alias("replays"),
            (col("padded_tokens") - col("unpadded_tokens")).sum().alias("padding"),
        )
        .rename({"runtime_mode": "mode", "num_tokens": "size"}).select(names)
    )  # fmt: skip
    return found if found.height else _empty(names)


def _empty(names: tuple[str, ...]) -> pl.DataFrame:
    polars = load("polars")
    frame: pl.DataFrame = polars.DataFrame(schema=dict.fromkeys(names, polars.Int64))
    return frame
