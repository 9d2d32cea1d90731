"""Sessions with something in every figure: random but the same each time, of one engine or of several."""

from __future__ import annotations

import random
from itertools import accumulate
from pathlib import Path
from typing import Any

from session_builder import ProcessBuilder, SessionBuilder, at

from profilemate.schema.probe_tables import HEALTH
from profilemate.trackers import NAMES
from profilemate.trackers.cuda_graphs import events as graphs
from profilemate.trackers.engine_steps import events as steps
from profilemate.trackers.forward_passes import events as forwards
from profilemate.trackers.kv_cache import events as kv
from profilemate.trackers.moe_routing import events as moe
from profilemate.trackers.prefix_lookups import events as lookups
from profilemate.trackers.requests import events as requests

SIZES = [1, 2, 4, 8, 16, 32]
BLOCKS = 200
SETTINGS = {"trackers": list(NAMES), "device_timing_every": 10}
CONFIG = {
    "model": "<b>model</b>", "num_gpu_blocks": BLOCKS + 1, "max_num_seqs": 16, "max_num_batched_tokens": 64, "device": "cpu",
    "cudagraph_capture_sizes": SIZES,
}  # fmt: skip
HOOKS = [
    {"name": "a.called", "tracker": "kv_cache", "target": "m:a", "state": "put_in", "reason": ""},
    {"name": "a.silent", "tracker": "kv_cache", "target": "m:b", "state": "put_in", "reason": ""},
    {"name": "a.misfit", "tracker": "cuda_graphs", "target": "m:c", "state": "does_not_fit", "reason": "has no <x>"},
    {"name": "a.off", "tracker": "cuda_graphs", "target": "m:d", "state": "switched_off", "reason": "ValueError"},
]


def shared(process: ProcessBuilder, tables: tuple[Any, ...], rows: list[dict[str, Any]]) -> None:
    """Rows of a file that several trackers share."""
    columns = list(dict.fromkeys(column for table in tables for column in table.columns))
    lines = [",".join("" if row.get(column) is None else str(row[column]) for column in columns) for row in rows]
    process.raw(f"{tables[0].name}.csv", "\n".join([",".join(columns), *lines, ""]).encode())


def step_rows(random_: random.Random, count: int) -> list[dict[str, Any]]:
    """Engine steps one after the other, some of them after a pause without requests."""
    rows: list[dict[str, Any]] = []
    now, evicted, asked, hit, peak, peak_ns = at(2), 0, 0, 0, 0, at(2)
    for number in range(1, count + 1):
        parts = {
            "schedule_ns": random_.randrange(50_000, 400_000), "blocked_ns": random_.randrange(1_000_000, 30_000_000),
            "update_ns": random_.randrange(20_000, 200_000), "between_ns": random_.randrange(0, 100_000),
            "no_requests_ns": random_.choice([0] * 30 + [2_500_000_000]),
        }  # fmt: skip
        now += sum(parts.values())
        in_batch = random_.randrange(1, 17)
        context = min(in_batch, random_.choice([0, 0, 0, 1, 2, 16]))
        context_tokens = context * random_.randrange(1, 5)
        in_use = random_.randrange(0, BLOCKS)
        cached = random_.randrange(0, BLOCKS - in_use + 1)
        top = random_.randrange(in_use, BLOCKS + 1)
        if top > peak:
            peak, peak_ns = top, now
        evicted += random_.choice([0, 0, 3])
        asked += (new := random_.choice([0, 0, 64]))
        hit += random_.randrange(0, new + 1)
        idle = random_.random() < 0.02
        rows.append(
            {
                "time_ns": now, "engine": 0, "step": number, "scheduled_ns": now - 1, **parts, "model_ns": parts["blocked_ns"],
                "running": in_batch, "waiting": random_.randrange(0, 9), "skipped": 0, "step_requests": 0 if idle else in_batch,
                "step_tokens": 0 if idle else in_batch - context + context_tokens, "context_requests": 0 if idle else context,
                "context_tokens": 0 if idle else context_tokens, "recomputed_tokens": 0, "step_preempted": 0,
                "limit": random_.choice(steps.LIMITS),
                "free_blocks": BLOCKS - in_use, "max_requests": 16, "max_step_tokens": 64,
                "usable_blocks": BLOCKS, "step_finished": 0, "drafted_tokens": 0, "accepted_tokens": 0, "in_flight": 0,
                **dict.fromkeys(kv.STEPS.columns[3:], 0), "total_blocks": BLOCKS, "in_use": in_use, "cached_free": cached,
                "empty": BLOCKS - in_use - cached, "step_peak": top, "peak": peak, "peak_time_ns": peak_ns, "evicted": evicted,
                "timed_evictions": evicted, "query_tokens": asked, "hit_tokens": hit,
            }
        )  # fmt: skip
    return rows


def eviction_rows(random_: random.Random, ran: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each of the evictions that the steps count."""
    rows = []
    for row, before in zip(ran, [0, *(row["evicted"] for row in ran)], strict=False):
        for _ in range(row["evicted"] - before):
            used = row["time_ns"] - random_.randrange(1, 9_000_000_000)
            rows.append(
                {"time_ns": row["time_ns"], "engine": 0, "block_id": 1, "allocated_ns": used - random_.randrange(1, 10**11),
                 "used_ns": used, "cause": random_.choice(["allocation", "allocation", "invalidation"])}
            )  # fmt: skip
    return rows


def pass_rows(random_: random.Random, ran: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A forward pass for each busy step, by the graph that is large enough, FULL for decodes up to 16."""
    rows = []
    for number, row in enumerate((row for row in ran if row["step_tokens"]), 1):
        tokens, context = row["step_tokens"], row["context_requests"]
        size = next((size for size in SIZES if size >= tokens), None)
        mode = "NONE" if size is None else "FULL" if not context and size <= 16 else "PIECEWISE"
        phase = "decode" if not context else "prefill" if context == row["step_requests"] else "mixed"
        fault = "not_replayed" if mode != "NONE" and number % 29 == 0 else ""
        rows.append(
            {
                "time_ns": row["time_ns"] - row["blocked_ns"], "step": number, "forward": number, "runtime_mode": mode,
                "host_ns": random_.randrange(100_000, 9_000_000), "clock": "monotonic", "num_tokens": size or tokens,
                "num_reqs": size if mode == "FULL" else None, "uniform": mode == "FULL", "has_lora": False,
                "num_active_loras": 0, "unpadded_tokens": tokens, "unpadded_reqs": row["step_requests"],
                "graphs": 0 if mode == "NONE" or fault else 1 if mode == "FULL" else 5, "fault": fault, "phase": phase,
                "requests": row["step_requests"], "tokens": tokens, "context_requests": context,
                "context_tokens": row["context_tokens"], "execute_ns": 1, "sample_ns": 1,
            }
        )  # fmt: skip
    return rows


def capture_rows() -> list[dict[str, Any]]:
    """Every size as PIECEWISE, those up to 16 as FULL as well; FULL 1 once more for the memory estimate."""
    plain = {
        "owner": "main",
        "has_lora": False,
        "num_active_loras": 0,
        "duration_ns": 1_000_000,
        "graphs": 1,
        "site": "W",
    }
    modes = [("PIECEWISE", size) for size in SIZES] + [("FULL", size) for size in SIZES if size <= 16]
    rows = [
        {**plain, "time_ns": at(1), "purpose": "serving", "runtime_mode": mode, "num_tokens": size, "uniform": mode == "FULL",
         "num_reqs": size if mode == "FULL" else None}
        for mode, size in modes
    ]  # fmt: skip
    return [{**rows[-1], "purpose": "estimate", "time_ns": at(0.5)}, *rows]


def request_rows(
    random_: random.Random, count: int, prefix: str, first: str = ""
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[dict[str, Any]]]:
    """Ends (front end), rows of the scheduler, and preemptions of every third request."""
    ends, inside, preempted = [], [], []
    for number in range(count):
        name = first if first and not number else f"{prefix}{number:04d}"
        arrival = at(2) + number * 40_000_000
        moments = list(accumulate([arrival, *(random_.randrange(1_000_000, 900_000_000) for _ in range(5))]))
        _, queued, scheduled, first_token, last_token, end = moments
        tokens = {
            "prompt_tokens": random_.randrange(1, 300),
            "cached_tokens": 0,
            "output_tokens": random_.randrange(1, 50),
        }
        ends.append(
            {"time_ns": end, "request": name, "reason": "stop", "is_counted": True, "end_ns": end, "e2e_ns": end - arrival,
             "ttft_ns": first_token - arrival + 1_000, "queued_ns": queued, "scheduled_ns": scheduled,
             "first_token_ns": first_token, "last_token_ns": last_token, **tokens, "preemptions": int(number % 3 == 0)}
        )  # fmt: skip
        own = {"engine": 0, "step": 1, "request": name}
        inside.append(
            {"time_ns": last_token, **own, "event": "finished", "queued_ns": queued, "scheduled_ns": scheduled,
             "first_token_ns": first_token, "prefill_steps": 1, "status": "STOPPED", **tokens}
        )  # fmt: skip
        if number % 3 == 0:
            lost, length = random_.randrange(1, 200), last_token - first_token
            kept = random_.randrange(0, lost + 1)
            again = lost - kept if number % 2 else 0
            places = [first_token + length // 4, first_token + length // 2, first_token + 3 * length // 4]
            reason = random_.choice(["no_blocks", "prefix_cache_reset", "other"])
            preempted += [
                {"time_ns": places[0], **own, "event": "preempted", "number": 1, "reason": reason, "lost_tokens": lost,
                 "free_blocks": 0, "asked_tokens": 1, "for_request": name},
                {"time_ns": places[1], **own, "event": "resumed", "number": 1, "kept_tokens": kept},
                {"time_ns": places[2], **own, "event": "recovered" if number % 2 else "cut_short", "number": 1,
                 "recomputed_tokens": again},
            ]  # fmt: skip
    return ends, sorted(inside, key=lambda row: row["time_ns"]), sorted(preempted, key=lambda row: row["time_ns"])


def lookup_rows(random_: random.Random, count: int) -> list[dict[str, Any]]:
    """Look-ups whose tokens add up."""
    rows = []
    for number in range(1, count + 1):
        parts = {
            name: random_.randrange(0, 40)
            for name, _, _ in lookups.TOKENS
            if name.endswith("_tokens") and name != "asked_tokens"
        }
        rows.append(
            {"time_ns": at(2) + number, "engine": 0, "lookup": number, "request": f"r{number}", "resumed": number % 7 == 0,
             "cache_off": "", "prompt_tokens": 1, "blocks": 1, "asked_tokens": sum(parts.values()), **parts,
             "unwritten_blocks": 0, "every": 1}
        )  # fmt: skip
    return rows


def moe_rows(
    random_: random.Random, layers: int = 3, experts: int = 8
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Layers, and cumulative counts read four times."""
    kinds = [
        {"time_ns": at(1), "model": 0, "layer_idx": layer, "router": "R", "num_experts": experts, "top_k": 2, "unseen": "",
         "pairs": "off"}
        for layer in range(layers)
    ]  # fmt: skip
    totals = [[0] * experts for _ in range(layers)]
    rows = []
    for reading in range(1, 5):
        for layer, counts in enumerate(totals):
            for expert in range(experts):
                counts[expert] += random_.randrange(0, 30) * (expert != 5)
            rows.append(
                {"time_ns": at(2 + reading), "model": 0, "layer_idx": layer, "passes": reading, "tokens": 100 * reading,
                 "outside": 0, "counts": " ".join(map(str, counts))}
            )  # fmt: skip
    return kinds, rows


def health_rows() -> list[dict[str, Any]]:
    """Two hooks that were called, one of which failed."""
    timed = {"first_calls": 10, "first_ns": 50_000, "sampled_calls": 10, "sampled_ns": 40_000}
    return [
        {"time_ns": at(9), "hook": "a.called", "state": "put_in", "calls": 500, "failures": 0, **timed},
        {"time_ns": at(9), "hook": "a.off", "state": "switched_off", "calls": 20, "failures": 5, **timed},
    ]


def add_engine(
    session: SessionBuilder, seed: int, count: int, engine: int = 0, first: str = ""
) -> list[dict[str, Any]]:
    """An engine core and its worker; returns the rows of the front end. `first` is the id of the first request."""
    random_ = random.Random(seed)
    ran = step_rows(random_, count)
    began = {"cost": {"began_ns": at(0.5), "entry_ns": 500.0}}
    common = {"settings": SETTINGS, "engine_config": CONFIG, "hooks": HOOKS, **began}
    suffix = f"_DP{engine}" if engine else ""
    core = session.process(f"EngineCore{suffix}", engine_index=engine, **common)
    shared(core, (steps.STEPS, kv.STEPS), ran)
    core.rows(kv.EVICTIONS, *eviction_rows(random_, ran))
    usage = [
        {"kind": "interval", "engine": 0, **{key: row[key] for key in ("time_ns", "in_use", "total_blocks")}}
        for row in ran[::5]
    ]
    core.rows(kv.USAGE, *usage).rows(HEALTH, *health_rows())
    ends, inside, preempted = request_rows(random_, max(6, count // 20), f"e{engine}-", first)
    core.rows(requests.IN_ENGINE, *inside).rows(requests.PREEMPTIONS, *preempted)
    core.rows(lookups.LOOKUPS, *lookup_rows(random_, max(6, count // 20)))
    worker = session.process(f"Worker{suffix}", ranks={"dp": engine}, **common)
    shared(worker, (graphs.PASSES, forwards.PASSES), pass_rows(random_, ran))
    kinds, counts = moe_rows(random_)
    worker.rows(graphs.CAPTURES, *capture_rows()).rows(moe.LAYERS, *kinds).rows(moe.COUNTS, *counts)
    return ends


def rich_session(folder: Path, count: int = 300, engines: int = 1, first: str = "") -> SessionBuilder:
    """Front end, engines and workers with every tracker but the bandwidth estimate's model."""
    session = SessionBuilder(folder)
    front = session.process("APIServer", engine_index=None, settings=SETTINGS, engine_config=CONFIG)
    ends = [
        row
        for engine in range(engines)
        for row in add_engine(session, 11 + engine, count, engine, first if not engine else "")
    ]
    ends.sort(key=lambda row: row["time_ns"])
    arrivals = [
        {"time_ns": row["end_ns"] - row["e2e_ns"], "request": row["request"], "external": row["request"],
         "arrival_ns": row["end_ns"] - row["e2e_ns"], "prompt_tokens": row["prompt_tokens"], "priority": 0}
        for row in ends
    ]  # fmt: skip
    front.rows(requests.ARRIVALS, *sorted(arrivals, key=lambda row: row["time_ns"])).rows(requests.ENDS, *ends)
    return session
