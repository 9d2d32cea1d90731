"""Count choices of experts in real tensors, as a captured graph would do it again, and print what the tables hold as JSON.

A "graph" here is a function that was made once and is called again: like a graph, it only knows the tensors, not what this
pass is. `drive_moe_counters.py cost` says what counting costs on this CPU.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

from profilemate.probe.pace import SHORTEST_PAUSE_NS
from profilemate.probe.process import THIS
from profilemate.trackers.moe_routing import hooks, model, pair_rows
from profilemate.trackers.moe_routing.counters import MOST_PAIR_BYTES, Counters, fits
from profilemate.trackers.moe_routing.layers import MoeLayer
from profilemate.trackers.moe_routing.pair_rows import PairRows
from profilemate.trackers.moe_routing.streams import COUNTS, PAIRS

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
    assert moe._copy is not None and moe._pairs is not None
    for copy in (moe._copy, moe._pairs._copy):
        copy._event, copy._host = SlowEvent(), torch.empty_like(copy._table)
    rows = []
    for number in range(5):
        moe.begin(1)
        assert not moe.look(THIS.began_ns + 1)  # a flush in the midst of a pass
        made.count(0, TOP_K, torch.tensor([[number, 5]], dtype=torch.int32))
        moe.end(THIS.began_ns + 1)
        rows.append([row.strip().split(",")[3:] for row in COUNTS.pending if isinstance(row, str)])
    now = THIS.began_ns + 1 + SHORTEST_PAUSE_NS // model.IDLE_SHARE
    idle = [moe.end(now - 1, is_idle=True), moe.end(now, is_idle=True), moe.end(2 * now, is_idle=True)]
    after_idle = [row.strip().split(",")[3:] for row in COUNTS.pending if isinstance(row, str)][-2:]
    moe.begin(1)
    moe.end(now + 1)
    moe.last_look()
    last = [row.strip().split(",")[3:] for row in COUNTS.pending if isinstance(row, str)][-2:]
    return {"rows": rows, "idle": idle, "after_idle": after_idle, "last": last, "pairs": len(PAIRS.pending)}


def spread_pairs() -> Any:
    """Five passes, whose pairs are asked for at the first and the last one."""
    made = counters(pairs=True)
    assert made.pairs is not None
    rows = PairRows(0, made.layers, made.pairs)
    rows._rows_at_once = 5
    PAIRS.pending.clear()
    numbers = []
    for number, now in enumerate((1, 2, 3, 4, 1 + pair_rows.SHORTEST_PAUSE_NS)):
        made.begin(1)
        made.count(0, TOP_K, torch.tensor([[0, 1]], dtype=torch.int32))
        made.end()
        rows.look(now, 0, number + 1)
        numbers.append(len(PAIRS.pending))
    return [numbers, [str(row).strip().split(",")[2:] for row in PAIRS.pending]]


def cost(experts: int = 128, top_k: int = 8, num_layers: int = 48, repeats: int = 50) -> str:
    """Microseconds of counting one layer on this CPU, at the fastest of some passes, and of writing the counts down once."""
    said = []
    for num_tokens, with_pairs in ((1, False), (32, False), (2048, False), (32, True)):
        made = Counters([layer(n, experts, top_k) for n in range(num_layers)], torch.device("cpu"), 2048, with_pairs)
        ids = torch.randint(0, experts, (num_tokens, top_k), dtype=torch.int32)
        times = []
        for _ in range(repeats):
            made.begin(num_tokens)
            began = time.perf_counter()
            for number in range(num_layers):
                made.count(number, top_k, ids)
            times.append((time.perf_counter() - began) / num_layers * 1e6)
        moe = model.MoeModel(0, made.layers, made)
        writes = []
        for number in range(repeats):
            moe.begin(num_tokens)
            began = time.perf_counter()
            moe.end(THIS.began_ns + (number << 40))
            writes.append((time.perf_counter() - began) * 1e3)
        pairs = " with pairs" if with_pairs else ""
        said.append(
            f"{num_tokens} tokens{pairs}: {min(times):.1f} us a layer; counts read and formatted in {min(writes):.1f} ms"
        )
    return "\n".join(said)


PARTS = (
    padding_and_replays,
    a_pass_that_raised,
    types,
    outside,
    too_many_rows,
    limits,
    own_rows,
    device_copy,
    spread_pairs,
)

if __name__ == "__main__":
    if sys.argv[1:] == ["cost"]:
        torch.set_num_threads(1)
        print(cost())
        sys.exit()
    print(json.dumps({part.__name__: part() for part in PARTS}))
