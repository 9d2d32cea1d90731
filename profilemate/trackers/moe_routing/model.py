"""One loaded model: its passes and tokens, and when its counts are read and written."""

from __future__ import annotations

from time import monotonic_ns, sleep
from typing import Any, NamedTuple

from profilemate.probe.pace import pause_ns
from profilemate.probe.process import THIS
from profilemate.trackers.moe_routing import events
from profilemate.trackers.moe_routing.counters import Counters
from profilemate.trackers.moe_routing.layers import MoeLayer
from profilemate.trackers.moe_routing.reading import Copies

LAYERS = THIS.writer.stream(events.LAYERS, detail=False)
COUNTS = THIS.writer.stream(events.COUNTS)
PAIRS = THIS.writer.stream(events.PAIRS)
STREAMS = (LAYERS, COUNTS, PAIRS)

MOST_PAIRS_AT_ONCE = 16_384
"""Numbers of the tables of pairs that are written at one time, by one engine step; the layers take turns."""

LAST_WAIT_NS = 1_000_000_000
LAST_SLEEP_SECONDS = 0.001


COUNTS_TABLE = 0
FIRST_PAIRS_TABLE = 1


def tables_of(counters: Counters) -> list[Any]:
    """The table of counts, then the tables of pairs of the layers."""
    return [counters.table, *(counters.pairs.table if counters.pairs else ())]


class Moment(NamedTuple):
    """When a copy was asked for, and what had run until then."""

    time_ns: int
    passes: int
    tokens: int


class MoeModel:
    """The state of one model. `counters` is None where no layer of it can be counted."""

    def __init__(self, number: int, layers: list[MoeLayer], counters: Counters | None) -> None:
        """Nothing has run yet."""
        self.number = number
        self.layers = layers
        self.counters = counters
        self.passes = self.tokens = 0
        self._next_ns = 0
        self._moment = Moment(0, 0, 0)
        self._num_pairs = len(counters.layers) if counters and counters.pairs else 0
        self._copies = Copies(tables_of(counters)) if counters else None
        self._turn = 0

    def describe(self, now_ns: int, pairs: str) -> None:
        """Queue the rows of the layers; `pairs` is what they say of pairs."""
        for layer in self.layers:
            told = layer.layer_idx if layer.key else None
            LAYERS.add((now_ns, self.number, told, layer.router, layer.num_experts, layer.top_k, layer.unseen, pairs))

    def begin(self, num_tokens: int) -> None:
        """A serving pass begins."""
        self.passes += 1
        self.tokens += num_tokens
        if self.counters is not None:
            self.counters.begin(num_tokens)

    def end(self, now_ns: int) -> bool:
        """The pass was launched. True where rows wait to be written."""
        if self.counters is not None:
            self.counters.end()
        return self.look(now_ns)

    def look(self, now_ns: int) -> bool:
        """Queue the counts that have come in; ask for the next ones if it is time."""
        if self._copies is not None and self._copies.is_under_way:
            return self._collect()
        if now_ns < self._next_ns or self._moment.tokens == self.tokens or not self.layers:
            return False
        self._ask(now_ns, self._next_pairs())
        return self._collect()

    def last_look(self) -> None:
        """At an exit that Python sees: everything once more. A device is given a second to answer."""
        until = monotonic_ns() + LAST_WAIT_NS
        if self._copies is not None and self._copies.is_under_way:
            self._wait_for_copies(until)
        if self.layers and (self._moment.tokens != self.tokens or self._num_pairs):
            self._ask(monotonic_ns(), list(range(self._num_pairs)))
            self._wait_for_copies(until)

    def _wait_for_copies(self, until_ns: int) -> None:
        while not self._collect() and monotonic_ns() < until_ns:
            sleep(LAST_SLEEP_SECONDS)

    def _ask(self, now_ns: int, pairs: list[int]) -> None:
        self._moment = Moment(now_ns, self.passes, self.tokens)
        self._next_ns = now_ns + pause_ns(now_ns - THIS.began_ns)
        if self._copies is not None:
            self._copies.start([COUNTS_TABLE, *(FIRST_PAIRS_TABLE + number for number in pairs)])

    def _next_pairs(self) -> list[int]:
        """Layers whose pairs are read this time: as many as can be written at once, in turn."""
        if self.counters is None or self.counters.pairs is None:
            return []
        many = max(1, MOST_PAIRS_AT_ONCE // self.counters.pairs.width**2)
        first, self._turn = self._turn, self._turn + many
        return sorted({(first + n) % self._num_pairs for n in range(many)})

    def _collect(self) -> bool:
        """Queue what was asked for, if it is there."""
        if self._copies is None:
            self._queue_uncounted()
            return True
        tables = self._copies.take()
        for number, table in tables.items():
            if number == COUNTS_TABLE:
                self._queue_counts(table)
            else:
                self._queue_pairs(number - FIRST_PAIRS_TABLE, table)
        return bool(tables)

    def _queue_uncounted(self) -> None:
        """How much ran that was not seen."""
        now, passes, tokens = self._moment
        for layer in self.layers:
            if layer.key:
                COUNTS.add((now, self.number, layer.layer_idx, passes, tokens, 0, ""))

    def _counted_layers(self) -> list[MoeLayer]:
        return self.counters.layers if self.counters is not None else []

    def _queue_counts(self, table: list[list[int]]) -> None:
        now, passes, tokens = self._moment
        for layer, line in zip(self._counted_layers(), table, strict=True):
            counts = line[: layer.num_experts]
            outside = sum(line) - sum(counts)
            text = " ".join(map(str, counts))
            COUNTS.add(f"{now},{self.number},{layer.layer_idx},{passes},{tokens},{outside},{text}\n")

    def _queue_pairs(self, number: int, table: list[list[int]]) -> None:
        now, _, tokens = self._moment
        layer = self._counted_layers()[number]
        for expert, line in enumerate(table[: layer.num_experts]):
            text = " ".join(map(str, line[: layer.num_experts]))
            PAIRS.add(f"{now},{self.number},{layer.layer_idx},{tokens},{expert},{text}\n")
