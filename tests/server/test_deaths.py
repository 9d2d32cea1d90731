"""Twenty deaths of real `vllm serve`: SIGTERM, SIGINT and SIGKILL at random moments, from the start-up to steady load.

Two servers live at a time, so that one starts while the other works or dies. Moments are drawn anew at every run; the
message of a failure names the seed, and PM_DEATHS_SEED repeats it.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import clients
import engine_steps
import environment
import exported
import pytest
import server as servers
import streams

pytestmark = pytest.mark.server

SEED = int(os.environ.get("PM_DEATHS_SEED") or random.SystemRandom().randrange(1_000_000))
SERVERS_AT_A_TIME = 2
POLL_SECONDS = 0.02
LONGEST_START_SECONDS = 180

EAGER = ("--enforce-eager",)
GRAPHS = (
    "--compilation-config",
    json.dumps(
        {
            "mode": 3,
            "backend": "eager",
            "cudagraph_mode": "FULL_AND_PIECEWISE",
            "cudagraph_capture_sizes": [1, 2, 4, 8, 16, 32],
        }
    ),
)


class Setup(NamedTuple):
    """How a server is made of processes. The stand-in's platform is what lets a CPU server fork, and have graphs."""

    options: tuple[str, ...]
    env: dict[str, str]


STANDIN = {"STANDIN_GRAPHS": "1"}
FORK = {**STANDIN, "VLLM_WORKER_MULTIPROC_METHOD": "fork"}
SETUPS = {
    "spawned": Setup(EAGER, {}),
    "worker in the engine core": Setup(EAGER, {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}),
    "forked": Setup(EAGER, FORK),
    "graphs": Setup(GRAPHS, FORK),
}


class Life:
    """One server from its start to its death, as the moments see it."""

    def __init__(self, folder: Path, model: Path, server: servers.Server, dice: random.Random) -> None:
        self.folder, self.model, self.server, self.dice = folder, model, server, dice

    @property
    def steps(self) -> Path:
        """The oracle's file."""
        return self.folder / "steps"

    def is_over(self) -> bool:
        """Whether the server ended by itself."""
        return self.server.process.poll() is not None

    def wait(self, happened: Callable[[], object]) -> None:
        """Until something happened."""
        deadline = time.monotonic() + LONGEST_START_SECONDS
        while not happened():
            assert not self.is_over() and time.monotonic() < deadline, self.server.log.read_text()[-3000:]
            time.sleep(POLL_SECONDS)

    def pause(self, longest_seconds: float) -> None:
        """A random while."""
        time.sleep(self.dice.uniform(0, longest_seconds))

    def has_process(self, role: str) -> bool:
        """Whether a process of this role has made its folder."""
        return any((self.folder / "sessions").glob(f"session_*/processes/{role}.*"))

    def die(self, death: Death) -> None:
        """Be killed, and wait until nothing is left."""
        if death.signal == "SIGKILL":
            self.server.kill_tree()
        else:
            self.server.stop_or_kill(signal.Signals[death.signal], death.whole_tree)


def while_importing(life: Life, death: Death) -> None:
    """Any time before the engine's processes are there; a session may not have begun."""
    life.pause(6)
    life.die(death)


def as_the_engine_core_begins(life: Life, death: Death) -> None:
    """The engine core has a folder; its worker, the KV cache and the captures are still to come."""
    life.wait(lambda: life.has_process("EngineCore"))
    life.pause(3)
    life.die(death)


def at_the_first_request(life: Life, death: Death) -> None:
    """The server is ready and was just asked for the first time: at or around the first steps."""
    life.server.wait_until_ready()
    with clients.Pressure(life.server, life.model, life.dice.randrange(1000)):
        life.pause(0.5)
        life.die(death)


def under_load(life: Life, death: Death) -> None:
    """After a random number of engine steps, and not in any rhythm with them."""
    life.server.wait_until_ready()
    with clients.Pressure(life.server, life.model, life.dice.randrange(1000)):
        engine_steps.wait_for(life.steps, life.dice.randint(5, 250), life.is_over)
        life.pause(0.05)
        life.die(death)


class Death(NamedTuple):
    """Who dies when of what; `number` with the seed gives the rest of the chance."""

    number: int
    signal: str
    whole_tree: bool
    setup: str
    moment: Callable[[Life, Death], None]

    def __str__(self) -> str:
        """For the message of a failure."""
        whom = "every process" if self.whole_tree or self.signal == "SIGKILL" else "the main process"
        moment = self.moment.__name__.replace("_", " ")
        return f"{self.signal} to {whom} of a server ({self.setup}) {moment}, PM_DEATHS_SEED={SEED}"


def draw_deaths() -> list[Death]:
    """Twenty, with every signal under load with graphs among them; which else meets what is left to chance."""
    dice = random.Random(SEED)
    signals = ["SIGKILL", "SIGTERM", "SIGINT"]
    moments = [under_load] * 10 + [at_the_first_request] * 5 + [as_the_engine_core_begins] * 3 + [while_importing] * 2
    setups = ["graphs"] * 3 + ["spawned", "worker in the engine core", "forked", "graphs"] * 4 + ["spawned"]
    rest = setups[3:]
    dice.shuffle(rest)
    pairs = zip(setups[:3] + rest, moments, strict=True)
    return [
        Death(number, signals[number % 3], dice.random() < 0.5, setup, moment)
        for number, (setup, moment) in enumerate(pairs)
    ]


DEATHS = draw_deaths()


class Remains(NamedTuple):
    """What is left: the session, if one had begun, and the steps that the oracle saw finish."""

    session: Path | None
    finished: list[int]


def live_and_die(death: Death, folder: Path, model: Path) -> Remains:
    """One life; the files are made by the command, as by a user who comes later."""
    setup, port = SETUPS[death.setup], servers.free_port()
    env = environment.profiled(
        folder / "sessions",
        environment.STANDIN,
        engine_steps.STEP_ORACLE,
        STEP_ORACLE=str(folder / "steps"),
        **setup.env,
    )
    command = servers.serve_command(model, port, *setup.options)
    with servers.launched(command, port, env, folder / "log") as server:
        life = Life(folder, model, server, random.Random(SEED * 100 + death.number))
        death.moment(life, death)
    sessions = sorted((folder / "sessions").glob("session_*"))
    assert len(sessions) <= 1
    if sessions:
        streams.export(sessions[0])
    return Remains(sessions[0] if sessions else None, engine_steps.finished(life.steps))


@pytest.fixture(scope="module")
def lives(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[list[Future[Remains]]]:
    """All twenty, two at a time; a test waits for its own."""
    pool = ThreadPoolExecutor(SERVERS_AT_A_TIME)
    yield [pool.submit(live_and_die, death, tmp_path_factory.mktemp("death"), tiny_model) for death in DEATHS]
    pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("number", range(len(DEATHS)))
def test_after_any_death_the_files_are_there_with_every_finished_step(
    number: int, lives: list[Future[Remains]]
) -> None:
    death = DEATHS[number]
    try:
        session, finished = lives[number].result()
    except Exception as error:
        raise AssertionError(str(death)) from error
    if session is None:
        assert death.moment is while_importing and not finished, str(death)
        return
    assert exported.unreadable(session) == [], str(death)
    assert exported.broken_streams(session) == [], str(death)
    assert engine_steps.missing_steps(session, finished) == "", str(death)
    assert exported.differing_counts(session) == [], str(death)
    faults = [fault for fault in exported.metadata(session)["faults"] if exported.TORN_TAIL not in fault]
    assert faults == [], str(death)
    assert len(finished) >= (5 if death.moment is under_load else 0), str(death)
