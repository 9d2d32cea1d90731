"""A day of 100 steps a second under ProfileMate, simulated: does a step cost at the end what it cost at the beginning?

    python tests/long/day.py FOLDER [--scale 20] [--rounds 40] [--halves engine worker]

The hooks sit on the real vLLM classes. BlockPool is real; the scheduler's step and the model runner, which would take most
of the day, are replaced by functions that do nothing before ProfileMate comes. The clock is a pretended one: a step takes
10 ms of it, and with --scale N each hour has the N-th part of its steps, after which the clock jumps to the next hour, and
the size cap is the N-th part of the default. --scale 1 is the whole day of 8.64 million steps.

For each half an old process lives through its day; then it and a young one of the same ancestor run blocks of steps in turn,
so that both have the same machine. A third one lives through a short day with its memory traced. FOLDER gets a folder of
sessions for each, and the result is printed as JSON.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import os
import sys
import time
import tracemalloc
from collections import Counter, deque
from collections.abc import Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, Protocol

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

STEP_NS = 10_000_000
HOUR_NS = 3_600_000_000_000
HOURS = 24
STEPS_AN_HOUR = HOUR_NS // STEP_NS
SESSION_CAP_BYTES = 2 << 30
WARM_UP_STEPS = 4000
BLOCK_STEPS = 2000
TRACED_STEPS_AN_HOUR = 1000
"""Of a third process, whose memory is traced: tracing makes a step some five times slower."""


class Clock:
    """Stands in for time.monotonic_ns."""

    def __init__(self) -> None:
        self.now_ns = time.monotonic_ns()

    def __call__(self) -> int:
        return self.now_ns


class Half(Protocol):
    """One of the two kinds of processes: what it does in a step, and the truth about it."""

    truth: Counter[str]

    def steps(self, count: int) -> None:
        """Run some steps."""


class Engine:
    """Engine core: every step ends, every tenth one frees two blocks and takes two, and a few hit the prefix cache."""

    def __init__(self, clock: Clock) -> None:
        from vllm.v1.core.block_pool import BlockPool
        from vllm.v1.core.sched.scheduler import Scheduler

        self.clock = clock
        self.truth: Counter[str] = Counter()
        self.pool = BlockPool(513, True, 16)
        self.scheduler = Scheduler(self.pool)  # type: ignore[arg-type, call-arg]
        self.held: deque[list[Any]] = deque()
        self.hashed: set[int] = set()
        self.number = 0

    @staticmethod
    def prepare() -> None:
        """Replace the parts that would take the time."""
        from vllm.v1.core.sched import scheduler as module

        requests = {f"request-{number}": 1 for number in range(8)}
        batch = SimpleNamespace(
            total_num_scheduled_tokens=8, scheduled_new_reqs=(), num_scheduled_tokens=requests,
            scheduled_cached_reqs=SimpleNamespace(req_ids=list(requests), num_output_tokens=[3] * 8),
            scheduled_spec_decode_tokens={},
        )  # fmt: skip
        outputs = {0: SimpleNamespace(outputs=(1,), scheduler_stats=None)}

        def make(self: Any, pool: Any) -> None:
            self.kv_cache_manager = SimpleNamespace(block_pool=pool, enable_caching=True)
            self.scheduler_config = SimpleNamespace(max_num_seqs=16, max_num_batched_tokens=64)
            self.max_num_running_reqs, self.max_num_scheduled_tokens = 16, 64
            self.requests = dict.fromkeys(requests)
            self.running = list(requests)
            self.waiting = ()

        def schedule(self: Any) -> Any:
            return batch

        def update_from_output(self: Any, scheduler_output: Any, model_runner_output: Any) -> Any:
            return outputs

        for name, function in (("__init__", make), ("schedule", schedule), ("update_from_output", update_from_output)):
            setattr(module.Scheduler, name, function)

    def steps(self, count: int) -> None:
        clock, scheduler = self.clock, self.scheduler
        for number in range(self.number + 1, self.number + count + 1):
            clock.now_ns += STEP_NS
            batch = scheduler.schedule()
            if number % 10 == 0:
                self.exchange()
                if number % 40 == 0:
                    self.hit()
            scheduler.update_from_output(batch, None)  # type: ignore[arg-type]
        self.number += count
        self.truth["step"] += count

    def exchange(self) -> None:
        if len(self.held) >= 100:
            blocks = self.held.popleft()
            self.pool.free_blocks(reversed(blocks))
            self.truth["freed"] += len(blocks)
        blocks = self.pool.get_new_blocks(2)
        for block in blocks:
            self.truth["allocated"] += 1
            self.truth["evicted"] += block.block_id in self.hashed
            self.hashed.add(block.block_id)
            self.pool._insert_block_hash(self.truth["allocated"].to_bytes(8, "big"), block, 16)  # type: ignore[arg-type]
        self.held.append(blocks)

    def hit(self) -> None:
        """A request finds its first block in the cache, free, and ends at once."""
        block = self.pool.free_block_queue.fake_free_list_tail.prev_free_block
        if block is None or block.block_hash is None:
            return
        self.pool.touch([block])
        self.pool.free_blocks([block])
        self.truth.update(touched=1, touched_free=1, freed=1)


class Worker:
    """Worker: every step is a forward pass over one of a few graphs, FULL ones and one of three pieces."""

    def __init__(self, clock: Clock) -> None:
        from vllm import forward_context
        from vllm.compilation.cuda_graph import CUDAGraphWrapper
        from vllm.config.compilation import CUDAGraphMode
        from vllm.forward_context import BatchDescriptor
        from vllm.v1.worker.gpu_model_runner import GPUModelRunner
        from vllm.v1.worker.worker_base import WorkerWrapperBase

        self.clock = clock
        self.truth: Counter[str] = Counter()
        self.context: Any = forward_context
        self.runner: Any = object.__new__(GPUModelRunner)
        graphs = [(CUDAGraphMode.FULL, BatchDescriptor(size, size, True), 1) for size in (1, 2, 4, 8)]
        graphs.append((CUDAGraphMode.PIECEWISE, BatchDescriptor(16), 3))
        graphs.append((CUDAGraphMode.NONE, BatchDescriptor(100), 0))
        self.batches = itertools.cycle([self.batch(CUDAGraphWrapper, *graph) for graph in graphs])
        worker: Any = object.__new__(WorkerWrapperBase)
        worker.worker, worker.vllm_config = None, None
        worker.init_device()

    @staticmethod
    def batch(wrapper_class: type, mode: Any, descriptor: Any, pieces: int) -> Any:
        wrappers: list[Any] = [object.__new__(wrapper_class) for _ in range(pieces)]
        for wrapper in wrappers:
            vars(wrapper).update(concrete_cudagraph_entries={1: 1}, runtime_mode=mode)
        context = SimpleNamespace(cudagraph_runtime_mode=mode, batch_descriptor=descriptor)
        key = f"{mode.name} {descriptor.num_tokens}"
        names = ["a", "b", "c"]
        return SimpleNamespace(
            mode=mode, descriptor=descriptor, wrappers=wrappers, context=context, key=key,
            num_scheduled_tokens=dict.fromkeys(names, 1), total_num_scheduled_tokens=len(names), scheduled_new_reqs=[],
            scheduled_cached_reqs=SimpleNamespace(req_ids=names, num_output_tokens=[1, 1, 1]),
        )  # fmt: skip

    @staticmethod
    def prepare() -> None:
        """Replace the parts that need a model and a device."""
        from vllm.compilation.cuda_graph import CUDAGraphWrapper
        from vllm.v1.worker.gpu_model_runner import GPUModelRunner
        from vllm.v1.worker.worker_base import WorkerWrapperBase

        def execute_model(self: Any, scheduler_output: Any) -> None:
            self._determine_batch_execution_and_padding(scheduler_output, 3, 3)
            self._model_forward(scheduler_output)

        def determine(self: Any, batch: Any, num_tokens: int, num_reqs: int) -> Any:
            return batch.mode, batch.descriptor

        def forward(self: Any, batch: Any) -> None:
            for wrapper in batch.wrappers:
                wrapper()

        def nothing(self: Any) -> None:
            return None

        replacements: list[tuple[Any, str, Any]] = [
            (GPUModelRunner, "execute_model", execute_model),
            (GPUModelRunner, "_determine_batch_execution_and_padding", determine),
            (GPUModelRunner, "_model_forward", forward),
            (CUDAGraphWrapper, "__call__", nothing),
            (WorkerWrapperBase, "init_device", nothing),
        ]
        for owner, name, function in replacements:
            setattr(owner, name, function)

    def steps(self, count: int) -> None:
        clock, runner, truth = self.clock, self.runner, self.truth
        for batch in itertools.islice(self.batches, count):
            clock.now_ns += STEP_NS
            self.context._forward_context = batch.context
            runner.execute_model(batch)
            truth[batch.key] += 1
        truth["step"] += count


HALVES: dict[str, type[Any]] = {"engine": Engine, "worker": Worker}


class Options(NamedTuple):
    """What was asked for on the command line."""

    folder: Path
    scale: int
    rounds: int
    halves: list[str]


class Life:
    """One simulated process: it starts ProfileMate, lives, and answers its parent."""

    def __init__(self, half: str, name: str, options: Options) -> None:
        folder = options.folder / f"{half}_{name}"
        os.environ.update(
            PROFILEMATE_DIR=str(folder),
            PROFILEMATE_SESSION_CAP=str(SESSION_CAP_BYTES // options.scale),
            PROFILEMATE_DISK_FLOOR="0",
        )
        clock = time.monotonic_ns
        assert isinstance(clock, Clock)
        self.clock = clock
        from profilemate.probe import install
        from profilemate.probe.process import THIS

        self.install, self.this = install, THIS
        install.begin()
        self.half: Half = HALVES[half](clock)
        self.options = options

    def cpu_ns(self, count: int) -> int:
        """CPU time of some steps."""
        began = time.thread_time_ns()
        self.half.steps(count)
        return time.thread_time_ns() - began

    def day(self) -> dict[str, Any]:
        """Live through it, and look around at the end of every hour."""
        began_ns, hours = self.clock.now_ns, []
        steps = STEPS_AN_HOUR // self.options.scale
        for hour in range(HOURS):
            self.clock.now_ns = max(self.clock.now_ns, began_ns + hour * HOUR_NS)
            took = self.cpu_ns(steps)
            hours.append({**self.look(), "step_ns": took / steps})
        return {"hours": hours}

    def look(self) -> dict[str, int]:
        """Memory of the process, and its files."""
        folder = Path(self.this.folder)
        files = {path.name: path.stat() for path in folder.iterdir()}
        resident = int(Path("/proc/self/statm").read_text().split()[1])
        return {
            "resident_bytes": resident * os.sysconf("SC_PAGE_SIZE"),
            "files": len(files),
            "bytes": sum(found.st_size for found in files.values()),
            "process_json": files["process.json"].st_ino * 10**10 + files["process.json"].st_mtime_ns % 10**10,
            "open_files": len(os.listdir("/proc/self/fd")),
        }

    def memory(self) -> dict[str, Any]:
        """Bytes held by what a short day allocated, at the end of each hour."""
        self.half.steps(WARM_UP_STEPS)
        tracemalloc.start()
        held = []
        for _ in range(HOURS):
            self.half.steps(TRACED_STEPS_AN_HOUR)
            self.clock.now_ns += HOUR_NS - TRACED_STEPS_AN_HOUR * STEP_NS
            gc.collect()
            held.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
        return {"held_bytes": held}

    def end(self) -> dict[str, Any]:
        """Write what waits, and tell the truth."""
        self.this.flush()
        return {
            "truth": dict(self.half.truth),
            "session": self.this.session,
            "process": self.this.folder,
            "share_bytes": self.this.writer.share_bytes,
            "states": sorted({state.state for state in self.install.states.values()}),
            "failures": sum(state.failures for state in self.install.states.values()),
        }


class Child:
    """A forked process with a Life in it, asked by name."""

    def __init__(self, half: str, name: str, options: Options) -> None:
        self.pipe, theirs = Pipe()
        self.pid = os.fork()
        if self.pid == 0:
            self.pipe.close()
            serve(theirs, half, name, options)
        theirs.close()

    def ask(self, question: str, *arguments: Any) -> Any:
        """Have a method of its Life run, and wait for the answer."""
        self.begin(question, *arguments)
        return self.pipe.recv()

    def begin(self, question: str, *arguments: Any) -> None:
        """Have it run."""
        self.pipe.send((question, arguments))

    def end(self) -> Any:
        """Its last words."""
        result = self.ask("end")
        _, status = os.waitpid(self.pid, 0)
        assert status == 0
        return result


def serve(pipe: Connection, half: str, name: str, options: Options) -> None:
    """Answer until the end is asked for; never return. A sibling holds our parent's end of the pipe: no EOF comes."""
    try:
        life, question = Life(half, name, options), ""
        while question != "end":
            question, arguments = pipe.recv()
            pipe.send(getattr(life, question)(*arguments))
        os._exit(0)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        os._exit(1)


def compare(young: Child, old: Child, rounds: int) -> dict[str, list[int]]:
    """CPU time of blocks of steps in the two, in turn."""
    blocks: dict[str, list[int]] = {"young": [], "old": []}
    for number in range(rounds):
        pair = [("young", young), ("old", old)]
        for name, child in pair if number % 2 else reversed(pair):
            blocks[name].append(child.ask("cpu_ns", BLOCK_STEPS))
    return blocks


def run(options: Options) -> dict[str, Any]:
    """The day of every half, at the same time; then young and old in turn, half by half."""
    for half in options.halves:
        HALVES[half].prepare()
    gc.collect()
    gc.freeze()
    time.monotonic_ns = Clock()
    old = {half: Child(half, "old", options) for half in options.halves}
    for child in old.values():
        child.begin("day")
    results = {half: child.pipe.recv() for half, child in old.items()}
    for half in options.halves:
        young = Child(half, "young", options)
        for child in (young, old[half]):
            child.ask("cpu_ns", WARM_UP_STEPS)
        results[half]["blocks"] = compare(young, old[half], options.rounds)
        results[half]["young"], results[half]["old"] = young.end(), old[half].end()
        traced = Child(half, "traced", options)
        results[half]["memory"] = traced.ask("memory")
        results[half]["traced"] = traced.end()
    return results


def parse(argv: Sequence[str] | None = None) -> Options:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--scale", type=int, default=1, help="the N-th part of each hour's steps and of the size cap")
    parser.add_argument("--rounds", type=int, default=40, help=f"blocks of {BLOCK_STEPS} steps of each, in turn")
    parser.add_argument("--halves", nargs="+", choices=list(HALVES), default=list(HALVES))
    found = parser.parse_args(argv)
    return Options(found.folder, found.scale, found.rounds, found.halves)


if __name__ == "__main__":
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    print(json.dumps(run(parse())))
