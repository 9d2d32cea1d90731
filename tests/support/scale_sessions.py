"""Makes sessions of any number of rows in each table and many processes, with totals that are known from arithmetic alone.

A data-parallel server: for each engine an API server, an engine core and two tensor-parallel workers. What a step holds is a
function of its number that repeats (`scale_truth.py`), so that every total is a sum over one period and a few steps more.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import polars as pl
from long_session import CONFIG, SIZES, laid_out, latency_frame, pass_frame
from sample_rows import DECODE, HOOKS, capture
from scale_truth import (
    AGES_NS,
    BEGIN_SECONDS,
    DELIVERY_NS,
    E2E_NS,
    HIT_TOKENS,
    IN_USE,
    LAST_TOKEN_NS,
    LIMITS,
    OUTPUT_TOKENS,
    PEAK,
    PEAK_STEP,
    PREEMPTED_EVERY,
    PREEMPTED_NS,
    PROMPT_TOKENS,
    RECOVERED_STEPS,
    REQUESTS,
    RESUMED_STEPS,
    SCHEDULE_NS,
    STEP_NS,
    TOTAL_BLOCKS,
    TTFT_NS,
    WAIT_NS,
    Periodic,
)  # fmt: skip
from session_builder import BOOT, CREATED_MONOTONIC_NS, CREATED_WALL_NS, SECOND, ProcessBuilder, SessionBuilder, at

from profilemate.schema.probe_tables import HEALTH
from profilemate.schema.table import Table
from profilemate.trackers.cuda_graphs import events as graph_events
from profilemate.trackers.engine_steps import events as step_events
from profilemate.trackers.forward_passes import events as pass_events
from profilemate.trackers.kv_cache import events as kv_events
from profilemate.trackers.requests import events as request_events

PROCESSES_OF_AN_ENGINE = 4
CHUNK_STEPS = 200_000
ENGINE_SHIFT_NS = 37_000
"""By so much the steps of an engine end after those of the one before it."""

CLOCK_BEHIND_NS = 1_000 * SECOND
"""By so much the monotonic clock of each further host is behind that of the first."""


class Engine(NamedTuple):
    """One engine: its number, its steps, which host it is on and how far that host's clock is behind."""

    number: int
    steps: int
    host: int

    @property
    def behind_ns(self) -> int:
        """0 on the first host."""
        return self.host * CLOCK_BEHIND_NS

    @property
    def prefix(self) -> str:
        """Of its own ids of requests: another secret hashes those of another host."""
        return ("r", "x")[self.host > 0] + f"{self.number}-"


def steps_of_engines(rows: int, processes: int) -> list[int]:
    """Steps of each engine, so that all of them together are `rows`."""
    engines = processes // PROCESSES_OF_AN_ENGINE
    return [rows // engines + (number < rows % engines) for number in range(engines)]


def make(folder: Path, rows: int, processes: int, hosts: int = 1, chunk: int = CHUNK_STEPS) -> list[Path]:
    """Sessions of one server, one for each host, with `rows` rows in each table and `processes` processes in all.

    The first host has all API servers. Workers have their rows twice, once for each rank.
    """
    steps = steps_of_engines(rows, processes)
    engines = [Engine(number, count, number * hosts // len(steps)) for number, count in enumerate(steps)]
    sessions = [_session(folder, host) for host in range(hosts)]
    for engine in engines:
        _engine(sessions, engine, len(engines), chunk)
    return [session.path for session in sessions]


def _session(folder: Path, host: int) -> SessionBuilder:
    """Wall clocks agree; monotonic ones do not."""
    record = {"created_monotonic_ns": CREATED_MONOTONIC_NS - host * CLOCK_BEHIND_NS, **_host(host)}
    return SessionBuilder(folder / f"host{host}", **record)


def _host(host: int) -> dict[str, str]:
    return {"boot_id": f"{BOOT}-{host}", "host": f"host{host}"}


def _engine(sessions: list[SessionBuilder], engine: Engine, engines: int, chunk: int) -> None:
    here = sessions[engine.host]
    clock = {"wall_ns": CREATED_WALL_NS + SECOND, "monotonic_ns": at(1) - engine.behind_ns}
    own = {"clock": clock, "engine_config": CONFIG, "engine_index": engine.number, **_host(engine.host)}
    ranks = {"dp": engine.number, "dp_size": engines, "tp_size": 2}
    front = sessions[0].process(f"APIServer_{engine.number}", engine_index=None, **_host(0))
    core = here.process(f"EngineCore_DP{engine.number}", hooks=HOOKS, ranks={"dp": engine.number}, **own)
    core.rows(HEALTH, *_health(engine))
    workers = [
        here.process(f"Worker_DP{engine.number}_TP{rank}", ranks={**ranks, "tp": rank}, **own) for rank in range(2)
    ]
    for worker in workers:
        worker.rows(graph_events.CAPTURES, *_captures(engine))
    _write(core, chunk, engine, [step_events.STEPS, kv_events.STEPS], _steps)
    _write(core, chunk, engine, [kv_events.USAGE], _usage)
    _write(core, chunk, engine, [kv_events.EVICTIONS], _evictions)
    _write(core, chunk, engine, [request_events.IN_ENGINE], _in_engine)
    _write(core, chunk, engine, [request_events.PREEMPTIONS], _preemptions)
    _write(front, chunk, engine, [request_events.ARRIVALS], _arrivals)
    _write(front, chunk, engine, [request_events.ENDS], _ends)
    for tables, frame in (([pass_events.PASSES, graph_events.PASSES], _passes), ([pass_events.LATENCIES], _latencies)):
        _write(workers[0], chunk, engine, tables, frame)
        name = f"{tables[0].name}.csv"
        os.link(workers[0].folder / name, workers[1].folder / name)


def _health(engine: Engine) -> list[dict[str, object]]:
    time_ns = at(BEGIN_SECONDS) + engine.steps * STEP_NS - engine.behind_ns
    cells = {"state": "put_in", "calls": engine.steps, "failures": 0}
    return [{"time_ns": time_ns, "hook": hook["name"], **cells} for hook in HOOKS if hook["state"] == "put_in"]


def _captures(engine: Engine) -> list[dict[str, object]]:
    graphs = ({**DECODE, "num_tokens": size, "num_reqs": size} for size in SIZES)
    return [capture(0.1 - engine.behind_ns / SECOND, graph) for graph in graphs]


Maker = Callable[[pl.DataFrame, Engine], pl.DataFrame]


def _write(process: ProcessBuilder, chunk: int, engine: Engine, tables: list[Table], make_rows: Maker) -> None:
    """One file, a chunk of steps at a time."""
    with open(process.folder / f"{tables[0].name}.csv", "wb") as file:
        for number, frame in enumerate(_chunks(engine, chunk)):
            laid_out(tables, make_rows(frame, engine)).write_csv(file, include_header=number == 0)


def _chunks(engine: Engine, chunk: int) -> Iterator[pl.DataFrame]:
    """Numbers of steps, and when each ended on the engine's own clock; some more, in which requests run again."""
    last = engine.steps + RECOVERED_STEPS
    for first in range(1, last + 1, chunk):
        numbers = pl.select(step=pl.int_range(first, min(first + chunk, last + 1), dtype=pl.Int64))
        yield numbers.with_columns(time_ns=_end_of(engine, pl.col("step")) - engine.behind_ns)


def _end_of(engine: Engine, step: pl.Expr) -> pl.Expr:
    """On the clock of the first host."""
    return at(BEGIN_SECONDS) + engine.number * ENGINE_SHIFT_NS + step * STEP_NS


def _cell(values: Periodic) -> pl.Expr:
    """Of each step."""
    return pl.lit(pl.Series(values.values)).gather(pl.col("step") % values.period)


def _sum(values: Periodic) -> pl.Expr:
    """Over all steps up to each one."""
    whole = pl.col("step") // values.period * sum(values.values)
    return whole + pl.lit(pl.Series(values.begun)).gather(pl.col("step") % values.period)


def _real(frame: pl.DataFrame, engine: Engine) -> pl.DataFrame:
    return frame.filter(pl.col("step") <= engine.steps)


def _batches(frame: pl.DataFrame, engine: Engine) -> pl.DataFrame:
    return _real(frame, engine).with_columns(
        step_requests=_cell(REQUESTS.requests), context_requests=_cell(REQUESTS.context_requests),
        context_tokens=_cell(REQUESTS.context_tokens), step_tokens=_cell(REQUESTS.tokens),
    )  # fmt: skip


def _steps(frame: pl.DataFrame, engine: Engine) -> pl.DataFrame:
    number = pl.col("step")
    return _batches(frame, engine).with_columns(
        engine=0, scheduled_ns=pl.col("time_ns") - 9_000_000, schedule_ns=_cell(SCHEDULE_NS), blocked_ns=8_000_000,
        update_ns=200_000, between_ns=100_000, no_requests_ns=0, model_ns=8_500_000, running=pl.col("step_requests"),
        waiting=number % 13, skipped=0, recomputed_tokens=0, step_preempted=0, step_finished=1,
        limit=pl.lit(pl.Series(LIMITS.values)).gather(number % LIMITS.period), in_use=_cell(IN_USE),
        free_blocks=TOTAL_BLOCKS - _cell(IN_USE), usable_blocks=TOTAL_BLOCKS, total_blocks=TOTAL_BLOCKS,
        max_requests=256, max_step_tokens=8192, drafted_tokens=0, accepted_tokens=0, in_flight=1, step_peak=_cell(IN_USE),
        cached_free=100, empty=TOTAL_BLOCKS - 100 - _cell(IN_USE), allocated=number * 3, released=number * 3,
        freed=number * 2, evicted=number, lifetime_ns=_sum(AGES_NS), idle_ns=_sum(AGES_NS) // 2, timed_evictions=number,
        failed_allocations=number // PREEMPTED_EVERY, operations=number * 5, busy_steps=number, output_steps=number,
        scheduled_tokens=_sum(REQUESTS.tokens), peak=PEAK,
        peak_time_ns=at(BEGIN_SECONDS) + engine.number * ENGINE_SHIFT_NS + PEAK_STEP * STEP_NS - engine.behind_ns,
        touched=number, touched_free=number, preemptions=number // PREEMPTED_EVERY, resets=0, query_requests=number,
        query_tokens=number * PROMPT_TOKENS, hit_tokens=number * HIT_TOKENS, preempted_query_tokens=0,
        preempted_hit_tokens=0, prompt_tokens=number * PROMPT_TOKENS,
    )  # fmt: skip


def _usage(frame: pl.DataFrame, engine: Engine) -> pl.DataFrame:
    """Blocks in use at the end of each step, just before its row."""
    return _real(frame, engine).select(
        time_ns=pl.col("time_ns") - 1000, engine=pl.lit(0), kind=pl.lit("interval"), in_use=_cell(IN_USE),
        total_blocks=pl.lit(TOTAL_BLOCKS),
    )  # fmt: skip


def _evictions(frame: pl.DataFrame, engine: Engine) -> pl.DataFrame:
    """One in each step."""
    return _real(frame, engine).select(
        "time_ns", engine=pl.lit(0), block_id=pl.col("step") % TOTAL_BLOCKS, allocated_ns=pl.col("time_ns") - _cell(AGES_NS),
        used_ns=pl.col("time_ns") - _cell(AGES_NS) // 2, cause=pl.lit("allocation"),
    )  # fmt: skip


def _passes(frame: pl.DataFrame, engine: Engine) -> pl.DataFrame:
    return pass_frame(_batches(frame, engine)).with_columns(fault=None)


def _latencies(frame: pl.DataFrame, engine: Engine) -> pl.DataFrame:
    """Every pass was timed."""
    return latency_frame(_batches(frame, engine))


def _moments(frame: pl.DataFrame, engine: Engine) -> pl.DataFrame:
    """Requests, one of which ends in each step: moments of the scheduler on the clock of the engine."""
    end = pl.col("time_ns")
    return _real(frame, engine).with_columns(
        engine=0, number=pl.col("step"), end_ns=_end_of(engine, pl.col("step")),
        queued_ns=end - E2E_NS + DELIVERY_NS, scheduled_ns=end - E2E_NS + DELIVERY_NS + _cell(WAIT_NS),
        first_token_ns=end - E2E_NS + TTFT_NS, last_token_ns=end - LAST_TOKEN_NS, prompt_tokens=PROMPT_TOKENS,
        cached_tokens=HIT_TOKENS, output_tokens=_cell(OUTPUT_TOKENS), priority=0,
        preemptions=(pl.col("step") % PREEMPTED_EVERY == 0).cast(pl.Int64),
    )  # fmt: skip


def _id(prefix: str, number: str = "step") -> pl.Expr:
    return pl.lit(prefix) + pl.col(number).cast(pl.String)


def _in_engine(frame: pl.DataFrame, engine: Engine) -> pl.DataFrame:
    return _moments(frame, engine).with_columns(
        request=_id(engine.prefix), event=pl.lit("finished"), prefill_steps=1, status=pl.lit("LENGTH_CAPPED")
    )


def _arrivals(frame: pl.DataFrame, engine: Engine) -> pl.DataFrame:
    request = _id(f"r{engine.number}-")
    arrival = pl.col("end_ns") - E2E_NS
    return _moments(frame, engine).with_columns(
        time_ns=arrival + DELIVERY_NS // 2, arrival_ns=arrival, request=request, external=request
    )


def _ends(frame: pl.DataFrame, engine: Engine) -> pl.DataFrame:
    return _moments(frame, engine).with_columns(
        time_ns=pl.col("end_ns") + 1000, request=_id(f"r{engine.number}-"), reason=pl.lit("length"),
        is_counted=pl.lit(True), e2e_ns=E2E_NS, ttft_ns=TTFT_NS + DELIVERY_NS,
    )  # fmt: skip


def _preemptions(frame: pl.DataFrame, engine: Engine) -> pl.DataFrame:
    """Each so manieth request is preempted, runs again some steps later, and has again what it lost some steps after that."""
    rows = [
        frame.select("step", "time_ns", number=pl.col("step") - later, event=pl.lit(event), later=pl.lit(later))
        for event, later in (("preempted", 0), ("resumed", RESUMED_STEPS), ("recovered", RECOVERED_STEPS))
    ]
    found = pl.concat(rows).filter(
        (pl.col("number") % PREEMPTED_EVERY == 0) & pl.col("number").is_between(1, engine.steps)
    )
    first = pl.col("event") == "preempted"
    return found.sort("time_ns", maintain_order=True).select(
        "step", "event", time_ns=pl.col("time_ns") - PREEMPTED_NS, engine=pl.lit(0), request=_id(engine.prefix, "number"),
        number=pl.lit(1), reason=pl.when(first).then(pl.lit("no_blocks")), for_request=_id(engine.prefix, "number"),
        asked_tokens=pl.when(first).then(1), lost_tokens=pl.when(first).then(300), free_blocks=pl.when(first).then(0),
        kept_tokens=pl.when(pl.col("event") == "resumed").then(100),
        recomputed_tokens=pl.when(pl.col("event") == "recovered").then(200),
    )  # fmt: skip
