"""The forward passes that came, counted by what decides which graph serves them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from profilemate.advise.graphs.rules import FULL, V1, Ladder, Rules
from profilemate.frames.packages import load
from profilemate.session.views import graph_workers
from profilemate.trackers.cuda_graphs.tally import newest_totals

if TYPE_CHECKING:
    from profilemate.frames.session import Session

BLOCKS = 20
"""Stretches of equal numbers of passes into which each engine's passes are cut, for ranges."""

DECODE = "decode"


@dataclass(frozen=True)
class Batch:
    """Passes of one kind in one block. `tokens` are unpadded; `mode` and `padded` are what vLLM chose."""

    block: int
    tokens: int
    uniform: bool
    """Each request brings the decode query length, and vLLM may give the batch a decode graph."""
    phase: str
    """prefill, decode or mixed; empty where it was not recorded."""
    mode: str
    padded: int
    by_rule: bool
    """Mode and padding are what the rules give for the graphs there are; any other reason stays under another ladder."""
    passes: int


@dataclass(frozen=True)
class Batches:
    """All passes of the workers that stand for their engines.

    `lost` passes are in the totals but no longer in the rows; of `unclear` ones it cannot be told whether they were
    uniform: they count as not.
    """

    groups: tuple[Batch, ...]
    lost: int = 0
    unclear: int = 0

    @property
    def passes(self) -> int:
        """How many there are."""
        return sum(batch.passes for batch in self.groups)

    @property
    def not_by_rule(self) -> int:
        """Passes whose graph was not the one that the rules give."""
        return sum(batch.passes for batch in self.groups if not batch.by_rule)

    def merged(self) -> Batches:
        """The same passes without when they came and their phase: all that a ladder's sums need, in far fewer groups."""
        sums: Counter[Batch] = Counter()
        for batch in self.groups:
            sums[replace(batch, block=0, phase="", passes=0)] += batch.passes
        return replace(self, groups=tuple(replace(batch, passes=passes) for batch, passes in sums.items()))

    def multiset(self) -> Counter[tuple[int, bool, bool, str, int]]:
        """Passes by what decides their graph, whenever they came; two sessions with equal ones had the same batches.

        A pass that the rules do not explain is told apart by what it got.
        """
        found: Counter[tuple[int, bool, bool, str, int]] = Counter()
        for batch in self.groups:
            mode, padded = ("", 0) if batch.by_rule else (batch.mode, batch.padded)
            found[(batch.tokens, batch.uniform, batch.by_rule, mode, padded)] += batch.passes
        return found


@dataclass(frozen=True)
class Observed:
    """Passes with equal cells of forward_passes, in one block of one process."""

    block: int
    tokens: int
    requests: int
    phase: str
    mode: str
    padded: int
    decode_graph: bool
    passes: int


def read_observed(session: Session) -> tuple[list[Observed], int]:
    """Passes that have graph cells, and how many of the totals have no row any more (size cap, losses)."""
    polars = load("polars")
    workers = graph_workers(session)
    rows = session.scan("forward_passes").filter(polars.col("process").is_in([one.process.name for one in workers]))
    rows = rows.filter(polars.col("unpadded_tokens").is_not_null() & polars.col("num_tokens").is_not_null())
    ends = rows.group_by("process").agg(
        polars.col("forward").min().alias("first"), polars.col("forward").max().alias("last"), polars.len().alias("rows")
    ).collect(engine="streaming")  # fmt: skip
    last = {row["process"]: max(row["last"], row["rows"]) for row in ends.iter_rows(named=True)}
    for worker in workers:
        block = newest_totals(session, worker.process)
        if block is not None:
            last[worker.process.name] = max(last.get(worker.process.name, 0), block.through_forward)
    width = polars.col("last") - polars.col("first") + 1
    place = ((polars.col("forward") - polars.col("first")) * BLOCKS // width).alias("block")
    found = _counted(rows.join(ends.lazy(), on="process").with_columns(place))
    return found, sum(last.values()) - sum(one.passes for one in found)


KEYS = ("block", "unpadded_tokens", "unpadded_reqs", "phase", "runtime_mode", "num_tokens", "uniform")


def _counted(rows: Any) -> list[Observed]:
    polars = load("polars")
    counted = rows.group_by(*KEYS).agg(polars.len().alias("passes")).sort(*KEYS).collect(engine="streaming")
    return [
        Observed(
            block=row["block"], tokens=row["unpadded_tokens"], requests=row["unpadded_reqs"] or 0,
            phase=row["phase"] or "", mode=row["runtime_mode"], padded=row["num_tokens"],
            decode_graph=row["runtime_mode"] == FULL and bool(row["uniform"]), passes=row["passes"],
        )
        for row in counted.iter_rows(named=True)
    ]  # fmt: skip


def decode_query_len(observed: Iterable[Observed]) -> int | None:
    """The tokens per request that most decode passes have.

    Not the most: a request that is computed again after a preemption brings many tokens, and vLLM counts it as decoding.
    """
    lengths: Counter[int] = Counter()
    for one in observed:
        if one.phase == DECODE and one.requests and one.tokens % one.requests == 0:
            lengths[one.tokens // one.requests] += one.passes
    return max(lengths, key=lambda length: lengths[length], default=None)


def classify(observed: Iterable[Observed], lost: int, rules: Rules, present: Ladder) -> Batches:
    """Decide for each pass whether decode graphs may serve it and whether the rules explain what it got."""
    groups: Counter[Batch] = Counter()
    unclear = 0
    for one in observed:
        uniform, is_clear = _is_uniform(one, rules, present)
        unclear += 0 if is_clear else one.passes
        by_rule = present.dispatch(one.tokens, uniform) == (one.mode, one.padded)
        groups[Batch(one.block, one.tokens, uniform, one.phase, one.mode, one.padded, by_rule, 0)] += one.passes
    return Batches(tuple(replace(batch, passes=passes) for batch, passes in groups.items()), lost, unclear)


def _is_uniform(one: Observed, rules: Rules, present: Ladder) -> tuple[bool, bool]:
    """Whether a pass is a uniform decode for vLLM, and whether that is certain.

    V1 (`_is_uniform_decode`): each request has the query length, prefill or not. V2 (`gather_batch_req_state`): and none
    is in prefill, but for one new token over existing context. Rows have sums; where they leave it open, the graph that
    was chosen tells, if a decode graph of that size was there to be chosen.
    """
    if one.decode_graph:
        return True, True
    if not rules.full_decode or one.tokens != rules.query_len * one.requests:
        return False, True
    told_by_sums = rules.query_len == 1 or one.requests == 1
    if told_by_sums and (rules.runner == V1 or one.phase == DECODE):
        return True, True
    if present.dispatch(one.tokens, True)[0] == FULL:
        return False, True
    return one.phase == DECODE, one.phase == DECODE
