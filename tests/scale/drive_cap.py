"""Drives a session of many processes past its size cap with the probe's own writer, and prints the most bytes it ever had.

    python tests/scale/drive_cap.py FOLDER PROCESSES STEPS CAP_BYTES

Each process is one of the operating system's, writes the rows of an engine core or of a worker as the hooks do (a flush for
each step, totals before a segment goes), and knows of the cap what process_share tells it. No vLLM is needed.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

from long_session import CONFIG  # noqa: E402 - needs the path
from sample_rows import HOOKS  # noqa: E402
from scale_truth import AGES_NS, BEGIN_SECONDS, LIMITS, REQUESTS, SCHEDULE_NS, STEP_NS, graph_of  # noqa: E402
from session_builder import ProcessBuilder, SessionBuilder, at  # noqa: E402

from profilemate.probe import writer as writer_module  # noqa: E402
from profilemate.probe.settings import Settings  # noqa: E402
from profilemate.probe.writer import Writer, process_share  # noqa: E402
from profilemate.schema.table import Table  # noqa: E402
from profilemate.trackers.cuda_graphs import events as graphs  # noqa: E402
from profilemate.trackers.engine_steps import events as steps  # noqa: E402
from profilemate.trackers.forward_passes import events as passes  # noqa: E402
from profilemate.trackers.kv_cache import events as kv  # noqa: E402

BLOCKS = 20_000
NEVER = 1 << 62
Cells = dict[str, object]


def joined(*tables: Table) -> Table:
    """A file that several tables share."""
    fields = {field.name: field for table in tables for field in table.fields}
    return tables[0]._replace(fields=tuple(fields.values()))


def row(table: Table, cells: Cells) -> tuple[object, ...]:
    """As the hooks hand it over."""
    return tuple(cells.get(name) for name in table.columns)


def batch_of(step: int) -> Cells:
    """What the hooks see of one step."""
    place = step % REQUESTS.requests.period
    return {
        "time_ns": at(BEGIN_SECONDS) + step * STEP_NS, "step": step,
        "step_requests": REQUESTS.requests.values[place], "step_tokens": REQUESTS.tokens.values[place],
        "context_requests": REQUESTS.context_requests.values[place],
        "context_tokens": REQUESTS.context_tokens.values[place],
    }  # fmt: skip


class Engine:
    """An engine core: a row for each step, one for its eviction."""

    def __init__(self, writer: Writer) -> None:
        self.table = joined(steps.STEPS, kv.STEPS)
        self.steps, self.evictions = writer.stream(self.table), writer.stream(kv.EVICTIONS)
        self.totals = writer.stream(steps.TOTALS, detail=False, newest_counts=True)
        self.sums: dict[str, int] = dict.fromkeys(steps.COUNTS, 0)
        self.last = self.lifetime_ns = 0
        writer.before_drop.append(self.write_totals)

    def step(self, batch: Cells) -> None:
        number, time_ns = int(str(batch["step"])), int(str(batch["time_ns"]))
        age_ns = AGES_NS.values[number % AGES_NS.period]
        self.lifetime_ns += age_ns
        cells = {
            **batch, "engine": 0, "limit": LIMITS.values[number % LIMITS.period], "max_requests": 256, "update_ns": 200_000,
            "schedule_ns": SCHEDULE_NS.values[number % SCHEDULE_NS.period], "max_step_tokens": 8192, "step_finished": 1,
            "in_use": 100, "total_blocks": BLOCKS, "evicted": number, "timed_evictions": number, "allocated": 3 * number,
            "lifetime_ns": self.lifetime_ns, "idle_ns": 0, "preemptions": 0, "peak": 100, "peak_time_ns": at(BEGIN_SECONDS),
        }  # fmt: skip
        for name in self.sums:
            value = cells.get(name)
            self.sums[name] += value if isinstance(value, int) else name in ("busy_steps", cells["limit"])
        self.last = number
        self.steps.add(row(self.table, cells))
        evicted = {
            "time_ns": time_ns, "engine": 0, "block_id": number % BLOCKS, "allocated_ns": time_ns - age_ns,
            "used_ns": time_ns - age_ns, "cause": "allocation",
        }  # fmt: skip
        self.evictions.add(row(kv.EVICTIONS, evicted))

    def write_totals(self) -> None:
        self.totals.add((at(BEGIN_SECONDS) + self.last * STEP_NS, 0, self.last, *self.sums.values()))


class Worker:
    """A worker: a forward pass for each step."""

    def __init__(self, writer: Writer) -> None:
        self.table = joined(passes.PASSES, graphs.PASSES)
        self.passes = writer.stream(self.table)
        self.graph_totals = writer.stream(graphs.TOTALS, detail=False, newest_counts=True)
        self.totals = writer.stream(passes.TOTALS, detail=False, newest_counts=True)
        self.graphs: dict[int, list[int]] = {}
        self.phases: dict[str, list[int]] = {}
        self.last = 0
        writer.before_drop.append(self.write_totals)

    def step(self, batch: Cells) -> None:
        requests, tokens, context = (
            int(str(batch[name])) for name in ("step_requests", "step_tokens", "context_requests")
        )
        size, phase, self.last = graph_of(requests, context), "mixed" if context else "decode", int(str(batch["step"]))
        cells = {
            "time_ns": batch["time_ns"], "step": self.last, "forward": self.last, "host_ns": 2_000_000, "clock": "monotonic",
            "runtime_mode": "FULL" if size else "NONE", "num_tokens": size or tokens, "num_reqs": size, "uniform": bool(size),
            "has_lora": False, "unpadded_tokens": tokens, "unpadded_reqs": requests, "graphs": int(bool(size)), "fault": "",
            "phase": phase, "requests": requests, "tokens": tokens, "context_requests": context,
            "context_tokens": batch["context_tokens"],
        }  # fmt: skip
        self.passes.add(row(self.table, cells))
        key = size or 0
        replay = [1, 1, 1, tokens, size, 2_000_000] if size else [1, 0, 0, 0, 0, 0]
        self.graphs[key] = [a + b for a, b in zip(self.graphs.get(key, [0] * 6), replay, strict=True)]
        counted = [1, requests, tokens, int(str(batch["context_tokens"]))]
        self.phases[phase] = [a + b for a, b in zip(self.phases.get(phase, [0] * 4), counted, strict=True)]

    def write_totals(self) -> None:
        now = at(BEGIN_SECONDS) + self.last * STEP_NS
        for key, sums in self.graphs.items():
            descriptor = ("FULL", key, key, True, False) if key else ("NONE", None, None, None, None)
            self.graph_totals.add((now, self.last, "main", *descriptor, None, None, None, None, *sums))
        for phase, sums in self.phases.items():
            self.totals.add((now, self.last, phase, *sums))


def live(folder: Path, share: int, num_steps: int, make: Callable[[Writer], Engine | Worker]) -> None:
    """The life of one process."""
    writer_module.SLOW_WRITE_NS = NEVER  # so many processes on a few cores: any write may be slow, and pause the rows
    writer = Writer()
    writer.open(str(folder), share, 0)
    process = make(writer)
    for number in range(1, num_steps + 1):
        process.step(batch_of(number))
        writer.flush()


def bytes_of(folder: Path) -> int:
    """Of all streams as they are now; a file may go meanwhile."""
    total = 0
    for path in folder.rglob("*.csv"):
        try:
            total += path.stat().st_size
        except FileNotFoundError:
            continue
    return total


def main(directory: Path, num_processes: int, num_steps: int, cap_bytes: int) -> None:
    """One process in four is an engine core, the others are its workers."""
    session = SessionBuilder(directory)
    share = process_share(Settings(session_cap_bytes=cap_bytes), num_processes)
    children = []
    for number in range(num_processes):
        engine, rank = divmod(number, 4)
        ranks = {"dp": engine, "tp": rank - 1}
        if rank:
            built = session.process(f"Worker_DP{engine}_TP{rank - 1}", ranks=ranks, engine_config=CONFIG)
        else:
            built = session.process(f"EngineCore_DP{engine}", engine_index=engine, engine_config=CONFIG, hooks=HOOKS)
        children.append(start(built, share, num_steps, Worker if rank else Engine))
    most, running = 0, set(children)
    while running:
        most = max(most, bytes_of(session.path))
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid:
            running.discard(pid)
            assert status == 0, f"a process ended with {status}"
    print(json.dumps({"session": str(session.path), "most_bytes": max(most, bytes_of(session.path)), "share": share}))


def start(built: ProcessBuilder, share: int, num_steps: int, make: Callable[[Writer], Engine | Worker]) -> int:
    """A child that does nothing but write; returns its process id."""
    pid = os.fork()
    if pid:
        return pid
    try:
        live(built.folder, share, num_steps, make)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *(int(argument) for argument in sys.argv[2:5]))
