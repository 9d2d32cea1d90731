"""The lives of a soak: which servers live where, what they suffer, in which order, and how they end."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random

from small_disk import small_disk

from soak import accounts, crowd, life, place, twin
from soak.faults import SURVIVED, Fault, Pair
from soak.life import CAP_BYTES, Pace, Tell
from soak.tally import Episode, LifeEnd

DISK = "size=48m"
MEMORY_SHARE = 4
"""The small disk is memory, where caps are a quarter of the settings."""

KILLED_PARTS = ("worker", "engine core", "every process")


def _stalls(episode: Episode) -> str:
    if not (episode.stalls or episode.stalls_bare):
        return ""
    return f"; vLLM itself stood still {episode.stalls} times, {episode.stalls_bare} without us"


@dataclass
class Record:
    """What came of a soak so far."""

    tell: Tell
    episodes: list[Episode] = field(default_factory=list)
    ends: list[LifeEnd] = field(default_factory=list)

    def add(self, episode: Episode) -> None:
        """Take an episode in, and say how it went."""
        self.episodes.append(episode)
        failed, failed_bare = sum(episode.failures.values()), sum(episode.failures_bare.values())
        lost = ", ".join(f"{rows} rows {reason}" for reason, rows in episode.lost.items())
        self.tell(
            f"{episode.fault}: {episode.answered} answered, {failed} failed, {failed_bare} without us"
            + (f", {lost}" if lost else "")
            + _stalls(episode)
            + "".join(f"\n    NOT AS IT SHOULD BE: {trouble}" for trouble in episode.troubles)
        )

    def add_rows(self, place: int, reason: str, rows: int) -> None:
        """Rows that an episode cost, and that the session named only after it."""
        before = self.episodes[place]
        lost = {**before.lost, reason: before.lost.get(reason, 0) + rows}
        self.episodes[place] = replace(before, lost=lost, named_in=life.NAMED_IN)
        self.tell(f"{before.fault}, before: {rows} rows {reason}, told now")

    def end(self, pair: Pair, end: LifeEnd) -> None:
        """Take the account of a session in."""
        told = accounts.settle(end, pair.session, pair.ours.steps)
        self.ends.append(told)
        self.tell(
            f"session closed: {told.steps} steps, {told.step_rows} rows, {told.step_rows_named_missing} named missing"
            + "".join(f"\n    NOT AS IT SHOULD BE: {trouble}" for trouble in told.troubles)
        )


@dataclass(frozen=True)
class Surroundings:
    """What all lives share. `faults` are those that each life suffers, in an order that is drawn."""

    model: Path
    folder: Path
    pace: Pace
    dice: Random
    faults: tuple[type[Fault], ...] = SURVIVED
    crowd: int = crowd.SHORT_SESSIONS


def suffer_until(pair: Pair, around: Surroundings, record: Record, is_time_up: Callable[[], bool]) -> None:
    """The cap, then rounds of every fault, one at least."""
    record.add(life.reach_the_cap(pair))
    blamed: dict[str, int] = {}
    while True:
        for fault in around.dice.sample(around.faults, len(around.faults)):
            episode = life.suffer(pair, fault(), around.pace, around.folder / "elsewhere", frozenset(blamed))
            for reason, rows in episode.late.items():
                record.add_rows(blamed[reason], reason, rows)
            record.add(episode)
            blamed |= dict.fromkeys(fault.reasons, len(record.episodes) - 1)
        if is_time_up():
            return


def on_a_small_disk(part: str, around: Surroundings, record: Record, seconds: float) -> None:
    """A server whose sessions lie on a small disk; in the end one of its parts is killed."""
    began = time.monotonic()
    around.folder.mkdir(parents=True)
    with small_disk(around.folder / "disk", DISK) as disk:
        where = place.on(disk)
        with life.begun(where, around.model, around.folder, around.dice, MEMORY_SHARE * CAP_BYTES) as pair:
            suffer_until(pair, around, record, lambda: time.monotonic() - began > seconds)
            episode, end = life.killed(pair, part)
        record.add(episode)
        record.end(pair, end)


def in_a_crowd(around: Surroundings, record: Record) -> None:
    """A server that begins among thousands of short sessions, and whose own session is removed in the end."""
    around.folder.mkdir(parents=True)
    where = place.Place((), around.folder, around.folder)
    record.tell(f"making {around.crowd} short sessions")
    crowd.make(around.folder, around.folder / "pretended", around.crowd)
    with life.begun(where, around.model, around.folder, around.dice, CAP_BYTES) as pair:
        before = life.counted(pair)
        time.sleep(around.pace.broken_seconds)
        troubles = [*crowd.troubles(where, pair.session, around.crowd), *place.unreadable(where, pair.session)]
        probes = pair.ours.probe(), pair.bare.probe()
        if twin.is_worse(*probes):
            troubles.append(f"a request gets {probes[0]}, without us {probes[1]}")
        name = f"{around.crowd:,} short sessions in one folder"
        record.add(life.episode(pair, name, before, troubles=tuple(troubles)))
        episode, end = life.removed(pair, around.pace)
    record.add(episode)
    record.ends.append(end)
    record.tell("server stopped")


def live_all(around: Surroundings, record: Record, is_time_up: Callable[[], bool], seconds_of_a_life: float) -> None:
    """Every kind of life once at least, and again until the time is up."""
    number = 0

    def next_life() -> Surroundings:
        nonlocal number
        number += 1
        record.tell(f"life {number} begins")
        return replace(around, folder=around.folder / f"life{number}")

    while True:
        for part in around.dice.sample(KILLED_PARTS, len(KILLED_PARTS)):
            on_a_small_disk(part, next_life(), record, seconds_of_a_life)
            if number > len(KILLED_PARTS) and is_time_up():
                return
        if number == len(KILLED_PARTS):
            in_a_crowd(next_life(), record)
        if is_time_up():
            return
