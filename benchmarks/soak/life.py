"""One life of two servers that get the same load and the same faults, one of them with ProfileMate."""

from __future__ import annotations

import contextlib
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from random import Random

import engine_steps
import environment
import server as servers

from soak import accounts, places, twin
from soak.faults import Fault, Pair
from soak.place import Place, unreadable, unreadable_elsewhere
from soak.tally import Episode, LifeEnd
from soak.twin import Twin

CAP_BYTES = 1_000_000
"""Of a session; so small that every session is driven to it, and that files are begun and removed every few seconds."""

ON_A_BUSY_MACHINE = frozenset({"slow"})
"""Two servers and their clients on two cores: a write may wait for the processor as for a slow disk, and is told as slow."""

STALL_FAILURES = frozenset({"TimeoutError"})
"""How a request fails while vLLM itself says that nothing runs."""

TOLD_SECONDS = 150
"""A pause of writing is a minute at most; then the session says what it lacks."""

HOLD_SECONDS = 0.25
NAMED_IN = "the session's gaps and notes"

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Pace:
    """How long something stays broken, and how long the servers work after it."""

    broken_seconds: float = 9.0
    after_seconds: float = 5.0


@contextlib.contextmanager
def begun(place: Place, model: Path, folder: Path, dice: Random, cap_bytes: int) -> Iterator[Pair]:
    """Both servers, ready and under load. `cap_bytes` is the setting, of which memory-backed folders get a quarter."""
    clock = folder / "clock"
    clock.write_bytes(bytes(8))
    known = place.names()
    paths = (places.STEPPED_CLOCK, places.SHORT_SLEEPS, engine_steps.STEP_ORACLE)
    ours = environment.profiled(
        place.sessions, *paths, PROFILEMATE_SESSION_CAP=str(cap_bytes), PROFILEMATE_DISK_FLOOR="0"
    )
    bare = environment.vllm(PYTHONPATH=":".join(map(str, paths)))
    with contextlib.ExitStack() as stack:
        started = []
        for name, env, prefix in (("ours", ours, place.prefix), ("bare", bare, ())):
            port, steps = servers.free_port(), folder / f"{name}.steps"
            env |= {"STEP_ORACLE": str(steps), "STEPPED_CLOCK": str(clock)}
            command = [*prefix, *servers.command(model, port, "--enforce-eager")]
            started.append((stack.enter_context(twin.starting(command, port, env, folder / name)), steps))
        first, second = (stack.enter_context(twin.serving(server, model, steps)) for server, steps in started)
        yield Pair(first, second, place, place.newest(known), clock, dice)


def counted(pair: Pair) -> tuple[Counter[str], Counter[str]]:
    """Requests of both so far, by how they ended."""
    return pair.ours.outcomes(), pair.bare.outcomes()


def episode(pair: Pair, name: str, before: tuple[Counter[str], Counter[str]], **more: object) -> Episode:
    """What became of requests since then."""
    ours, bare = (now - then for now, then in zip(counted(pair), before, strict=True))
    answered, answered_bare = ours.pop("answered", 0), bare.pop("answered", 0)
    return Episode(name, answered, answered_bare, dict(ours), dict(bare), **more)  # type: ignore[arg-type]


def suffer(pair: Pair, fault: Fault, pace: Pace, scratch: Path, before_it: frozenset[str] = frozenset()) -> Episode:
    """Break one thing, mend it, and see that all is as it would be without us.

    `before_it` are the reasons for which earlier faults cost rows: a process that paused then may tell it only now.
    """
    before, lost_before = counted(pair), accounts.lost_by_reason(pair.session)
    stalls_before, stalls_bare_before = pair.ours.stalls(), pair.bare.stalls()
    troubles: list[str] = []
    fault.start(pair)
    try:
        deadline = time.monotonic() + pace.broken_seconds
        while time.monotonic() < deadline:
            time.sleep(HOLD_SECONDS)
            fault.hold(pair)
        shutil.rmtree(scratch, ignore_errors=True)
        troubles += [f"while it was so: {what}" for what in unreadable_elsewhere(pair.place, pair.session, scratch)]
    finally:
        fault.end(pair)
    finished = engine_steps.finished(pair.ours.steps)
    probes = pair.ours.probe(), pair.bare.probe()
    excused = STALL_FAILURES if pair.ours.stalls() > stalls_before else frozenset()
    if twin.is_worse(*probes) and probes[0] not in excused:
        troubles.append(f"afterwards a request gets {probes[0]}, without us {probes[1]}")

    told = twin.wait_for(lambda: writes_again(pair, finished), TOLD_SECONDS, pause_seconds=1)
    time.sleep(pace.after_seconds)
    lost = new_losses(pair, lost_before)
    if not told:
        troubles.append("rows are missing and not named, or recording did not go on")
    late = {reason: lost.pop(reason) for reason in before_it - fault.reasons if reason in lost}
    if fault.loses and not fault.reasons & set(lost):
        troubles.append("no row is missing for it")
    unexpected = set(lost) - fault.reasons - ON_A_BUSY_MACHINE
    if unexpected:
        troubles.append(f"rows are missing for {sorted(unexpected)}")
    troubles += what_is_told(pair)
    done = episode(
        pair, fault.name, before, lost=dict(lost), late=late, named_in=NAMED_IN if lost else "",
        stalls=pair.ours.stalls() - stalls_before, stalls_bare=pair.bare.stalls() - stalls_bare_before,
    )  # fmt: skip
    more = set(done.failures) - set(done.failures_bare) - excused
    if more and not fault.refuses:
        troubles.append(f"requests failed by {sorted(more)}, and none so without us")
    if any(each.server.process.poll() is not None for each in pair.both):
        troubles.append("a server ended")
    return Episode(**{**done.__dict__, "troubles": tuple(troubles)})


def writes_again(pair: Pair, finished: list[int]) -> bool:
    """Whether the steps that had finished by then, and their passes, are there or named as missing.

    After several faults a pause of writing lasts up to a minute; who dies in it cannot tell how many rows it lacks.
    """
    return accounts.has_caught_up(pair.session, len(finished), sum(1 for tokens in finished if tokens))


def what_is_told(pair: Pair) -> list[str]:
    """Export the session; what is wrong with its files, or is missing and not named in them."""
    before = accounts.named_missing(pair.session)
    return unreadable(pair.place, pair.session) or accounts.unnamed(pair.session, before)


def new_losses(pair: Pair, before: Counter[str]) -> Counter[str]:
    """Rows that the session names as missing since then."""
    return accounts.lost_by_reason(pair.session) - before


def reach_the_cap(pair: Pair) -> Episode:
    """Wait until the oldest rows of the session have had to go."""
    before, troubles = counted(pair), []

    def is_there() -> bool:
        return any(reason == accounts.SIZE_CAP for _, reason in accounts.named_missing(pair.session))

    if not twin.wait_for(is_there, environment.HANGS_SECONDS):
        troubles.append("the cap was not reached")
    troubles += what_is_told(pair)
    removed = sum(rows for (_, why), rows in accounts.named_missing(pair.session).items() if why == accounts.SIZE_CAP)
    return episode(
        pair, "a session driven to its size cap", before, lost={accounts.SIZE_CAP: removed},
        named_in=NAMED_IN, troubles=tuple(troubles),
    )  # fmt: skip


def killed(pair: Pair, part: str) -> tuple[Episode, LifeEnd]:
    """SIGKILL to a part of both servers; they end by themselves, or all of them are killed."""
    before = counted(pair)
    if part == "every process":
        for each in pair.both:
            each.server.kill_tree()
    else:
        for pid in [each.pid(part) for each in pair.both]:
            twin.send(pid, signal.SIGKILL)
    codes = [each.wait_until_gone() for each in pair.both]
    for each in pair.both:
        each.load.stop()
        each.server.kill_tree()
    troubles = what_is_told(pair)
    troubles += accounts.odd_times(pair.session)
    if codes[0] != codes[1]:
        troubles.append(f"exit code {codes[0]}, without us {codes[1]}")
    done = episode(pair, f"{part} killed", before, troubles=tuple(troubles))
    return done, LifeEnd(f"{part} killed", codes[0], codes[1], CAP_BYTES)


def removed(pair: Pair, pace: Pace) -> tuple[Episode, LifeEnd]:
    """The session's folder goes while the server works; then SIGTERM to both."""
    before, steps = counted(pair), len(engine_steps.finished(pair.ours.steps))
    others = pair.place.names() - {pair.session.name}
    troubles = []
    shutil.rmtree(pair.session)
    time.sleep(pace.broken_seconds)
    probes = pair.ours.probe(), pair.bare.probe()
    if twin.is_worse(*probes):
        troubles.append(f"afterwards a request gets {probes[0]}, without us {probes[1]}")
    lost = len(engine_steps.finished(pair.ours.steps))
    if lost <= steps:
        troubles.append("no step was made without the folder")
    with ThreadPoolExecutor(2) as pool:
        codes = list(pool.map(Twin.stop, pair.both))
    if "rows are being dropped" not in pair.ours.log():
        troubles.append("no line of the log says that rows are being dropped")
    asked = pair.place.profilemate("export", str(pair.place.sessions / pair.session.name))
    if asked.returncode != 2 or "Traceback" in asked.stderr:
        troubles.append(f"export of what is gone ended with {asked.returncode}: {asked.stderr[-300:]}")
    if pair.place.names() != others or pair.session.exists():
        troubles.append("other sessions are there than those that nobody removed")
    if codes[0] != codes[1]:
        troubles.append(f"exit code {codes[0]}, without us {codes[1]}")
    done = episode(
        pair, "session folder removed, then SIGTERM", before, lost={"removed": lost},
        named_in="a line of the server's log", troubles=tuple(troubles),
    )  # fmt: skip
    return done, LifeEnd("session folder removed", codes[0], codes[1], CAP_BYTES, steps=lost)
