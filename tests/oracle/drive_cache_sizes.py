"""vLLM's own Scheduler on one trace at several cache sizes: what its own metric of prefix hits says at each.

    python tests/oracle/drive_cache_sizes.py --sizes 300,150,600 [--chat CONVERSATIONS] ARGUMENTS OF drive.py

Prints a JSON object: size (the null block included) -> tokens asked and found, preemptions. `--chat` makes conversations whose
next turn begins with everything before, the answers included. Time is made up, a step takes what its tokens say, and requests
come at moments of it: a run is the same every time. With real times a replay counted 11, 13 or 14 preemptions of the same
requests where vLLM has 9, as the machine was busy or not.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
import zlib
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "driver")]

import trace as traces  # noqa: E402

import drive  # noqa: E402

STEP_NS, TOKEN_NS = 8_000_000, 10_000
"""Of a step, and of each of its tokens."""

USUAL_STEP_NS = STEP_NS + 200 * TOKEN_NS
"""Traces give arrivals in steps: these."""


class MadeUpTime:
    """A monotonic clock that goes on where it is told to."""

    def __init__(self) -> None:
        self.now_ns = time.monotonic_ns()

    def monotonic_ns(self) -> int:
        """As time.monotonic_ns."""
        return self.now_ns

    def monotonic(self) -> float:
        """As time.monotonic."""
        return self.now_ns / 1e9

    def install(self) -> None:
        """For everyone: the module's functions, and the names that ProfileMate took from it before."""
        real = time.monotonic_ns
        time.monotonic_ns, time.monotonic = self.monotonic_ns, self.monotonic  # type: ignore[assignment]
        for name, module in list(sys.modules.items()):
            if name.startswith("profilemate.") and getattr(module, "monotonic_ns", None) is real:
                module.monotonic_ns = self.monotonic_ns  # type: ignore[attr-defined]


TIME = MadeUpTime()


class Timed(drive.Driver):
    """A step takes its own time and that of its tokens; one without tokens takes none."""

    def __init__(self, scheduler: Any, requests: drive.Requests, options: Any) -> None:
        super().__init__(scheduler, requests, options)
        self.began_ns = TIME.now_ns
        self.counted_tokens = 0

    def _advance(self, clock: float) -> None:
        super()._advance(clock)
        TIME.now_ns = self.began_ns + round(clock * USUAL_STEP_NS)

    def _length(self) -> float:
        tokens = self.tally["scheduled_tokens"] - self.counted_tokens
        self.counted_tokens += tokens
        return (STEP_NS + TOKEN_NS * tokens) / USUAL_STEP_NS if tokens else 0.0


def answer(name: str, count: int) -> list[int]:
    """What the driver samples for a request."""
    return [zlib.crc32(f"{name}/{number}".encode()) % traces.VOCABULARY for number in range(1, count + 1)]


def chat_trace(seed: int, conversations: int, tokens_per_chunk: int) -> list[traces.TraceRequest]:
    """Conversations of one to six turns after one of eight system prompts; people read and type for some steps."""
    rng = random.Random(seed)
    trace: list[traces.TraceRequest] = []
    begin, fresh = 0.0, 10_000
    for number in range(conversations):
        system = rng.randrange(8)
        tokens = traces.expand(range(system * 100, system * 100 + 3 + 4 * system), tokens_per_chunk)
        begin += rng.expovariate(1 / 25)
        arrival = begin
        for turn in range(rng.randint(1, 6)):
            fresh += 40
            tokens = tokens + traces.expand(range(fresh, fresh + 40), tokens_per_chunk, rng.randint(5, 300))
            name, output = f"c{number}t{turn}", rng.randint(5, 150)
            trace.append(traces.TraceRequest(name, int(arrival), tokens, output))
            tokens = tokens + answer(name, output)
            arrival += output + rng.expovariate(1 / 150)
    return trace


def run(options: Any, trace: list[traces.TraceRequest], blocks: int) -> dict[str, int]:
    """The trace once, with vLLM's own statistics taken as it makes them."""
    options.blocks = blocks
    longest = max(len(entry.prompt) + entry.output_length for entry in trace)
    scheduler = drive.make_scheduler(options, longest)
    driver = Timed(scheduler, drive.Requests(trace, options.block_size), options)
    make, sums = scheduler.kv_cache_manager.make_prefix_cache_stats, {"queries": 0, "hits": 0}

    def watched() -> Any:
        stats = make()
        sums["queries"] += stats.queries
        sums["hits"] += stats.hits
        return stats

    scheduler.kv_cache_manager.make_prefix_cache_stats = watched
    driver.run()
    watched()
    summary = driver.summary()
    scheduler.shutdown()
    assert summary["finished"] == len(trace)
    return {**sums, "preemptions": summary["preemptions"], "steps": summary["steps"]}


def main() -> None:
    """Entry point of the script."""
    os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    import vllm  # noqa: F401

    TIME.install()
    arguments = sys.argv[1:]
    values: dict[str, str] = {}
    while arguments[:1] in (["--sizes"], ["--chat"]):
        values[arguments[0]], arguments = arguments[1], arguments[2:]
    options = drive.parse(arguments)
    chat = values.get("--chat")
    trace = chat_trace(options.seed, int(chat), options.block_size) if chat else drive.make_trace(options)
    sizes = [int(size) for size in values["--sizes"].split(",")]
    print(json.dumps({size: run(options, trace, size) for size in sizes}), flush=True)


if __name__ == "__main__":
    main()
