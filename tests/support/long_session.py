"""Writes a session of many steps quickly, with polars: steps, passes, evictions and requests of a busy server.

python tests/support/long_session.py FOLDER [STEPS]     an hour's, if no steps are given
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import polars as pl
import sample_rows
from session_builder import SECOND, SessionBuilder, at

from profilemate.schema.table import Table
from profilemate.trackers.cuda_graphs import events as graph_events
from profilemate.trackers.engine_steps import events as step_events
from profilemate.trackers.forward_passes import events as pass_events
from profilemate.trackers.kv_cache import events as kv_events
from profilemate.trackers.requests import events as request_events

STEP_NS = 10_000_000
TIMED_EVERY = 10
STEPS_OF_AN_HOUR = 360_000
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
CONFIG = {
    "model": "a/model", "device": "cuda", "num_gpu_blocks": 20_001, "block_size": 16, "max_num_seqs": 256,
    "max_num_batched_tokens": 8192, "max_model_len": 8192, "enable_prefix_caching": True,
    "cudagraph_mode": "FULL_AND_PIECEWISE", "cudagraph_capture_sizes": list(SIZES),
}  # fmt: skip


def long_session(folder: Path, steps: int) -> Path:
    """A session of so many steps, 100 a second; a request every 10 steps, an eviction every third."""
    session = SessionBuilder(folder)
    front = session.process("APIServer", engine_index=None)
    engine = session.process("EngineCore", engine_config=CONFIG, hooks=sample_rows.HOOKS)
    worker = session.process("Worker", engine_config=CONFIG)
    captures = [
        sample_rows.capture(0.1 + size / 1000, {**sample_rows.DECODE, "num_tokens": size, "num_reqs": size})
        for size in SIZES
    ]
    worker.rows(graph_events.CAPTURES, *captures)
    frame = step_frame(steps)
    save(engine.folder, [step_events.STEPS, kv_events.STEPS], frame)
    save(worker.folder, [pass_events.PASSES, graph_events.PASSES], pass_frame(frame))
    save(worker.folder, [pass_events.LATENCIES], latency_frame(frame.filter(pl.col("step") % TIMED_EVERY == 0)))
    evicted = frame.filter(pl.col("step") % 3 == 0)
    save(engine.folder, [kv_events.EVICTIONS], eviction_frame(evicted))
    requests = request_frame(frame.filter(pl.col("step") % 10 == 0))
    save(front.folder, [request_events.ARRIVALS], requests)
    save(front.folder, [request_events.ENDS], requests)
    save(engine.folder, [request_events.IN_ENGINE], requests)
    return session.path


def save(folder: Path, tables: list[Table], frame: pl.DataFrame) -> None:
    """One file with the columns of all tables, those that the frame lacks empty."""
    laid_out(tables, frame).write_csv(folder / f"{tables[0].name}.csv")


def laid_out(tables: list[Table], frame: pl.DataFrame) -> pl.DataFrame:
    """The columns of all tables as they are written, those that the frame lacks empty."""
    columns = list(dict.fromkeys(name for table in tables for name in table.columns))
    missing = [pl.lit(None, pl.String).alias(name) for name in columns if name not in frame.columns]
    words = pl.selectors.boolean().cast(pl.String).str.to_titlecase()
    return frame.with_columns(missing).with_columns(words).select(columns)


def step_frame(steps: int) -> pl.DataFrame:
    """Batches whose size and mix change within minutes."""
    number = pl.col("step")
    wave = ((number / 3000).sin() + 1) / 2
    return (
        pl.DataFrame({"step": range(1, steps + 1)})
        .with_columns(
            time_ns=at(1) + number * STEP_NS,
            engine=0,
            step_requests=(1 + wave * 200 + number % 7).cast(pl.Int64),
            context_requests=pl.when(number % 11 == 0).then(2).otherwise(0),
        )
        .with_columns(
            context_tokens=pl.col("context_requests") * 512,
            step_tokens=pl.col("step_requests") + pl.col("context_requests") * 511,
            in_use=(2000 + wave * 17_000 + number % 97).cast(pl.Int64),
        )
        .with_columns(
            scheduled_ns=pl.col("time_ns") - 9_000_000, schedule_ns=300_000 + number % 1000 * 100, blocked_ns=8_000_000,
            update_ns=200_000, between_ns=100_000, no_requests_ns=0, model_ns=8_500_000, running=pl.col("step_requests"),
            waiting=number % 13, skipped=0, recomputed_tokens=0, step_preempted=0, step_finished=1,
            limit=pl.when(number % 5 == 0).then(pl.lit("token_budget")).otherwise(pl.lit("no_work")),
            free_blocks=20_000 - pl.col("in_use"), usable_blocks=20_000, total_blocks=20_000, max_requests=256,
            max_step_tokens=8192, drafted_tokens=0, accepted_tokens=0, in_flight=1, step_peak=pl.col("in_use") + 3,
            cached_free=(20_000 - pl.col("in_use")) // 2, empty=(20_000 - pl.col("in_use")) // 2,
            allocated=number * 3, released=number * 3, freed=number * 3, evicted=number // 3,
            lifetime_ns=number // 3 * 20 * SECOND, idle_ns=number // 3 * 5 * SECOND, timed_evictions=number // 3,
            failed_allocations=0, operations=number * 4, busy_steps=number, output_steps=number,
            scheduled_tokens=pl.col("step_tokens").cum_sum(), peak=19_500, peak_time_ns=at(2), touched=number,
            touched_free=number, preemptions=0, resets=0, query_requests=number // 10, query_tokens=number * 50,
            hit_tokens=number * 20, preempted_query_tokens=0, preempted_hit_tokens=0, prompt_tokens=number * 50,
        )
    )  # fmt: skip


def pass_frame(steps: pl.DataFrame) -> pl.DataFrame:
    """A pass for each step: in the next larger graph where it is a decode of at most 256 tokens."""
    tokens = pl.col("step_tokens")
    padded = pl.coalesce(*(pl.when(tokens <= size).then(size) for size in SIZES), tokens)
    in_graph = (pl.col("context_requests") == 0) & (tokens <= SIZES[-1])
    timed = pl.col("step") % TIMED_EVERY == 0
    clock = pl.when(timed).then(pl.lit("cuda_event")).otherwise(pl.lit("monotonic"))
    return steps.select(
        "step", forward=pl.col("step"), time_ns=pl.col("time_ns") - 8_500_000, host_ns=2_000_000 + tokens * 1000,
        runtime_mode=pl.when(in_graph).then(pl.lit("FULL")).otherwise(pl.lit("NONE")), clock=clock,
        phase=pl.when(pl.col("context_requests") > 0).then(pl.lit("mixed")).otherwise(pl.lit("decode")),
        requests=pl.col("step_requests"), tokens=tokens, context_requests=pl.col("context_requests"),
        context_tokens=pl.col("context_tokens"), execute_ns=3_000_000, sample_ns=300_000,
        num_tokens=pl.when(in_graph).then(padded).otherwise(tokens),
        num_reqs=pl.when(in_graph).then(padded), uniform=in_graph, has_lora=pl.lit(False), num_active_loras=0,
        unpadded_tokens=tokens, unpadded_reqs=pl.col("step_requests"), graphs=in_graph.cast(pl.Int64), fault=pl.lit(""),
    )  # fmt: skip


def latency_frame(steps: pl.DataFrame) -> pl.DataFrame:
    """Device times of some passes."""
    return steps.select(
        forward=pl.col("step"), device_ns=3_000_000 + pl.col("step_tokens") * 5000 + pl.col("step") % 997
    )


def eviction_frame(steps: pl.DataFrame) -> pl.DataFrame:
    age = (1 + pl.col("step") % 400) * SECOND // 10
    return steps.select(
        "time_ns", "engine", block_id=pl.col("step") % 20_000, allocated_ns=pl.col("time_ns") - age,
        used_ns=pl.col("time_ns") - age // 3, cause=pl.lit("allocation"),
    )  # fmt: skip


def request_frame(steps: pl.DataFrame) -> pl.DataFrame:
    end, wait = pl.col("time_ns"), (1 + pl.col("step") % 50) * SECOND // 100
    times: dict[str, Any] = {
        "queued_ns": end - 4 * SECOND - wait, "scheduled_ns": end - 4 * SECOND, "first_token_ns": end - 3 * SECOND,
        "last_token_ns": end, "end_ns": end, "e2e_ns": 4 * SECOND + wait, "ttft_ns": SECOND + wait,
    }  # fmt: skip
    return steps.select(
        "time_ns", "engine", "step", request=pl.lit("r") + pl.col("step").cast(pl.String), event=pl.lit("finished"),
        reason=pl.lit("length"), status=pl.lit("LENGTH_CAPPED"), is_counted=pl.lit(True), prompt_tokens=500, cached_tokens=200,
        output_tokens=100 + pl.col("step") % 60, preemptions=0, prefill_steps=1, priority=0, **times,
    )  # fmt: skip


if __name__ == "__main__":
    print(long_session(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else STEPS_OF_AN_HOUR))
