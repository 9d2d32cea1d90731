"""Three servers side by side where nothing is broken, one of them with ProfileMate: who gets how far under the same load.

All want the whole machine all the time, so that whoever needs more of it for a step makes fewer steps, and so does whoever
waits longer for a processor. The two without ProfileMate tell how much of a difference is chance.
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
    waited_ms_per_step: dict[str, float]
    """The main threads of its processes together, ready to run and without a processor."""


@dataclass(frozen=True)
class Counts:
    """Of one server so far."""

    steps: int
    answered: int
    cpu_seconds: float
    waited_seconds: float


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
    gone = {kind: _between(before[kind], after[kind]) for kind in KINDS}
    return Trio(
        round(took, 1),
        {kind: one.steps for kind, one in gone.items()},
        {kind: one.answered for kind, one in gone.items()},
        {kind: round(1e3 * one.cpu_seconds / max(1, one.steps), 2) for kind, one in gone.items()},
        {kind: round(1e3 * one.waited_seconds / max(1, one.steps), 2) for kind, one in gone.items()},
    )


def _between(before: Counts, after: Counts) -> Counts:
    return Counts(
        after.steps - before.steps,
        after.answered - before.answered,
        after.cpu_seconds - before.cpu_seconds,
        after.waited_seconds - before.waited_seconds,
    )


def measure_all(folder: Path, model: Path, trios: int, tell: Callable[[str], None]) -> list[Trio]:
    """Trios one after another."""
    found = []
    for number in range(trios):
        found.append(measure(folder, model, number))
        tell(
            f"{number + 1} of {trios} trios: engine steps {found[-1].steps}, CPU ms a step {found[-1].cpu_ms_per_step}, "
            f"waited for a processor {found[-1].waited_ms_per_step}"
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


def _counts(one: Twin) -> Counts:
    cpu_seconds = waited_seconds = 0.0
    for pid in one.server.tree():
        with contextlib.suppress(psutil.NoSuchProcess, OSError):
            times = psutil.Process(pid).cpu_times()
            cpu_seconds += times.user + times.system
            waited_seconds += int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    return Counts(len(engine_steps.finished(one.steps)), one.outcomes()["answered"], cpu_seconds, waited_seconds)
