"""Whether the sessions had the same load: otherwise what differs may be the clients and not the server."""

from __future__ import annotations

from collections.abc import Sequence

from profilemate.compare.change import DIFFERS, UNSURE, Change

LENGTHS = {"prompt_length": "prompts", "output_length": "answers"}
SAME_IN_FLIGHT = 0.05
LOOKS_OTHER = 0.1


def load_sentences(label: str, changes: Sequence[Change]) -> list[str]:
    """One sentence per kind of difference of one session against the baseline.

    Clients that wait for an answer before they ask again send less to a slower server. They are known by what they keep: as
    many requests in the server as before, though fewer or more come.
    """
    by_name = {change.number.name: change for change in changes if change.number.is_load}
    said = []
    for name, word in LENGTHS.items():
        if by_name[name].verdict == DIFFERS:
            said.append(f"{label} had {_times(by_name[name])} {word}: {_values(by_name[name], 'tokens on average')}")
    rate, in_flight = by_name["arrival_rate"], by_name["in_flight"]
    if rate.verdict == DIFFERS and not _is_closed_loop(rate, in_flight):
        more = "more" if (rate.relative or 0) > 0 else "fewer"
        said.append(f"{label} got {more} requests: {_values(rate, 'requests/s')}")
    return said


def load_doubts(label: str, changes: Sequence[Change]) -> list[str]:
    """What looks like another load, where there are too few requests to tell."""
    words = {**{name: f"tokens of {word}" for name, word in LENGTHS.items()}, "arrival_rate": "requests/s"}
    return [
        f"{label} may have had another load, too few requests to tell: {_values(change, words[change.number.name])}"
        for change in changes
        if change.number.name in words and change.verdict == UNSURE and abs(change.relative or 0) > LOOKS_OTHER
    ]


def _is_closed_loop(rate: Change, in_flight: Change) -> bool:
    kept = in_flight.relative is not None and abs(in_flight.relative) < SAME_IN_FLIGHT
    return kept and abs(rate.relative or 0) > 2 * abs(in_flight.relative or 0)


def _times(change: Change) -> str:
    return "longer" if (change.relative or 0) > 0 else "shorter"


def _values(change: Change, unit: str) -> str:
    return f"{change.after.value:.4g} instead of {change.before.value:.4g} {unit}"
