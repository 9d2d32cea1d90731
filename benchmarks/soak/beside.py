"""Three servers side by side where nothing is broken, one of them with ProfileMate: who gets how far under the same load.

All want the whole machine all the time, so that whoever needs more of it for a step makes fewer steps. The two without
ProfileMate tell how much of a difference is chance.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import engine_steps
import environment
import psutil
import server as servers

from soak import places, twin
from soak.twin import Twin

OURS, BARE, BARE_AGAIN = "with ProfileMate", "without", "without again"
KINDS = (OURS, BARE, BARE_AGAIN)
SETTLING_SECONDS = 10
LOAD_SECONDS = 60
LOAD_SEED = 7


@dataclass(frozen=True)
class Trio:
    """What each of three servers did in the same time."""

    seconds: float
    steps: dict[str, int]
    answered: dict[str, int]
    cpu_ms_per_step: dict[str, float]


def measure(folder: Path, model: Path, number: int, seconds: float = LOAD_SECONDS) -> Trio:
    """Start three servers, in an order that changes with the number, and count for some seconds under load."""
    kinds = KINDS[number % 3 :] + KINDS[: number % 3]
    with contextlib.ExitStack() as stack:
        begun = {kind: stack.enter_context(_starting(kind, model, folder / f"{number}" / kind)) for kind in kinds}
        with ThreadPoolExecutor(len(kinds)) as pool:
            list(pool.map(servers.Server.wait_until_ready, begun.values()))
        twins = {
            kind: stack.enter_context(twin.serving(server, model, _steps(server), LOAD_SEED))
            for kind, server in begun.items()
        }
        time.sleep(SETTLING_SECONDS)
        before, began = {kind: _counts(one) for kind, one in twins.items()}, time.monotonic()
        time.sleep(seconds)
        after, took = {kind: _counts(one) for kind, one in twins.items()}, time.monotonic() - began
        steps = {kind: after[kind][0] - before[kind][0] for kind in KINDS}
        answered = {kind: after[kind][1] - before[kind][1] for kind in KINDS}
        cpu = {kind: 1e3 * (after[kind][2] - before[kind][2]) / max(1, steps[kind]) for kind in KINDS}
    return Trio(round(took, 1), steps, answered, {kind: round(value, 2) for kind, value in cpu.items()})


def measure_all(folder: Path, model: Path, trios: int, tell: Callable[[str], None]) -> list[Trio]:
    """Trios one after another."""
    found = []
    for number in range(trios):
        found.append(measure(folder, model, number))
        tell(
            f"{number + 1} of {trios} trios: engine steps {found[-1].steps}, CPU ms a step {found[-1].cpu_ms_per_step}"
        )
    return found


def _steps(server: servers.Server) -> Path:
    return server.log.with_name("steps")


def _starting(kind: str, model: Path, folder: Path) -> contextlib.AbstractContextManager[servers.Server]:
    paths = (places.SHORT_SLEEPS, engine_steps.STEP_ORACLE)
    if kind == OURS:
        env = environment.profiled(folder / "sessions", *paths)
    else:
        env = environment.vllm(PYTHONPATH=":".join(map(str, paths)))
    port = servers.free_port()
    command = servers.command(model, port, "--enforce-eager")
    return twin.starting(command, port, env | {"STEP_ORACLE": str(folder / "steps")}, folder)


def _counts(one: Twin) -> tuple[int, int, float]:
    """Engine steps, answers, and seconds of CPU time of all its processes, so far."""
    cpu_seconds = 0.0
    for pid in one.server.tree():
        with contextlib.suppress(psutil.NoSuchProcess):
            times = psutil.Process(pid).cpu_times()
            cpu_seconds += times.user + times.system
    return len(engine_steps.finished(one.steps)), one.outcomes()["answered"], cpu_seconds
