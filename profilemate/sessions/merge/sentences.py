"""What a merged session says about its clocks and its engines."""

from __future__ import annotations

from collections.abc import Iterable

from profilemate.sessions.merge.clocks import Clock

NOTABLE_SPREAD_NS = 1_000_000


def clock_notes(clocks: Iterable[Clock]) -> list[str]:
    """One sentence for each clock but the reference, and one for each wall clock that moved."""
    every = list(clocks)
    reference = next(clock for clock in every if clock.is_reference)
    if len(every) == 1:
        notes = [f"all processes ran under one kernel ({_name(reference)}) and share its clock: no error"]
    else:
        notes = [_placed(clock, reference) for clock in every if not clock.is_reference]
    moved = [clock for clock in every if clock.spread_ns > NOTABLE_SPREAD_NS]
    return notes + [
        f"the wall clock of {_name(clock)} moved by {milliseconds(clock.spread_ns)} against its monotonic clock meanwhile"
        for clock in moved
    ]


def _placed(clock: Clock, reference: Clock) -> str:
    pair = f"{_name(clock)} against {_name(reference)}"
    if clock.error_ns is None:
        return (
            f"{pair}: put together by their wall clocks; no request was seen on both, so that nothing here bounds the error, "
            "which is that of the hosts' time synchronisation"
        )
    seen = f"{clock.requests:,} requests seen on both"
    if clock.disagree_ns:
        return (
            f"{pair}: moved by {milliseconds(clock.moved_ns, True)}; no single offset fits the {seen}, so that the clocks "
            f"drifted apart by {milliseconds(clock.disagree_ns)} at least"
        )
    low, high = (milliseconds(bound, True) for bound in clock.error_ns)
    left = f"{seen} leave an error between {low} and {high}"
    if clock.moved_ns:
        moved = milliseconds(clock.moved_ns, True)
        return f"{pair}: their wall clocks contradict what both saw, so that it was moved by {moved}; {left}"
    return f"{pair}: put together by their wall clocks; {left}"


def _name(clock: Clock) -> str:
    return f"{clock.host or 'an unknown host'} ({', '.join(clock.labels)})"


def milliseconds(ns: int, signed: bool = False) -> str:
    """Such as `+1.204 ms`."""
    return f"{ns / 1e6:{'+' if signed else ''},.3f} ms"
