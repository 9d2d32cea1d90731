"""Session -> which experts were chosen: totals by layer, their course over time, and what was not seen.

Of tensor-parallel ranks, which route alike, the lowest one counts; pipeline stages have layers of their own.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev
from typing import NamedTuple

from profilemate.schema.table import Table
from profilemate.session.cell_values import LONGEST_INTEGER
from profilemate.session.records import ProcessInfo
from profilemate.session.session import Session
from profilemate.session.stream import Row
from profilemate.trackers.moe_routing import events

Counts = tuple[int, ...]


@dataclass(frozen=True)
class Layer:
    """A row of moe_layers. `unseen` is empty or the word of trackers/moe_routing/layers.py."""

    layer_idx: int | None
    router: str
    num_experts: int
    top_k: int
    unseen: str
    pairs: str


@dataclass(frozen=True)
class Spread:
    """How evenly choices fall on the experts of a layer. The ratios are None where nothing was chosen."""

    mean: float
    std_dev: float
    least: int
    most: int
    num_chosen: int
    """Experts that were chosen at all."""

    @property
    def max_over_mean(self) -> float | None:
        """1 is even; the number of experts means that one got everything."""
        return self.most / self.mean if self.mean else None

    @property
    def max_min_ratio(self) -> float | None:
        """Infinite where an expert was never chosen."""
        if not self.most:
            return None
        return self.most / self.least if self.least else math.inf


def spread_of(counts: Sequence[int]) -> Spread:
    """Over all experts, those that were never chosen included; the deviation is that of the population."""
    return Spread(fmean(counts), pstdev(counts), min(counts), max(counts), sum(1 for count in counts if count))


class Source(NamedTuple):
    """One model of one process: whose rows they are. `engine` numbers models that serve apart from each other."""

    process: ProcessInfo
    model: int
    engine: int
    rank: int


class CountsRow(NamedTuple):
    """A row of moe_counts; times since the session began."""

    time_ns: int
    layer_idx: int
    passes: int
    tokens: int
    outside: int
    counts: Counts


@dataclass(frozen=True)
class LayerTotal:
    """What was counted of one layer in one engine."""

    source: Source
    layer: Layer
    row: CountsRow

    @property
    def seen(self) -> int:
        """Choices that were counted."""
        return sum(self.row.counts) + self.row.outside

    @property
    def expected(self) -> int:
        """Choices that the scheduled tokens must have made."""
        return self.row.tokens * self.layer.top_k


class ImbalancePoint(NamedTuple):
    """One layer over the time since the point before it."""

    time_ns: int
    source: Source
    layer_idx: int
    spread: Spread
    tokens: int


@dataclass(frozen=True)
class MoeSummary:
    """All layers of all engines."""

    sources: tuple[Source, ...]
    layers: tuple[tuple[Source, Layer], ...]
    totals: tuple[LayerTotal, ...]

    @property
    def counted(self) -> tuple[LayerTotal, ...]:
        """Totals of layers whose router was counted."""
        return tuple(total for total in self.totals if not total.layer.unseen)

    @property
    def as_of_ns(self) -> int | None:
        """When the counts were read for the last time."""
        return max((total.row.time_ns for total in self.totals), default=None)


def analyze(session: Session) -> MoeSummary:
    """Read the layers and the newest counts of each."""
    sources, layers, totals = sources_of(session), [], []
    for source in sources:
        own = list(_layers_of(session, source))
        layers += [(source, layer) for layer in own]
        by_idx = {layer.layer_idx: layer for layer in own}
        newest = {row.layer_idx: row for row in _counts_of(session, source)}
        totals += [LayerTotal(source, by_idx[idx], row) for idx, row in sorted(newest.items()) if idx in by_idx]
    return MoeSummary(sources, tuple(layers), tuple(totals))


def sources_of(session: Session) -> tuple[Source, ...]:
    """The models whose rows count."""
    chosen: dict[tuple[int, int], ProcessInfo] = {}
    for process in session.with_role("Worker"):
        if session.has_rows(process, events.LAYERS):
            place = process.rank("dp"), process.rank("pp")
            known = chosen.get(place)
            if known is None or process.rank("tp") < known.rank("tp"):
                chosen[place] = process
    found = [
        (process, model, place[0])
        for place, process in sorted(chosen.items())
        for model in sorted({row[0] for row in session.rows(process, events.LAYERS, "model")} - {None})
    ]
    engines = {key: number for number, key in enumerate(sorted({(engine, model) for _, model, engine in found}))}
    return tuple(
        Source(process, model, engines[engine, model], process.rank("rank")) for process, model, engine in found
    )


def _rows(session: Session, source: Source, table: Table) -> Iterator[Row]:
    return (row for row in session.rows(source.process, table) if row[1] == source.model)


def _layers_of(session: Session, source: Source) -> Iterator[Layer]:
    for _, _, layer_idx, router, num_experts, top_k, unseen, pairs in _rows(session, source, events.LAYERS):
        yield Layer(layer_idx, router, num_experts or 0, top_k or 0, unseen, pairs)


def numbers(text: str) -> Counts | None:
    """A cell with numbers between spaces; None for anything else."""
    words = text.split()
    return tuple(map(int, words)) if all(word.isdecimal() and len(word) < LONGEST_INTEGER for word in words) else None


def _counts_of(session: Session, source: Source) -> Iterator[CountsRow]:
    for time_ns, _, layer_idx, passes, tokens, outside, text in _rows(session, source, events.COUNTS):
        counts = numbers(text)
        if counts is not None and None not in (layer_idx, passes, tokens, outside):
            yield CountsRow(source.process.at(time_ns), layer_idx, passes, tokens, outside, counts)


def imbalance(session: Session, summary: MoeSummary) -> Iterator[ImbalancePoint]:
    """Every time that the counts of a layer were read: the choices since the time before, in order of time."""
    return heapq.merge(*(_imbalance_of(session, source) for source in summary.sources), key=lambda point: point.time_ns)


def _imbalance_of(session: Session, source: Source) -> Iterator[ImbalancePoint]:
    before: dict[int, CountsRow] = {}
    for row in _counts_of(session, source):
        then = before.get(row.layer_idx, row._replace(tokens=0, counts=(0,) * len(row.counts)))
        before[row.layer_idx] = row
        since = [new - old for new, old in zip(row.counts, then.counts, strict=False)]
        if any(since):
            yield ImbalancePoint(row.time_ns, source, row.layer_idx, spread_of(since), row.tokens - then.tokens)


def pairs(session: Session, summary: MoeSummary) -> Iterator[tuple[Source, int, int, int, int]]:
    """(source, layer, expert, higher expert, tokens that chose both), for all pairs that any token chose."""
    for source in summary.sources:
        newest: dict[tuple[int, int], str] = {}
        for _, _, layer_idx, _, expert, text in _rows(session, source, events.PAIRS):
            if layer_idx is not None and expert is not None:
                newest[layer_idx, expert] = text
        by_layer: dict[int, Counter[tuple[int, int]]] = {}
        for (layer_idx, expert), text in newest.items():
            found = by_layer.setdefault(layer_idx, Counter())
            for other, count in enumerate(numbers(text) or ()):
                if count:
                    found[min(expert, other), max(expert, other)] += count
        for layer_idx in sorted(by_layer):
            for (low, high), count in sorted(by_layer[layer_idx].items()):
                yield source, layer_idx, low, high, count


def summed(totals: Sequence[LayerTotal]) -> dict[int, list[LayerTotal]]:
    """Totals by layer, for what is said of all engines together."""
    by_layer: dict[int, list[LayerTotal]] = {}
    for total in totals:
        by_layer.setdefault(total.row.layer_idx, []).append(total)
    return dict(sorted(by_layer.items()))


def added(totals: Sequence[LayerTotal]) -> Counts:
    """Choices of each expert over several engines."""
    return tuple(map(sum, zip(*(total.row.counts for total in totals), strict=True)))
