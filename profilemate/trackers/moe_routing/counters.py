"""Counts of one model on its own device.

Everything is a tensor that is there before vLLM captures, so that a CUDA graph that captured the counting does it again at
each replay: the row of the table that it adds to, and the weights, which are 1 for the rows of the batch that are real
tokens and 0 for padding. The weights are set outside the graph, before each serving pass, and are 0 at all other times:
warm-up, captures and dummy batches add nothing. Nothing waits for the device.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from itertools import combinations
from typing import Any

from profilemate.trackers.moe_routing.layers import MoeLayer

MOST_PAIR_BYTES = 64 << 20
"""Of the tables of pairs of one model: 94 layers with 128 experts need 12 MB, with 512 experts 198 MB."""


def table_width(num_experts: int) -> int:
    """The next power of two above: `id & (width - 1)` is then inside the table whatever the id.

    An id may be -1 (vLLM 0.26 and later give it to padding), and one outside would be an error of the whole device.
    """
    return 1 << num_experts.bit_length()


class Rows:
    """Weights of the rows of a batch, each repeated for every choice (or pair) of a row, and room for as many ids."""

    def __init__(self, torch: Any, device: Any, most_rows: int, repeats: int) -> None:
        """All weights are 0."""
        self.repeats = repeats
        self.weights = torch.zeros(most_rows * repeats, dtype=torch.int64, device=device)
        self.ids = torch.zeros(most_rows * repeats, dtype=torch.int32, device=device)
        self._real: Any = None
        self._views: tuple[int, Any, Any] = (0, self.ids[:0], self.weights[:0])

    def begin(self, num_rows: int) -> None:
        """The first rows are real tokens."""
        self.end()
        self._real = self.weights[: num_rows * self.repeats]
        self._real.fill_(1)

    def end(self) -> None:
        """No row is."""
        if self._real is not None:
            self._real.zero_()
            self._real = None

    def views(self, length: int) -> tuple[Any, Any]:
        """Room for so many ids, and their weights. The layers of a pass ask for the same length."""
        if self._views[0] != length:
            if length > len(self.ids):
                raise ValueError(f"{length} ids of experts, at most {len(self.ids)} were expected")
            self._views = (length, self.ids[:length], self.weights[:length])
        return self._views[1:]


class Pairs:
    """The table [layers, experts + 1, experts + 1] of who was chosen with whom; the last column is none of the experts."""

    def __init__(self, torch: Any, device: Any, layers: list[MoeLayer], rows: Rows, top_k: int) -> None:
        """`rows` repeats each row for every pair. All layers choose the same number of experts."""
        self.width = pair_width(layers)
        self.table = torch.zeros((len(layers), self.width, self.width), dtype=torch.int64, device=device)
        self.flat = [self.table[number].view(-1) for number in range(len(layers))]
        firsts, seconds = zip(*combinations(range(top_k), 2), strict=True)
        self.firsts = torch.tensor(firsts, dtype=torch.int64, device=device)
        self.seconds = torch.tensor(seconds, dtype=torch.int64, device=device)
        self.rows = rows
        self._add = torch.add

    def count(self, number: int, ids: Any, top_k: int) -> None:
        """Add the pairs of a layer; `ids` are inside the table of counts and may be changed."""
        by_row = ids.clamp(max=self.width - 1).view(-1, top_k)
        first, second = by_row.index_select(1, self.firsts), by_row.index_select(1, self.seconds)
        keys = self._add(second, first, alpha=self.width).view(-1)
        _, weights = self.rows.views(len(keys))
        self.flat[number].index_add_(0, keys, weights)


def pair_width(layers: Iterable[MoeLayer]) -> int:
    """Columns of a table of pairs."""
    return max(layer.num_experts for layer in layers) + 1


class Counters:
    """The table [layers, width] of one model, in the order of its layers."""

    def __init__(self, layers: list[MoeLayer], device: Any, most_rows: int, with_pairs: bool) -> None:
        """Allocate what is counted into. `most_rows` is the longest batch that vLLM makes."""
        torch: Any = sys.modules["torch"]
        self.layers = layers
        self.width = table_width(max(layer.num_experts for layer in layers))
        self.table = torch.zeros((len(layers), self.width), dtype=torch.int64, device=device)
        self.by_top_k = {top_k: Rows(torch, device, most_rows, top_k) for top_k in {layer.top_k for layer in layers}}
        self.rows = list(self.by_top_k.values())
        self.pairs = self._pairs(torch, device, most_rows) if with_pairs else None
        self._lines = list(self.table)
        self._and = torch.bitwise_and
        self._direct = (torch.int32, torch.int64)
        self._int32, self._uint32 = torch.int32, getattr(torch, "uint32", None)

    def _pairs(self, torch: Any, device: Any, most_rows: int) -> Pairs | None:
        top_k = self.layers[0].top_k
        if len(self.by_top_k) > 1 or not fits(self.layers):
            return None
        rows = Rows(torch, device, most_rows, top_k * (top_k - 1) // 2)
        self.rows.append(rows)
        return Pairs(torch, device, self.layers, rows, top_k)

    def begin(self, num_rows: int) -> None:
        """A serving pass of so many real tokens begins."""
        for rows in self.rows:
            rows.begin(num_rows)

    def end(self) -> None:
        """It was launched."""
        for rows in self.rows:
            rows.end()

    def count(self, number: int, top_k: int, topk_ids: Any) -> None:
        """Add the choices [rows, top_k] of a layer, of any integer type."""
        flat = topk_ids.reshape(-1)
        if flat.dtype not in self._direct:
            flat = flat.view(self._int32) if flat.dtype is self._uint32 else flat.to(self._int32)
        ids, weights = self.by_top_k[top_k].views(len(flat))
        self._and(flat, self.width - 1, out=ids)
        self._lines[number].index_add_(0, ids, weights)
        if self.pairs is not None:
            self.pairs.count(number, ids, top_k)


def fits(layers: list[MoeLayer]) -> bool:
    """Whether pairs can be counted: there are two experts for a token, and the tables are not too large."""
    return layers[0].top_k > 1 and 8 * len(layers) * pair_width(layers) ** 2 <= MOST_PAIR_BYTES
