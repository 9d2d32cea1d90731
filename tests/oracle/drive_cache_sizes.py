"""vLLM's own Scheduler on one trace at several cache sizes: what its own metric of prefix hits says at each.

    python tests/oracle/drive_cache_sizes.py --sizes 300,150,600 [--chat CONVERSATIONS] ARGUMENTS OF drive.py

Prints a JSON object: size (the null block included) -> tokens asked and found, preemptions. `--chat` makes conversations whose
next turn begins with everything before, the answers included.
"""

from __future__ import annotations

import json
import os
import random
import sys
import zlib
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "driver")]

import trace as traces  # noqa: E402

import drive  # noqa: E402


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
    driver = drive.Driver(scheduler, drive.Requests(trace, options.block_size), options)
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

    if (writer := sys.modules.get("profilemate.probe.writer")) is not None:
        writer.SLOW_WRITE_NS = 1 << 60  # type: ignore[attr-defined]  # a busy machine must not cost rows here
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
