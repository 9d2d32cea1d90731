"""Putting the clocks of several kernels on one: by their wall clocks, and by cause and effect where requests tell.

Within one boot of one kernel all processes share the monotonic clock, so nothing has to be aligned. Between two, each process's
anchor (wall and monotonic clock read together) gives wall minus monotonic; the wall clocks themselves agree as well as NTP
keeps them, which no row tells. A request that a front end on one host and an engine on another both saw bounds the
difference: it arrived before it was queued, and its last token was made before its end was seen. What these intervals have in
common is the error that is left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median_low

from profilemate.sessions.merge.pairs import Bounds, Pairs
from profilemate.sessions.merge.parts import Part
from profilemate.trackers.requests.events import ENDS


@dataclass(frozen=True)
class Clock:
    """One kernel's monotonic clock. `offset_ns` turns its times into wall time of the reference.

    `moved_ns` is what requests added to that of its own anchors, `error_ns` the interval in which the rest lies (the true time
    of its rows is so much later), None where nothing bounds it. `spread_ns`: how far its wall clock moved against it.
    """

    boot: str
    host: str
    labels: tuple[str, ...]
    offset_ns: int
    is_reference: bool = False
    moved_ns: int = 0
    error_ns: tuple[int, int] | None = None
    requests: int = 0
    spread_ns: int = 0
    disagree_ns: int = 0
    """By how much the requests contradict one another: no single offset fits, so the clocks drifted apart."""


def place_clocks(parts: Sequence[Part], pairs: Pairs) -> dict[str, Clock]:
    """Every clock of the sessions, the reference first: that of the front end with most requests, else of the first session."""
    reference = _reference(parts)
    boots = dict.fromkeys([reference, *(part.boot_of(process) for part in parts for process in part.processes)])
    base = _anchored(parts, reference)
    placed = {}
    for boot in boots:
        own = _anchored(parts, boot)
        placed[boot] = (
            replace(own, is_reference=True, error_ns=(0, 0))
            if boot == reference
            else _corrected(own, base.offset_ns, pairs.bounds.get((reference, boot)))
        )
    return placed


def _reference(parts: Sequence[Part]) -> str:
    ended: dict[str, int] = {}
    for part in parts:
        for process in part.processes:
            boot = part.boot_of(process)
            ended[boot] = ended.get(boot, 0) + sum(1 for _ in part.session.rows(process, ENDS, "time_ns"))
    return max(ended, key=lambda boot: ended[boot])


def _anchored(parts: Sequence[Part], boot: str) -> Clock:
    """By its own anchors: the median of wall minus monotonic, and how far they lie apart."""
    anchors, labels, host = [], [], ""
    for part in parts:
        info = part.session.info
        mine = [process for process in part.processes if part.boot_of(process) == boot]
        if mine:
            labels.append(part.label)
            host = host or next((process.host for process in mine if process.host), info.host)
        if info.boot_id == boot and info.created_monotonic_ns:
            anchors.append(info.created_wall_ns - info.created_monotonic_ns)
        anchors += [process.clock[0] - process.clock[1] for process in mine if process.clock]
    spread = max(anchors) - min(anchors) if anchors else 0
    return Clock(boot, host, tuple(dict.fromkeys(labels)), median_low(anchors) if anchors else 0, spread_ns=spread)


def _corrected(own: Clock, reference_offset_ns: int, bounds: Bounds | None) -> Clock:
    """Moved into the interval that the requests leave, where its anchors lie outside; else as they say."""
    if bounds is None or bounds.least_ns is None or bounds.most_ns is None:
        return own
    here = own.offset_ns - reference_offset_ns
    least, most = bounds.least_ns - here, bounds.most_ns - here
    disagree = max(0, least - most)
    low, high = min(least, most), max(least, most)
    moved = 0 if low <= 0 <= high else (low + high) // 2
    return replace(
        own,
        offset_ns=own.offset_ns + moved,
        moved_ns=moved,
        error_ns=(low - moved, high - moved),
        requests=bounds.requests,
        disagree_ns=disagree,
    )
