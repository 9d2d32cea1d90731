"""Count choices of experts in real tensors, as a captured graph would do it again, and print what the tables hold as JSON.

A "graph" here is a function that was made once and is called again: like a graph, it only knows the tensors, not what this
pass is.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

from profilemate.probe.process import THIS
from profilemate.trackers.moe_routing import hooks, model
from profilemate.trackers.moe_routing.counters import MOST_PAIR_BYTES, Counters, fits
from profilemate.trackers.moe_routing.layers import MoeLayer

EXPERTS, TOP_K, MOST_ROWS = 6, 2, 8
IDS = [[0, 1], [1, 2], [5, 0], [4, 3], [-1, -1], [-1, 1 << 30]]
"""Four rows that may be real; the last two are what padding can hold."""


def layer(number: int = 0, experts: int = EXPERTS, top_k: int = TOP_K) -> MoeLayer:
    return MoeLayer(number, number + 1, "Router", experts, top_k, "")


def counters(pairs: bool = False) -> Counters:
    return Counters([layer(0), layer(3)], torch.device("cpu"), MOST_ROWS, pairs)


def padding_and_replays() -> Any:
    """The same graph for three passes of other sizes, one dummy run in between."""
    made = counters()
    ids = torch.tensor(IDS, dtype=torch.int32)

    def graph() -> None:
        made.count(1, TOP_K, ids)

    tables = []
    for num_tokens in (0, 3, 1, 4):
        if num_tokens:
            made.begin(num_tokens)
        graph()
        if num_tokens:
            made.end()
        tables.append(made.table.tolist())
    return tables


def a_pass_that_raised() -> Any:
    """It never came to its end; the next one has fewer tokens."""
    made = counters()
    made.begin(4)
    made.begin(1)
    made.count(0, TOP_K, torch.tensor(IDS, dtype=torch.int32))
    return made.table.tolist()[0]


def types() -> Any:
    """Every integer type that a router may give, and rows that are not contiguous."""
    found = {}
    for name in ("int64", "int32", "uint32", "int16", "uint8"):
        made = counters()
        made.begin(4)
        made.count(0, TOP_K, torch.tensor(IDS[:4], dtype=getattr(torch, name)))
        found[name] = made.table.tolist()[0]
    made = counters()
    made.begin(4)
    made.count(0, TOP_K, torch.tensor(IDS[:4], dtype=torch.int32).t().contiguous().t())
    return {**found, "strided": made.table.tolist()[0]}


def outside() -> Any:
    """A shared expert that a kernel routes as one more."""
    made = counters(pairs=True)
    made.begin(2)
    made.count(0, TOP_K, torch.tensor([[0, EXPERTS], [3, 2]], dtype=torch.int32))
    assert made.pairs is not None
    return [made.table.tolist()[0], made.pairs.table.tolist()[0]]


def too_many_rows() -> Any:
    made = counters()
    made.begin(2)
    try:
        made.count(0, TOP_K, torch.zeros((MOST_ROWS + 1, TOP_K), dtype=torch.int32))
    except ValueError as error:
        return [str(error), made.table.sum().item()]
    return None


def limits() -> Any:
    """94 layers with 512 experts are too many for pairs, 48 with 128 are not; one expert for a token makes no pair."""
    return [
        fits([layer(n, 512, 10) for n in range(94)]),
        fits([layer(n, 128, 8) for n in range(48)]),
        fits([layer(0, 8, 1)]),
        Counters([layer(0), layer(1, top_k=1)], torch.device("cpu"), MOST_ROWS, True).pairs is None,
        MOST_PAIR_BYTES,
    ]


def own_rows() -> Any:
    """Three engines of 2, 3 and 1 tokens; this one is the second."""
    context = SimpleNamespace(dp_metadata=SimpleNamespace(num_tokens_across_dp_cpu=torch.tensor([2, 3, 1])))
    sys.modules["vllm.forward_context"] = SimpleNamespace(_forward_context=context)  # type: ignore[assignment]
    gathered = torch.arange(12).view(6, 2)
    found: list[Any] = [hooks.own_rows(gathered, 1).tolist(), hooks.own_rows(gathered[:3], 1).tolist()]
    try:
        hooks.own_rows(gathered[:4], 1)
    except ValueError as error:
        found.append(str(error))
    return found


class SlowEvent:
    """Of a device that needs two questions."""

    def __init__(self) -> None:
        self.questions = 0

    def record(self) -> None:
        self.questions = 0

    def query(self) -> bool:
        self.questions += 1
        return self.questions > 2


def device_copy() -> Any:
    """A table on a device: rows come when the copy is there, and hold what was counted when it was asked for."""
    made = counters(pairs=True)
    moe = model.MoeModel(0, made.layers, made)
    copies = moe._copies
    assert copies is not None
    copies._event, copies._hosts = SlowEvent(), [torch.empty_like(table) for table in copies._tables]
    rows = []
    for number in range(5):
        moe.begin(1)
        made.count(0, TOP_K, torch.tensor([[number, 5]], dtype=torch.int32))
        moe.end(THIS.began_ns + 1)
        rows.append([row.strip().split(",")[3:] for row in model.COUNTS.pending if isinstance(row, str)])
    moe.last_look()
    last = [row.strip().split(",")[3:] for row in model.COUNTS.pending if isinstance(row, str)][-2:]
    return {"rows": rows, "last": last, "pairs": len(model.PAIRS.pending)}


PARTS = (padding_and_replays, a_pass_that_raised, types, outside, too_many_rows, limits, own_rows, device_copy)

if __name__ == "__main__":
    print(json.dumps({part.__name__: part() for part in PARTS}))
