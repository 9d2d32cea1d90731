"""Output tokens per second of vLLM's real server, with and without ProfileMate.

Two servers stand side by side for the whole run. Short bursts of the same HTTP requests go to one and then to the other, in
changing order; the one that is not asked is stopped meanwhile (SIGSTOP), since an idle worker of vLLM's spins for a second. So
both share whatever the machine does, and a pair of bursts is one sample of the ratio.
"""

from __future__ import annotations

import ctypes
import signal
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from overhead.own_cost import tracker_figures
from overhead.samples import Benchmark, Figure, Measurement, Target
from overhead.turns import rounds, say, turn_about


class Size(NamedTuple):
    """How much is run. The first rounds warm both servers up and are not counted."""

    rounds: int
    seconds: float
    requests: int = 16
    warm_up: int = 2


SIZES = {"full": Size(240, 110), "quick": Size(50, 60), "tiny": Size(2, 60, 4, 1)}
CONCURRENCY = 8
KNOWN_MISS_RATIO = 0.90
"""Where CI holds it: the steps of this tiny model are short, and ours runs in two of its processes with cold caches."""

TARGET = Target(0.995, "ratio", KNOWN_MISS_RATIO)

OPTIONS = ("--enforce-eager", "--num-gpu-blocks-override", "1024", "--max-num-batched-tokens", "2048")
"""Room for some hundred requests: cached blocks are evicted all the time once it is full, and nobody is preempted."""


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
def two_servers(model: Path, folder: Path, switches: Mapping[str, str]) -> Iterator[dict[bool, Any]]:
    """A bare server and a profiled one, started at the same time, ready and stopped; by whether ProfileMate is on."""
    import environment
    import server as servers

    envs = {
        False: environment.vllm(),
        True: environment.profiled(folder / "sessions", **switches),
    }
    with ExitStack() as stack:
        pair = {}
        for on, env in envs.items():
            port = servers.free_port()
            command = servers.serve_command(model, port, *OPTIONS)
            log = folder / f"{'profiled' if on else 'bare'}.log"
            pair[on] = stack.enter_context(servers.launched(command, port, env, log))
        for one in pair.values():
            one.wait_until_ready()
        for one in pair.values():
            one.send_signal(signal.SIGSTOP, whole_tree=True)
        yield pair


def send_bursts(pair: dict[bool, Any], model: Path, size: Size) -> dict[bool, list[Burst]]:
    """Pairs of bursts, in changing order."""
    bursts: dict[bool, list[Burst]] = {False: [], True: []}
    for number in rounds("end_to_end", size.warm_up + size.rounds, size.seconds):
        for on in turn_about(number):
            burst = send_burst(pair[on], model, size.requests, seed=number)
            if number >= size.warm_up:
                bursts[on].append(burst)
    return bursts


def check_session(folder: Path) -> str:
    """What was timed must have been recorded; returns how many steps there were."""
    import streams

    session = streams.only_session(folder / "sessions")
    steps = streams.all_rows(session, "engine_steps", "EngineCore")
    passes = streams.all_rows(session, "forward_passes", "Worker")
    if not steps or not passes:
        raise RuntimeError("the profiled server recorded nothing")
    return f"{len(steps)}"


def measure(size: str, target: Target = TARGET, switches: Mapping[str, str] = MappingProxyType({})) -> Measurement:
    """Start both, load both by turns. `switches` are settings of the profiled one."""
    import streams
    import tiny_model

    chosen = SIZES[size]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = tiny_model.write_tiny_llama(folder / "tiny-llama")
        say("end_to_end: two servers start")
        with two_servers(model, folder, switches) as pair:
            bursts = send_bursts(pair, model, chosen)
        steps = check_session(folder)
        own = tracker_figures(streams.only_session(folder / "sessions")) if size != "tiny" else []
    on, off = bursts[True], bursts[False]
    rates = [burst.tokens_per_second for burst in on], [burst.tokens_per_second for burst in off]
    cpu = [burst.cpu_ms_per_token for burst in on], [burst.cpu_ms_per_token for burst in off]
    figures = [
        Figure("output tokens per second", "1/s", "ratio", *rates, target),
        Figure("CPU time of the server's processes per output token", "ms", "percent", *cpu),
        *own,
    ]
    about = {
        "server": "vllm serve, 4 layers of random weights on the CPU, eager",
        "burst": f"{chosen.requests} requests over HTTP, {CONCURRENCY} at a time",
        "engine steps recorded": steps,
    }
    return Measurement(figures, about)


BENCHMARK = Benchmark("end_to_end", "A real server under load over HTTP", measure)
