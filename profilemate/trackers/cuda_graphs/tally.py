"""Counting forward passes and replays per descriptor, exact also where the size cap removed the oldest rows."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import Any

from profilemate.session.records import ProcessInfo
from profilemate.session.session import Session
from profilemate.session.stream import Row
from profilemate.session.totals import TotalsBlock, newest_block
from profilemate.trackers.cuda_graphs import events
from profilemate.trackers.cuda_graphs.graph import DESCRIPTOR_COLUMNS, Descriptor

MAIN = "main"
REMEMBERED_FORWARDS = 256
NAMED_DIFFERENCES = 3
TOTAL_COLUMNS = ("forwards", "replays", "graphs", "unpadded_tokens", "padded_tokens", "host_ns")
Key = tuple[Any, ...]


class Tally:
    """Sums of one descriptor. Token and time sums are over the passes that replayed a graph."""

    __slots__ = ("forwards", "graphs", "host_ns", "padded_tokens", "replays", "unpadded_tokens")

    def __init__(self) -> None:
        """Nothing counted yet."""
        self.forwards = self.replays = self.graphs = 0
        self.unpadded_tokens = self.padded_tokens = self.host_ns = 0

    def add(self, other: Tally) -> None:
        """Take another engine's sums in."""
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


class Counts:
    """Tallies of one process, by descriptor (main) or owner and descriptor (others)."""

    def __init__(self) -> None:
        """Nothing counted yet."""
        self.tallies: dict[Key, Tally] = {}
        self.faults: Counter[str] = Counter()
        self.last_forward = 0
        self.recent: deque[tuple[int, Key, bool]] = deque(maxlen=REMEMBERED_FORWARDS)
        """The last passes: number, descriptor, whether a graph was replayed."""
        self.capped = False

    def tally(self, key: Key) -> Tally:
        """The sums of one key, made at its first use."""
        found = self.tallies.get(key)
        if found is None:
            found = self.tallies[key] = Tally()
        return found

    def add(self, other: Counts) -> None:
        """Take another process's counts in."""
        for key, tally in other.tallies.items():
            self.tally(key).add(tally)
        self.faults.update(other.faults)
        self.capped = self.capped or other.capped


def newest_totals(session: Session, process: ProcessInfo) -> TotalsBlock | None:
    """The last whole block of graph_totals."""
    return newest_block(session, process, events.TOTALS)


def _add_totals(counts: Counts, block: TotalsBlock, key_of: Callable[[str, Key], Key | None]) -> None:
    counts.capped = True
    for row in block.rows:
        key = key_of(row[2], row[3:12])
        if key is None:
            continue
        tally = counts.tally(key)
        for name, value in zip(TOTAL_COLUMNS, row[12:], strict=True):
            setattr(tally, name, getattr(tally, name) + (value or 0))


FORWARD_COLUMNS = ("forward", *DESCRIPTOR_COLUMNS, "unpadded_tokens", "host_ns", "graphs", "fault")


def count_forwards(session: Session, process: ProcessInfo) -> Counts:
    """Serving forward passes of the main model in one worker. The files of passes are opened before totals are read."""
    rows = session.rows(process, events.PASSES, *FORWARD_COLUMNS)
    counts = Counts()
    block = newest_totals(session, process)
    if block:
        counts.last_forward = block.through_forward
        _add_totals(counts, block, lambda owner, key: key if owner == MAIN else None)
    for row in rows:
        if block is None or row[0] > block.through_forward:
            _count_forward(counts, row)
    return counts


def _count_forward(counts: Counts, row: Row) -> None:
    forward, unpadded, host_ns, graphs, fault = row[0], *row[10:]
    key = row[1:10]
    tally = counts.tally(key)
    tally.forwards += 1
    counts.last_forward = forward
    counts.recent.append((forward, key, bool(graphs)))
    if graphs:
        tally.replays += 1
        tally.graphs += graphs
        tally.unpadded_tokens += unpadded or 0
        tally.padded_tokens += key[1] or 0
        tally.host_ns += host_ns or 0
    if fault:
        counts.faults[fault] += 1


OTHER_COLUMNS = ("time_ns", "owner", *DESCRIPTOR_COLUMNS, "host_ns", "graphs")


def count_others(session: Session, process: ProcessInfo, shows: Callable[[str], bool]) -> Counts:
    """Replays of the drafter's, encoder's and micro-batches' graphs in one worker; keys begin with the owner."""
    rows = session.rows(process, events.OTHER_REPLAYS, *OTHER_COLUMNS)
    counts = Counts()
    block = newest_totals(session, process)
    if block:
        _add_totals(counts, block, lambda owner, key: (owner, *key) if owner != MAIN and shows(owner) else None)
    for row in rows:
        if not shows(row[1]) or (block and row[0] <= block.time_ns):
            continue
        tally = counts.tally(row[1:11])
        tally.forwards += 1
        tally.replays += 1
        tally.host_ns += row[11] or 0
        tally.graphs += row[12] or 0
        tally.padded_tokens += row[2 + 1] or 0
    return counts


def compare_ranks(first: Counts, second: Counts) -> str:
    """How two tensor-parallel ranks differ, over the forward passes that both recorded; empty if not.

    Replays are compared by graph; where they agree, passes by descriptor, which has the tokens of those without a graph.
    """
    common = min(first.last_forward, second.last_forward)
    ahead = max(first.last_forward, second.last_forward) - common
    if ahead > REMEMBERED_FORWARDS:
        return f"one recorded {ahead} forward passes more"
    is_capped = first.capped or second.capped
    for noun, count in (("replays", _replays_through), ("passes", _passes_through)):
        mine, theirs = count(first, common), count(second, common)
        if is_capped:
            mine, theirs = _without_tokens(mine), _without_tokens(theirs)
        different = [key for key in mine.keys() | theirs.keys() if mine[key] != theirs[key]]
        if different:
            return _differences(different, mine, theirs, noun)
    return ""


def _replays_through(counts: Counts, forward: int) -> Counter[Key]:
    replays = Counter({key: tally.replays for key, tally in counts.tallies.items()})
    replays.subtract(key for number, key, is_replay in counts.recent if number > forward and is_replay)
    return replays


def _passes_through(counts: Counts, forward: int) -> Counter[Key]:
    passes = Counter({key: tally.forwards for key, tally in counts.tallies.items()})
    passes.subtract(key for number, key, _ in counts.recent if number > forward)
    return passes


def _without_tokens(counts: Counter[Key]) -> Counter[Key]:
    """Passes without a graph as one: the totals of removed rows do not tell their tokens."""
    joined: Counter[Key] = Counter()
    for key, count in counts.items():
        joined[("NONE", *(None for _ in key[1:])) if key[0] == "NONE" else key] += count
    return joined


def _differences(keys: Iterable[Key], mine: Counter[Key], theirs: Counter[Key], noun: str) -> str:
    ordered = sorted(keys, key=lambda key: Descriptor.of(key).order)
    named = [f"{Descriptor.of(key).label}: {mine[key]} and {theirs[key]} {noun}" for key in ordered[:NAMED_DIFFERENCES]]
    more = len(ordered) - len(named)
    return "; ".join(named) + (f"; {more} more" if more > 0 else "")
