"""Requests that a front end of one clock and an engine of another both saw: what happened must have come before what it caused.

A front end's row has vLLM's moments of the engine on the engine's own clock (`queued_ns`, `scheduled_ns`, `last_token_ns`). The
engine's row has the same two first ones to the nanosecond, which tells whose they are even where the request ids were hashed
with different secrets.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from profilemate.session.records import ProcessInfo
from profilemate.sessions.merge.parts import Part
from profilemate.trackers.requests.events import ARRIVALS, ENDS, IN_ENGINE

Key = tuple[int, int, int | None]


class EngineRequest(NamedTuple):
    """A request as an engine knew it: on which clock, under which id, of which process."""

    boot: str
    request: str
    process: ProcessInfo


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


@dataclass
class Pairs:
    """`bounds` by (front end's clock, engine's clock); `ids` of an engine's requests in the words of the front end."""

    bounds: dict[tuple[str, str], Bounds] = field(default_factory=dict)
    ids: dict[tuple[Path, str], str] = field(default_factory=dict)
    """By the engine's process folder and its id, where the two are not the same."""


def find_pairs(parts: Sequence[Part]) -> Pairs:
    """Look at the requests of every front end and every engine once."""
    engines = dict(_engine_requests(parts))
    pairs = Pairs()
    for part in parts:
        for process in part.processes:
            _add_front_end(part, process, engines, pairs)
    return pairs


def _engine_requests(parts: Sequence[Part]) -> Iterator[tuple[Key, EngineRequest]]:
    columns = ("queued_ns", "scheduled_ns", "prompt_tokens", "request")
    for part in parts:
        for process in part.processes:
            for queued_ns, scheduled_ns, prompt_tokens, request in part.session.rows(process, IN_ENGINE, *columns):
                if queued_ns and scheduled_ns:
                    yield (
                        (queued_ns, scheduled_ns, prompt_tokens),
                        EngineRequest(part.boot_of(process), request, process),
                    )


def _add_front_end(part: Part, process: ProcessInfo, engines: dict[Key, EngineRequest], pairs: Pairs) -> None:
    arrivals: dict[str, int | None] = dict(part.session.rows(process, ARRIVALS, "request", "arrival_ns"))
    columns = ("request", "end_ns", "queued_ns", "scheduled_ns", "last_token_ns", "prompt_tokens", "reason")
    for request, end_ns, queued_ns, scheduled_ns, last_ns, prompt_tokens, reason in part.session.rows(
        process, ENDS, *columns
    ):
        seen = engines.get((queued_ns or 0, scheduled_ns or 0, prompt_tokens))
        if seen is None:
            continue
        if seen.request != request:
            pairs.ids[seen.process.folder, seen.request] = request
        arrival_ns = arrivals.get(request)
        pairs.bounds.setdefault((part.boot_of(process), seen.boot), Bounds()).add(
            None if arrival_ns is None else arrival_ns - queued_ns,
            end_ns - last_ns if end_ns and last_ns and reason != "abort" else None,
        )
