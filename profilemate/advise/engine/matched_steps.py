"""Steps with prompts beside plain decode steps of the same size: what a prompt's chunk adds to those who decode.

The time of a step is the time between two steps' ends, which is what each decoding request waits for its next token. Steps
are matched by the number of decoding requests; intervals are over stretches of neighbouring steps (`weighted.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from profilemate.advise.weighted import cluster_interval

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

COLUMNS = (
    "step_requests", "step_tokens", "context_requests", "context_tokens", "recomputed_tokens", "max_step_tokens",
    "max_requests", "no_requests_ns",
)  # fmt: skip
CLUSTERS = 40


@dataclass(frozen=True)
class Interference:
    """Nanoseconds per step; `added` is for a step with prompts, `low` and `high` its 95 % interval.

    `delay_share` is which part of the decoding requests' time went to the chunks of others.
    """

    mixed: int
    plain: int
    matched: int
    added: float | None = None
    low: float = float("nan")
    high: float = float("nan")
    mixed_mean: float = 0.0
    plain_mean: float = 0.0
    token_share: float = 0.0
    delay_share: float = 0.0

    @property
    def ratio(self) -> float | None:
        """A matched step with prompts over one without."""
        return self.mixed_mean / self.plain_mean if self.added is not None and self.plain_mean > 0 else None


def timed_steps(frame: pl.DataFrame) -> pl.DataFrame:
    """Steps with a time of their own and somebody who decodes: `decodes`, `is_mixed`, `cluster` and what they had."""
    import polars

    decodes = polars.col("step_requests") - polars.col("context_requests")
    timed = frame.filter(
        polars.col("period_ns").is_not_null()
        & (polars.col("period_ns") > 0)
        & (polars.col("no_requests_ns").fill_null(0) == 0)
        & (polars.col("step_tokens") > 0)
        & (polars.col("recomputed_tokens").fill_null(0) == 0)
    ).with_columns(decodes=decodes, is_mixed=polars.col("context_requests") > 0)
    own = timed.filter(polars.col("decodes") > 0)
    return own.with_columns(cluster=(polars.int_range(polars.len()) * CLUSTERS) // max(1, own.height))


def measure(frame: pl.DataFrame) -> Interference | None:
    """None where vLLM does not tell prefill from decode (0.11)."""
    import polars

    own = timed_steps(frame)
    if not own.height:
        return None if not frame["context_requests"].count() else Interference(0, 0, 0)
    mixed, plain = own.filter(polars.col("is_mixed")), own.filter(~polars.col("is_mixed"))
    sizes = set(mixed["decodes"]) & set(plain["decodes"])
    matched = mixed.filter(polars.col("decodes").is_in(list(sizes)))
    counted = Interference(mixed.height, plain.height, matched.height)
    if not matched.height:
        return counted
    return _matched(own.filter(polars.col("decodes").is_in(list(sizes))), own, counted)


def _matched(same: pl.DataFrame, own: pl.DataFrame, counted: Interference) -> Interference:
    import numpy
    import polars

    sizes, columns = numpy.unique(same["decodes"].to_numpy(), return_inverse=True)
    tables = _Tables.of(same, columns, len(sizes))
    ones = numpy.ones((1, CLUSTERS))
    low, high = cluster_interval(CLUSTERS, tables.added)
    decoded, mixed = polars.col("decodes"), polars.col("is_mixed")
    tokens, spent = _sum(own), own.select((decoded * polars.col("period_ns")).sum()).item()
    return Interference(
        counted.mixed, counted.plain, counted.matched,
        added=float(tables.added(ones)[0]), low=low, high=high,
        mixed_mean=float(tables.mixed_sum.sum() / tables.mixed.sum()), plain_mean=float(tables.plain_mean(ones)[0]),
        token_share=_sum(own.filter(mixed)) / tokens,
        delay_share=float((tables.excess(ones) * sizes).sum() / spent) if spent else 0.0,
    )  # fmt: skip


def _sum(frame: pl.DataFrame) -> int:
    return int(frame["decodes"].sum() or 0)


@dataclass(frozen=True)
class _Tables:
    """Number and time of mixed and plain steps by stretch of the session and number of decoding requests."""

    mixed: Floats
    mixed_sum: Floats
    plain: Floats
    plain_sum: Floats

    @classmethod
    def of(cls, same: pl.DataFrame, columns: Any, sizes: int) -> _Tables:
        import numpy

        is_mixed, cluster = same["is_mixed"].to_numpy(), same["cluster"].to_numpy()
        period = same["period_ns"].to_numpy().astype(float)

        def table(which: Any, weights: Any) -> Floats:
            filled = numpy.zeros((CLUSTERS, sizes))
            numpy.add.at(filled, (cluster[which], columns[which]), weights[which])
            return filled

        one = numpy.ones(len(period))
        return cls(table(is_mixed, one), table(is_mixed, period), table(~is_mixed, one), table(~is_mixed, period))

    def excess(self, counts: Floats) -> Floats:
        """For each draw and size: time of the mixed steps beyond that of as many plain ones; 0 where there are none."""
        import numpy

        plain, mixed = counts @ self.plain, counts @ self.mixed
        with numpy.errstate(divide="ignore", invalid="ignore"):
            beyond = counts @ self.mixed_sum - mixed * (counts @ self.plain_sum) / plain
        filled: Floats = numpy.where((plain > 0) & (mixed > 0), beyond, 0.0)
        return filled

    def added(self, counts: Floats) -> Floats:
        """Per matched mixed step."""
        mixed = (counts @ self.mixed) * (counts @ self.plain > 0)
        per_step: Floats = self.excess(counts).sum(axis=1) / mixed.sum(axis=1)
        return per_step

    def plain_mean(self, counts: Floats) -> Floats:
        """Mean time of plain steps, sizes weighted as among the mixed ones."""
        mixed = counts @ self.mixed
        means = (counts @ self.plain_sum) / (counts @ self.plain)
        weighted: Floats = (means * mixed).sum(axis=1) / mixed.sum(axis=1)
        return weighted
