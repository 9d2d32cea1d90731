"""One loaded model: its passes and tokens, and when its counts are read and written."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic_ns, sleep
from typing import NamedTuple

from profilemate.probe.pace import pause_ns
from profilemate.probe.process import THIS
from profilemate.trackers.moe_routing.counters import Counters
from profilemate.trackers.moe_routing.layers import MoeLayer
from profilemate.trackers.moe_routing.pair_rows import PairRows
from profilemate.trackers.moe_routing.reading import Copy
from profilemate.trackers.moe_routing.streams import COUNTS, LAYERS

IDLE_SHARE = 4
"""When an engine has nothing more to do, this share of the pause is enough: its last passes would wait for the next request."""

IDLE_QUESTIONS = 100
"""How often a device is asked for a copy then, before the next pass has to: some 0.1 ms."""

LAST_WAIT_NS = 1_000_000_000
LAST_SLEEP_SECONDS = 0.001


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
        self._is_running = False
        self._pause_ns = 0
        self._moment = Moment(0, 0, 0)
        self._copy = Copy(counters.table) if counters else None
        self._pairs = PairRows(number, counters.layers, counters.pairs) if counters and counters.pairs else None

    def describe(self, now_ns: int, pairs: str) -> None:
        """Queue the rows of the layers; `pairs` is what they say of pairs."""
        for layer in self.layers:
            told = layer.layer_idx if layer.key else None
            LAYERS.add((now_ns, self.number, told, layer.router, layer.num_experts, layer.top_k, layer.unseen, pairs))

    def begin(self, num_tokens: int) -> None:
        """A serving pass begins."""
        self.passes += 1
        self.tokens += num_tokens
        self._is_running = True
        if self.counters is not None:
            self.counters.begin(num_tokens)

    def end(self, now_ns: int, is_idle: bool = False) -> bool:
        """The pass was launched, or there was none as nothing was left to do. True where rows wait to be written."""
        self._is_running = False
        if self.counters is not None:
            self.counters.end()
        found = self.look(now_ns, IDLE_SHARE if is_idle else 1)
        if is_idle and self._copy is not None:
            questions = IDLE_QUESTIONS
            while self._copy.is_under_way and questions:
                found = self._collect() or found
                questions -= 1
        return found

    def look(self, now_ns: int, pause_share: int = 1) -> bool:
        """Queue the counts that have come in; ask for the next ones if it is time. In the midst of a pass, nothing."""
        if self._is_running:
            return False
        found = self._pairs is not None and self._pairs.look(now_ns, now_ns - THIS.began_ns, self.tokens)
        if self._copy is not None and self._copy.is_under_way:
            return self._collect() or found
        is_time = now_ns >= self._moment.time_ns + self._pause_ns // pause_share
        if not is_time or self._moment.tokens == self.tokens or not self.layers:
            return found
        self._ask(now_ns)
        return self._collect() or found

    def last_look(self) -> None:
        """At an exit that Python sees: everything once more. A device is given a second to answer."""
        until = monotonic_ns() + LAST_WAIT_NS
        if self._copy is not None and self._copy.is_under_way:
            wait_for(self._collect, until)
        if self.layers and self._moment.tokens != self.tokens:
            self._ask(monotonic_ns())
            wait_for(self._collect, until)
        if self._pairs is not None and self.tokens:
            self._pairs.ask(monotonic_ns(), self.tokens)
            if wait_for(self._pairs.is_ready, until):
                self._pairs.write_all()

    def _ask(self, now_ns: int) -> None:
        self._moment = Moment(now_ns, self.passes, self.tokens)
        self._pause_ns = pause_ns(now_ns - THIS.began_ns)
        if self._copy is not None:
            self._copy.start()

    def _collect(self) -> bool:
        """Queue what was asked for, if it is there."""
        if self._copy is None:
            self._queue_uncounted()
            return True
        table = self._copy.take()
        if table is None:
            return False
        self._queue_counts(table.tolist())
        return True

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


def wait_for(is_done: Callable[[], bool], until_ns: int) -> bool:
    """Ask until it is done or the time is over."""
    while not is_done():
        if monotonic_ns() >= until_ns:
            return False
        sleep(LAST_SLEEP_SECONDS)
    return True
