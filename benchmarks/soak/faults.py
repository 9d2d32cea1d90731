"""What goes wrong while the server lives on: how each thing is broken and mended, and what the session may say of it."""

from __future__ import annotations

import itertools
import os
import resource
import signal
import struct
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import psutil
from drive_on_disk import take_the_rest

from soak import twin as twins
from soak.place import Place
from soak.twin import Twin

BALLAST = "ballast"
PARTS = (twins.FRONT_END, "engine core", "worker")


@dataclass(frozen=True)
class Pair:
    """The server with ProfileMate, the one without, and where the first one's session lies."""

    ours: Twin
    bare: Twin
    place: Place
    session: Path
    clock: Path
    dice: Random = field(default_factory=Random)

    @property
    def both(self) -> tuple[Twin, Twin]:
        """Both servers."""
        return self.ours, self.bare


class Fault(ABC):
    """One thing that can be broken and mended. `reasons`: what the session calls the rows that it lacks then.

    `loses`: rows have to be missing afterwards; else none need be.
    `refuses`: vLLM itself turns requests away meanwhile, and which ones is chance.
    """

    name: str
    reasons: frozenset[str] = frozenset()
    loses = False
    refuses = False

    @abstractmethod
    def start(self, pair: Pair) -> None:
        """Break it, for both servers where it is not ours alone."""

    def hold(self, pair: Pair) -> None:
        """Called several times a second meanwhile: whatever mends itself is broken again."""
        return

    @abstractmethod
    def end(self, pair: Pair) -> None:
        """As before."""


class DiskFull(Fault):
    """The session's disk is full down to the last byte, and stays so when ProfileMate removes its oldest rows."""

    name = "disk filled and freed"
    reasons = frozenset({"ENOSPC"})
    loses = True

    def start(self, pair: Pair) -> None:
        """Take every byte."""
        take_the_rest(pair.place.seen / f"{BALLAST}0")

    def hold(self, pair: Pair) -> None:
        """Take what was given back."""
        number = sum(1 for _ in pair.place.seen.glob(f"{BALLAST}*"))
        take_the_rest(pair.place.seen / f"{BALLAST}{number}")

    def end(self, pair: Pair) -> None:
        """Give them back."""
        for ballast in pair.place.seen.glob(f"{BALLAST}*"):
            ballast.unlink()


class ReadOnly(Fault):
    """No file can be made or removed in the folder of sessions: rows are lost where a new one is due meanwhile."""

    name = "session folder made read-only and writable again"
    reasons = frozenset({"EROFS", "EACCES"})

    def start(self, pair: Pair) -> None:
        """From now on."""
        pair.place.make_read_only()

    def end(self, pair: Pair) -> None:
        """No more."""
        pair.place.make_writable()


class ClockStep(Fault):
    """The time of day of every process is an hour back, or ahead."""

    name = "clock stepped by an hour and back"

    def start(self, pair: Pair) -> None:
        """One way or the other."""
        self._step(pair, pair.dice.choice((-3600.0, 3600.0)))

    def end(self, pair: Pair) -> None:
        """The right time again."""
        self._step(pair, 0.0)

    def _step(self, pair: Pair, seconds: float) -> None:
        with pair.clock.open("r+b") as file:
            file.write(struct.pack("d", seconds))


class Stopped(Fault):
    """One process is stopped and goes on; which one is drawn."""

    name = "SIGSTOP and SIGCONT"

    def start(self, pair: Pair) -> None:
        """One process of each server, the same part."""
        part = pair.dice.choice(PARTS)
        self.pids = [twin.pid(part) for twin in pair.both]
        for pid in self.pids:
            twins.send(pid, signal.SIGSTOP)

    def end(self, pair: Pair) -> None:
        """It goes on."""
        for pid in self.pids:
            twins.send(pid, signal.SIGCONT)


class NoDescriptors(Fault):
    """No process of the servers has a file descriptor left, but for a few connections: rows are lost where a file is due.

    A limit is a bound of descriptors' numbers, so the first free number would leave one server no connection and the other
    one four, by chance. Each front end has numbers for one connection fewer than there are clients.
    """

    name = "file descriptors exhausted"
    reasons = frozenset({"EMFILE"})
    refuses = True

    def start(self, pair: Pair) -> None:
        """Each may have as many as it has."""
        self.limits = {}
        for twin in pair.both:
            for part in PARTS:
                pid = twin.pid(part)
                self.limits[pid] = resource.prlimit(pid, resource.RLIMIT_NOFILE)
                spared = twins.CLIENTS - 1 if part == twins.FRONT_END else 0
                limit = numbers_below(pid, spared, connections(pid, twin.server.port) if spared else set())
                resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, self.limits[pid][1]))

    def end(self, pair: Pair) -> None:
        """As many as before."""
        for pid, limit in self.limits.items():
            resource.prlimit(pid, resource.RLIMIT_NOFILE, limit)


def connections(pid: int, port: int) -> set[int]:
    """Numbers of the descriptors that are connections of clients to this port now."""
    found = psutil.Process(pid).net_connections("tcp")
    return {each.fd for each in found if each.laddr.port == port and each.raddr}


def numbers_below(pid: int, spared: int, passing: set[int]) -> int:
    """The limit under which so many numbers stay usable: those that are free, and those that will be soon."""
    lasting = {int(name) for name in os.listdir(f"/proc/{pid}/fd")} - passing
    usable = (number for number in itertools.count() if number not in lasting)
    return next(itertools.islice(usable, spared, None))


SURVIVED: tuple[type[Fault], ...] = (DiskFull, Stopped, ClockStep, NoDescriptors, ReadOnly)
