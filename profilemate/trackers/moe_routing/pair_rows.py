"""The tables of pairs on their way to the disk: large, so seldom read, and written a little at a time."""

from __future__ import annotations

from typing import Any

from profilemate.trackers.moe_routing.counters import Pairs
from profilemate.trackers.moe_routing.layers import MoeLayer
from profilemate.trackers.moe_routing.reading import Copy
from profilemate.trackers.moe_routing.streams import PAIRS

SHORTEST_PAUSE_NS = 10_000_000_000
GROWTH = 8
"""Readings are an eighth of the process's age apart: about a hundred a day, 5 MB each for 48 layers of 128 experts."""

MOST_AT_ONCE = 4096
"""Numbers that are written by one engine step: some 2 ms."""


class PairRows:
    """All pairs of one model as they were at one moment, then again at a later one."""

    def __init__(self, model: int, layers: list[MoeLayer], pairs: Pairs) -> None:
        """Nothing was read yet. `layers` are in the order of the tables."""
        self._model = model
        self._layers = layers
        self._copy = Copy(pairs.table)
        self._rows_at_once = max(1, MOST_AT_ONCE // pairs.width)
        self._next_ns = 0
        self._time_ns = self._tokens = 0
        self._tables: Any = None
        self._places: list[tuple[int, int]] = []
        """Layers and experts that are still to be written, the next one last."""

    def look(self, now_ns: int, age_ns: int, tokens: int) -> bool:
        """Write some rows, or ask for the next reading if it is time. True where rows were queued."""
        if not self._places and not self._copy.is_under_way and now_ns >= self._next_ns and tokens != self._tokens:
            self.ask(now_ns, tokens)
            self._next_ns = now_ns + max(SHORTEST_PAUSE_NS, age_ns // GROWTH)
        return self.is_ready() and self.write(self._rows_at_once)

    def ask(self, now_ns: int, tokens: int) -> None:
        """Ask for a reading."""
        self._time_ns, self._tokens = now_ns, tokens
        self._copy.start()

    def is_ready(self) -> bool:
        """Whether there are rows to write."""
        if self._copy.is_under_way:
            self._tables = self._copy.take()
            if self._tables is not None:
                self._places = [(n, expert) for n, one in enumerate(self._layers) for expert in range(one.num_experts)]
                self._places.reverse()
        return bool(self._places)

    def write(self, most_rows: int) -> bool:
        """Queue the next rows."""
        for _ in range(min(most_rows, len(self._places))):
            number, expert = self._places.pop()
            layer = self._layers[number]
            text = " ".join(map(str, self._tables[number][expert][: layer.num_experts].tolist()))
            PAIRS.add(f"{self._time_ns},{self._model},{layer.layer_idx},{self._tokens},{expert},{text}\n")
        return True

    def write_all(self) -> None:
        """Queue what is left."""
        self.write(len(self._places))
