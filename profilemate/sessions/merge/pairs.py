"""Requests that a front end of one clock and an engine of another both saw: what happened must have come before what it caused.

A front end's row has vLLM's moments of the engine on the engine's own clock (`queued_ns`, `scheduled_ns`, `last_token_ns`). The
engine's row has the same two first ones to the nanosecond, which tells whose they are even where the request ids were hashed
with different secrets.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from profilemate.session.records import ProcessInfo
from profilemate.sessions.merge.parts import Part
from profilemate.sessions.merge.seen import Renamed, Seen, SeenRequests
from profilemate.trackers.requests.events import ARRIVALS, ENDS, IN_ENGINE


@dataclass
class Bounds:
    """What may be added to the times of a clock so that no request of these is queued before it arrived, or over before its
    last token: nanoseconds, in the clocks' own readings. `requests` of them were seen on both.
    """

    least_ns: int | None = None
    most_ns: int | None = None
    requests: int = 0

    def add(self, least_ns: int | None, most_ns: int | None) -> None:
        """One request's."""
        self.requests += 1
        if least_ns is not None:
            self.least_ns = least_ns if self.least_ns is None else max(self.least_ns, least_ns)
        if most_ns is not None:
            self.most_ns = most_ns if self.most_ns is None else min(self.most_ns, most_ns)


@dataclass(frozen=True)
class Pairs:
    """`bounds` by (front end's clock, engine's clock); `ids` of an engine's requests in the words of the front end."""

    bounds: dict[tuple[str, str], Bounds]
    ids: Renamed


def find_pairs(parts: Sequence[Part]) -> Pairs:
    """Look at the requests of every engine and every front end once."""
    places = [(part, process) for part in parts for process in part.processes]
    seen, bounds = SeenRequests(), dict[tuple[str, str], Bounds]()
    for place, (part, process) in enumerate(places):
        seen.add(_engine_requests(part, process, place))
    boots = [part.boot_of(process) for part, process in places]
    for (part, process), boot in zip(places, boots, strict=True):
        seen.rename(_front_end(part, process, boot, seen, boots, bounds))
    return Pairs(bounds, seen.renamed([process.folder for _, process in places]))


def _engine_requests(part: Part, process: ProcessInfo, place: int) -> Iterator[Seen]:
    columns = ("queued_ns", "scheduled_ns", "prompt_tokens", "request")
    for queued_ns, scheduled_ns, prompt_tokens, request in part.session.rows(process, IN_ENGINE, *columns):
        if queued_ns and scheduled_ns:
            yield Seen((queued_ns, scheduled_ns, prompt_tokens), place, request)


def _front_end(
    part: Part,
    process: ProcessInfo,
    boot: str,
    seen: SeenRequests,
    boots: list[str],
    bounds: dict[tuple[str, str], Bounds],
) -> Iterator[tuple[int, str, str]]:
    """Add what its requests say of the clocks to `bounds`; gives the ids of those that an engine knew by another."""
    for arrival_ns, row in _ended(part, process):
        _, request, end_ns, queued_ns, scheduled_ns, last_ns, prompt_tokens, reason = row
        found = seen.find((queued_ns or 0, scheduled_ns or 0, prompt_tokens))
        if found is None:
            continue
        place, engines_id = found
        bounds.setdefault((boot, boots[place]), Bounds()).add(
            None if arrival_ns is None else arrival_ns - queued_ns,
            end_ns - last_ns if end_ns and last_ns and reason != "abort" else None,
        )
        if engines_id != request:
            yield place, engines_id, request


def _ended(part: Part, process: ProcessInfo) -> Iterator[tuple[int | None, tuple[Any, ...]]]:
    """When each request that ended had arrived, and the row of its end; both streams are in order of their rows' times."""
    columns = ("time_ns", "request", "end_ns", "queued_ns", "scheduled_ns", "last_token_ns", "prompt_tokens", "reason")
    arrived = part.session.rows(process, ARRIVALS, "time_ns", "request", "arrival_ns")
    ended = part.session.rows(process, ENDS, *columns)
    open_requests: dict[str, int | None] = {}
    for row in heapq.merge(arrived, ended, key=itemgetter(0)):
        if len(row) == len(columns):
            yield open_requests.pop(row[1], None), row
        else:
            open_requests[row[1]] = row[2]
