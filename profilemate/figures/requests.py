"""Requests for figures: what the request tracker joins, gone through once for all figures of a session.

Ten million requests are as many objects of half a kilobyte each, so only numbers are kept, and the requests that are drawn.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import polars as pl

from profilemate.figures.request_parts import took_ns
from profilemate.figures.source import nothing
from profilemate.trackers.requests import events
from profilemate.trackers.requests.join import lives
from profilemate.trackers.requests.life import Life

if TYPE_CHECKING:
    from profilemate.frames.session import Session

SLOWEST = 25
"""So many of the slowest requests are kept."""
CHUNK_ROWS = 50_000
CANDIDATES = 1_000

MOST_NS = (1 << 63) - 1
LATENCIES = {"ttft_ns": pl.Float64, "tpot_ns": pl.Float64}
PREEMPTIONS = {
    "at_ns": pl.Int64, "request": pl.Int64, "reason": pl.String, "lost_tokens": pl.Int64, "kept_tokens": pl.Int64,
    "recomputed_tokens": pl.Int64, "delay_ns": pl.Float64, "recompute_ns": pl.Float64,
}  # fmt: skip


@dataclass(frozen=True)
class Requests:
    """All requests of a session; times in nanoseconds, differences of them as floats, which damage cannot make overflow.

    `latencies` has a row for each: `ttft_ns`, and `tpot_ns` of those with two output tokens at least, null where it is not
    known. `slowest` are the slowest of the `ended` ones with the time that each took. `preemptions` has a row for each, in
    order of time, with `request` as a number; `counted_preemptions` are those that the requests' own rows count.
    """

    latencies: pl.DataFrame
    ended: int
    slowest: tuple[tuple[int, Life], ...]
    preemptions: pl.DataFrame
    counted_preemptions: int

    @property
    def count(self) -> int:
        """How many there are."""
        return self.latencies.height


class _Rows:
    """Rows that become a frame, of which few are Python's own at a time."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self._schema = schema
        self._pending: list[tuple[Any, ...]] = []
        self._frames = [pl.DataFrame(schema=schema)]

    def add(self, row: tuple[Any, ...]) -> None:
        self._pending.append(row)
        if len(self._pending) >= CHUNK_ROWS:
            self._pack()

    def _pack(self) -> None:
        self._frames.append(pl.DataFrame(self._pending, schema=self._schema, orient="row"))
        self._pending = []

    def frame(self) -> pl.DataFrame:
        self._pack()
        return pl.concat(self._frames)


_known: WeakKeyDictionary[Any, Requests] = WeakKeyDictionary()


def requests_of(session: Session) -> Requests:
    """Every request, as `request_lifecycle.csv` has them. Raises Missing where there is none."""
    if session not in _known:
        _known[session] = _gone_through(session)
    if not _known[session].count:
        raise nothing(session, "no request was recorded", events.IN_ENGINE, events.ENDS, events.ARRIVALS)
    return _known[session]


def _gone_through(session: Session) -> Requests:
    latencies, preemptions = _Rows(LATENCIES), _Rows(PREEMPTIONS)
    slowest: list[tuple[int, str, int, Life]] = []
    ended = counted = 0
    for number, life in enumerate(lives(session)):
        latencies.add((life.ttft_ns, life.tpot_ns if (life.output_tokens or 0) > 1 else None))
        counted += life.preemptions
        for one in life.preempted:
            preemptions.add(
                (max(-MOST_NS, min(MOST_NS, one.time_ns)), number, one.reason, one.lost_tokens, one.kept_tokens,
                 one.recomputed_tokens, one.delay_ns, one.recompute_ns)
            )  # fmt: skip
        took = took_ns(life)
        if took is not None:
            ended += 1
            slowest.append((-took, life.request, number, life))
            if len(slowest) >= CANDIDATES:
                slowest = heapq.nsmallest(SLOWEST, slowest)
    return Requests(
        latencies.frame(),
        ended,
        tuple((-took, life) for took, _, _, life in heapq.nsmallest(SLOWEST, slowest)),
        preemptions.frame().sort("at_ns", maintain_order=True),
        counted,
    )
