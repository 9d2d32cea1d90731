"""Output tokens per second of vLLM's real server, with and without ProfileMate.

Three servers stand side by side, one of them with ProfileMate. Short bursts of the same HTTP requests go to one after the
other, in changing order; those that are not asked are stopped meanwhile (SIGSTOP), since an idle worker of vLLM's spins for a
second. So all share whatever the machine does, and a round of bursts is one sample of a ratio.

Then three others are started, and so on: a server is faster or slower than another from its start to its end, by what chance
gave it. One pair said 0.914 (0.893 to 0.979 by its rounds), the next one 1.003, within half an hour (2026-11-29, two cores).
The two bare servers tell how much that is.
"""

from __future__ import annotations

import ctypes
import signal
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from types import MappingProxyType
from typing import Any, NamedTuple

from overhead.own_cost import tracker_figures
from overhead.samples import Benchmark, Figure, Measurement, Target
from overhead.turns import rounds, say


class Size(NamedTuple):
    """How much is run: sets of servers, rounds and seconds of each. A set's first rounds warm it up and are not counted."""

    sets: int
    rounds: int
    seconds: float
    requests: int = 16
    warm_up: int = 2


SIZES = {"full": Size(5, 100, 40), "quick": Size(2, 30, 30), "tiny": Size(1, 2, 60, 4, 1)}
FEWEST_ROUNDS = 6
CONCURRENCY = 8

OURS, BARE, BARE_AGAIN = "with ProfileMate", "bare", "bare again"
VARIANTS = (OURS, BARE, BARE_AGAIN)
HELD_AT_RATIO = 0.90
"""Where CI holds it: the steps of this tiny model are short, and ours runs in two of its processes with cold caches."""

TARGET = Target(0.995, "ratio", HELD_AT_RATIO)

OPTIONS = ("--enforce-eager", "--num-gpu-blocks-override", "1024", "--max-num-batched-tokens", "2048")
"""Room for some hundred requests: cached blocks are evicted all the time once it is full, and nobody is preempted."""


SESSIONS = "sessions"
CPU_TIME = "CPU time of the server's processes per output token"


class Burst(NamedTuple):
    """What one server made of one burst."""

    tokens_per_second: float
    cpu_ms_per_token: float


def process_cpu_seconds(pid: int) -> float:
    """CPU time of a process, of all its threads, to the nanosecond."""
    clock = ctypes.c_int()
    if ctypes.CDLL(None).clock_getcpuclockid(pid, ctypes.byref(clock)):
        return 0.0  # it has ended meanwhile
    return time.clock_gettime(clock.value)


def tree_cpu_seconds(server: Any) -> float:
    """CPU time of a server's processes."""
    return sum(process_cpu_seconds(pid) for pid in server.tree())


@contextmanager
def running(server: Any) -> Iterator[None]:
    """Let a stopped server run for a while."""
    server.send_signal(signal.SIGCONT, whole_tree=True)
    try:
        yield
    finally:
        server.send_signal(signal.SIGSTOP, whole_tree=True)


def send_burst(server: Any, model: Path, requests: int, seed: int) -> Burst:
    """The same requests for the same seed. Raises RuntimeError where one is not answered in full."""
    import load

    with running(server):
        cpu = tree_cpu_seconds(server)
        result = load.run_load(server.url, str(model), requests, CONCURRENCY, seed)
        cpu = tree_cpu_seconds(server) - cpu
    if not result.ok:
        raise RuntimeError(f"the load failed: {result}")
    return Burst(result.output_tokens / result.seconds, 1e3 * cpu / result.output_tokens)


@contextmanager
def three_servers(model: Path, folder: Path, switches: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """One with ProfileMate and two bare ones, started at the same time, ready and stopped."""
    import environment
    import server as servers

    with ExitStack() as stack:
        started = {}
        for variant in VARIANTS:
            mine = folder / variant.replace(" ", "_")
            mine.mkdir(parents=True)
            env = environment.profiled(mine / SESSIONS, **switches) if variant == OURS else environment.vllm()
            port = servers.free_port()
            command = servers.serve_command(model, port, *OPTIONS)
            started[variant] = stack.enter_context(servers.launched(command, port, env, mine / "log"))
        for one in started.values():
            one.wait_until_ready()
        for one in started.values():
            one.send_signal(signal.SIGSTOP, whole_tree=True)
        yield started


def send_bursts(started: dict[str, Any], model: Path, size: Size) -> dict[str, list[Burst]]:
    """Rounds of bursts to one set of servers, in changing order."""
    bursts: dict[str, list[Burst]] = {variant: [] for variant in VARIANTS}
    for number in rounds("end_to_end", size.warm_up + size.rounds, size.seconds, size.warm_up + FEWEST_ROUNDS):
        for variant in VARIANTS[number % 3 :] + VARIANTS[: number % 3]:
            burst = send_burst(started[variant], model, size.requests, seed=number)
            if number >= size.warm_up:
                bursts[variant].append(burst)
    return bursts


def measure_sets(size: Size, folder: Path, switches: Mapping[str, str]) -> list[dict[str, list[Burst]]]:
    """Bursts of each set of servers."""
    import tiny_model

    model = tiny_model.write_tiny_llama(folder / "tiny-llama")
    sets = []
    for number in range(size.sets):
        say(f"end_to_end: three servers start, {number + 1} of {size.sets}")
        with three_servers(model, folder / f"{number}", switches) as started:
            sets.append(send_bursts(started, model, size))
    return sets


def count_steps(session: Path) -> int:
    """What was timed must have been recorded; how many engine steps there were."""
    import streams

    steps = streams.all_rows(session, "engine_steps", "EngineCore")
    passes = streams.all_rows(session, "forward_passes", "Worker")
    if not steps or not passes:
        raise RuntimeError("the profiled server recorded nothing")
    return len(steps)


def ratios(sets: list[dict[str, list[Burst]]], variant: str) -> str:
    """The median ratio to the bare server of each set, as text."""
    found = []
    for bursts in sets:
        pairs = zip(bursts[variant], bursts[BARE], strict=True)
        found.append(median(one.tokens_per_second / bare.tokens_per_second for one, bare in pairs))
    return ", ".join(f"{one:.3f}" for one in found)


def measure(size: str, target: Target = TARGET, switches: Mapping[str, str] = MappingProxyType({})) -> Measurement:
    """Start them, load them by turns, set after set. `switches` are settings of the profiled one."""
    import streams

    chosen = SIZES[size]
    with tempfile.TemporaryDirectory() as name:
        sets = measure_sets(chosen, Path(name), switches)
        sessions = [streams.only_session(path) for path in sorted(Path(name).glob(f"*/*/{SESSIONS}"))]
        steps = sum(map(count_steps, sessions))
        own = tracker_figures(sessions[-1]) if size != "tiny" else []
    rates, cpu = ({variant: samples(sets, variant, name) for variant in VARIANTS} for name in Burst._fields)
    groups = [number for number, bursts in enumerate(sets) for _ in bursts[BARE]]
    again = f"{BARE_AGAIN} (noise)"
    figures = [
        Figure("output tokens per second", "1/s", "ratio", rates[OURS], rates[BARE], target, groups=groups),
        Figure(f"{again}, output tokens per second", "1/s", "ratio", rates[BARE_AGAIN], rates[BARE], groups=groups),
        Figure(CPU_TIME, "ms", "percent", cpu[OURS], cpu[BARE], groups=groups),
        Figure(f"{again}, CPU time", "ms", "percent", cpu[BARE_AGAIN], cpu[BARE], groups=groups),
        *own,
    ]
    about = {
        "server": "vllm serve, 4 layers of random weights on the CPU, eager",
        "burst": f"{chosen.requests} requests over HTTP, {CONCURRENCY} at a time",
        "ratio of tokens per second, set by set": f"{ratios(sets, OURS)}; of the bare ones: {ratios(sets, BARE_AGAIN)}",
        "engine steps recorded": str(steps),
    }
    return Measurement(figures, about)


def samples(sets: list[dict[str, list[Burst]]], variant: str, name: str) -> list[float]:
    """One number of every burst of a variant."""
    return [float(getattr(burst, name)) for bursts in sets for burst in bursts[variant]]


BENCHMARK = Benchmark("end_to_end", "A real server under load over HTTP", measure)
