"""One look-up of a request, from the moment it is made until the request is admitted, and its tokens by reason."""

from __future__ import annotations

from typing import Any

from profilemate.trackers.prefix_lookups import events
from profilemate.trackers.prefix_lookups.cache import NEW, UNKEPT, UNKNOWN, UNTAKEN, Found, Missed, PrefixCache

SHORT, LAST, FRESH, EVICTED, RESET, NOT_TAKEN, NOT_KEPT, NOT_KNOWN, OFF = range(len(events.MISSED))
"""Places of the reasons in events.MISSED."""


class Lookup:
    """What a look-up found. The request itself is not kept."""

    __slots__ = ("asked", "cache", "hit", "losses", "missed", "off")

    def __init__(self, cache: PrefixCache, asked: int, hit: int, off: str) -> None:
        """`off` says why none was made; empty if one was. Tokens."""
        self.cache = cache
        self.asked = asked
        self.hit = hit
        self.off = off
        self.losses = cache.losses
        self.missed: list[Missed] = []


class Reasons:
    """Missed tokens by reason, in the order of events.MISSED, and when the evicted blocks were evicted."""

    __slots__ = ("every", "evicted_ns", "reach_ns", "tokens")

    def __init__(self, lookup: Lookup, computed: int) -> None:
        """`computed` tokens of the request were found here or brought by a connector."""
        self.tokens = [0] * len(events.MISSED)
        self.evicted_ns: list[int] = []
        self.every = 1
        self.reach_ns = 0
        if lookup.off:
            self.tokens[OFF] = max(0, lookup.asked - computed)
            return
        unit, asked = lookup.cache.unit, lookup.asked
        begin = computed
        for missed in lookup.missed:
            self._count(missed, unit, begin)
            begin = max(begin, missed.end * unit)
        limit = max(computed, (asked - 1) // unit * unit)  # no hit goes beyond
        self.tokens[NOT_KNOWN] += max(0, limit - begin)
        self.tokens[SHORT if asked % unit else LAST] += asked - limit

    def _count(self, missed: Missed, unit: int, begin: int) -> None:
        """Tokens before `begin` were not missed in the end."""
        first, end, every = missed.first, missed.end, missed.every
        at = first * unit
        for index, found in enumerate(missed.found):
            to = min(first + (index + 1) * every, end) * unit
            self._add(found, to - max(at, begin))
            at = to
        self._add(missed.rest, end * unit - max(at, begin))
        if missed.found:
            self.every = max(self.every, every)
        if self.tokens[NOT_KNOWN]:
            self.reach_ns = missed.reach_ns

    def _add(self, found: Found, tokens: int) -> None:
        if tokens <= 0:
            return
        if found is UNKNOWN:
            self.tokens[NOT_KNOWN] += tokens
        elif found == UNTAKEN:
            self.tokens[NOT_TAKEN] += tokens
        elif found == UNKEPT:
            self.tokens[NOT_KEPT] += tokens
        elif found == NEW:
            self.tokens[FRESH] += tokens
        elif found < 0:  # type: ignore[operator]
            self.tokens[RESET] += tokens
        else:
            self.tokens[EVICTED] += tokens
            self.evicted_ns.append(found)  # type: ignore[arg-type]

    def cells(self) -> str:
        """The last columns of events.LOOKUPS."""
        times = sorted(self.evicted_ns)
        ages = f"{times[-1]},{times[len(times) // 2]},{times[0]}" if times else ",,"
        return f"{ages},{self.reach_ns or ''},{self.every}"


def why_off(manager: Any, request: Any) -> str:
    """Why vLLM makes no look-up for a request; empty if it makes one."""
    if not manager.enable_caching:
        return "server"
    sampling = getattr(request, "sampling_params", None)
    wants_logprobs = getattr(sampling, "prompt_logprobs", None) is not None
    skips = getattr(request, "skip_reading_prefix_cache", None)
    if not (wants_logprobs if skips is None else skips):  # vLLM 0.11 has no such attribute
        return ""
    if wants_logprobs:
        return "prompt_logprobs"
    return "pooling" if getattr(request, "pooling_params", None) is not None else "request"
