"""One call of vLLM's CUDAGraphWrapper that replays a piece, inside a forward pass of 33 pieces, with and without hooks."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from overhead import forwards
from overhead.reference import REPLAYING_CALL_US, Yardstick
from overhead.samples import Benchmark, Figure, Measurement, Target
from overhead.turns import recording, rounds, turn_about

SETTLING = 30
"""Forwards at the start of a block that are not counted: caches, files, and the calls that ProfileMate times at first."""


class Size(NamedTuple):
    """How much is run."""

    rounds: int
    forwards: int


SIZES = {"full": Size(300, 500), "quick": Size(30, 300), "tiny": Size(3, 40)}


class Block(NamedTuple):
    """Some hundred forwards with the hooks in, or with the hooks out."""

    call_us: float
    """One wrapper call, in the median forward."""
    pass_us: float
    """One whole `execute_model`, the write of its row included: the median."""
    cpu_us: float
    """CPU time of the mean pass: with those in which ProfileMate times its own calls."""


def run_block(runner: Any, count: int) -> Block:
    """Run forwards one after another."""
    for _ in range(SETTLING):
        runner.execute_model(runner.bench_step)
        runner.sample_tokens(None)
    calls, passes = [], []
    cpu = time.process_time()
    for _ in range(count):
        began = time.perf_counter_ns()
        runner.execute_model(runner.bench_step)
        runner.sample_tokens(None)
        passes.append(time.perf_counter_ns() - began)
        calls.append(runner.bench_ns)
    cpu_us = 1e6 * (time.process_time() - cpu) / count
    call_ns = statistics.median(calls) / forwards.PIECES
    return Block(call_ns / 1e3, statistics.median(passes) / 1e3, cpu_us)


def run_blocks(runner: Any, size: Size) -> dict[bool, list[Block]]:
    """Blocks by whether the hooks are in."""
    blocks: dict[bool, list[Block]] = {False: [], True: []}
    for number in rounds("graph_replay", size.rounds):
        for on in turn_about(number):
            if on:
                with recording():
                    blocks[on].append(run_block(runner, size.forwards))
            else:
                blocks[on].append(run_block(runner, size.forwards))
    return blocks


def check_rows(folder: str, size: Size) -> None:
    """What was timed must have been recorded: every forward with all its pieces."""
    import streams

    rows = streams.all_rows(streams.only_session(Path(folder)), "forward_passes")
    expected = size.rounds * (size.forwards + SETTLING)
    if len(rows) != expected or {row["graphs"] for row in rows} != {str(forwards.PIECES)}:
        raise RuntimeError(f"{len(rows)} forwards recorded out of {expected}")


def measure(size: str) -> Measurement:
    """Blocks in pairs, in changing order."""
    chosen = SIZES[size]
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PROFILEMATE_DIR"] = folder
        runner = forwards.make_runner()
        blocks = run_blocks(runner, chosen)
        check_rows(folder, chosen)
    on, off = blocks[True], blocks[False]
    calls = [block.call_us for block in on], [block.call_us for block in off]
    passes = [block.pass_us for block in on], [block.pass_us for block in off]
    cpu = [block.cpu_us for block in on], [block.cpu_us for block in off]
    bare_call = Yardstick("a bare replaying call", calls[1], REPLAYING_CALL_US)
    figures = [
        Figure("one replaying call", "us", "difference", *calls, Target(0.5), yardstick=bare_call),
        Figure("a whole forward pass", "us", "difference", *passes),
        Figure("a whole forward pass, mean", "us of CPU", "difference", *cpu),
    ]
    return Measurement(figures, {"forward pass": f"{forwards.PIECES} pieces, which do nothing on the device"})


BENCHMARK = Benchmark(
    "graph_replay", "Replay of a CUDA graph piece by vLLM's CUDAGraphWrapper", measure, forwards.ENVIRONMENT
)
