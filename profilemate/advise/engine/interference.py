"""What a prompt's chunk adds to the steps of those who decode, measured against plain decode steps of the same size.

The time of a step is the time between two steps' ends, which is what each decoding request waits for its next token. Steps
are matched by the number of decoding requests; intervals are over stretches of neighbouring steps (`weighted.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from profilemate.advise.engine.smaller_chunks import (
    FULL_STEP,
    RATE,
    Prediction,
    fit,
    mixed_times,
    predict,
    smaller_budget,
)
from profilemate.advise.enough import Need, lost_rows, thin, unmet
from profilemate.advise.finding import FINE, LOOK, Evidence, Finding, Verdict
from profilemate.advise.steps import TABLE
from profilemate.advise.weighted import cluster_interval

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    from numpy.typing import NDArray

    from profilemate.frames.session import Session

    Floats = NDArray[np.float64]

TOPIC = "scheduling"
NAME = "scheduling.interference"
ABOUT = "what prompts cost those who decode"
COLUMNS = (
    "step_requests", "step_tokens", "context_requests", "context_tokens", "recomputed_tokens", "max_step_tokens",
    "max_requests", "no_requests_ns",
)  # fmt: skip

MIXED_NEEDED, PLAIN_NEEDED, MATCHED = 50, 50, 0.5
CLUSTERS = 40
FELT_TOKENS, FELT_RATIO = 0.05, 2.0
"""Worth a look from this share of decoded tokens in steps with prompts on, and from so many times a plain step on."""


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


# -- the finding --------------------------------------------------------------------------------------------------------


def advise(session: Session, frame: pl.DataFrame, costs: Interference | None) -> list[Finding]:
    """One finding, or none where vLLM does not tell which requests are in prefill."""
    if costs is None:
        return []
    evidence = (
        Evidence(TABLE, costs.mixed, "steps with prompts and decodes"),
        Evidence(TABLE, costs.plain, "steps with decodes alone"),
    )
    needs = [
        Need("steps with prompts and decodes", costs.mixed, MIXED_NEEDED),
        Need("steps with decodes alone", costs.plain, PLAIN_NEEDED),
        Need("matched steps (of the same number of decodes)", costs.matched, max(MIXED_NEEDED, MATCHED * costs.mixed)),
    ]
    if unmet(needs) or costs.ratio is None or costs.added is None:
        return [thin(TOPIC, NAME, ABOUT, needs, "", evidence)]
    says = f"{_text(costs)}{lost_rows(session, TABLE)}"
    if costs.low <= 0 or costs.token_share < FELT_TOKENS or costs.ratio < FELT_RATIO:
        title = (
            "Prompts hardly delay those who decode" if costs.low > 0 else "No delay of decodes by prompts was measured"
        )
        return [Finding(TOPIC, NAME, FINE, title, says, evidence, numbers=_numbers(costs))]
    title = f"A step with prompts takes {costs.ratio:.1f} times as long as a decode step of the same size"
    prediction = _prediction(frame)
    if isinstance(prediction, str):
        return [Finding(TOPIC, NAME, LOOK, title, f"{says} {prediction}", evidence, numbers=_numbers(costs))]
    return [
        Finding(
            TOPIC, NAME, LOOK, title,
            f"{says} A smaller budget cuts prompts into smaller chunks: shorter steps for those who decode, more of them for "
            f"the prompt. Among the steps with prompts {100 * prediction.fit:.0f} % of the variance of their time goes with "
            "the chunk's tokens and the decodes.",
            evidence,
            flags=(f"--max-num-batched-tokens {prediction.budget}",),
            gains=prediction.gains,
            to_be_sure=(
                "Decide which matters more, the time between tokens or the time to the first one: this trades one for the "
                "other. Run with it and hold both against each other (--verify, compare)."
            ),
            numbers={**_numbers(costs), **prediction.numbers},
            alternatives=(f"--long-prefill-token-threshold {prediction.chunk}",),
        )
    ]  # fmt: skip


def _prediction(frame: pl.DataFrame) -> Prediction | str:
    own = timed_steps(frame)
    budget = smaller_budget(own)
    if isinstance(budget, str):
        return budget
    fitted = fit(own, CLUSTERS)
    return fitted if isinstance(fitted, str) else predict(own, budget, fitted, CLUSTERS)


def verify(finding: Finding, after: Session) -> list[Verdict]:
    """Times of the steps with prompts as they are there."""
    from profilemate.advise.steps import steps

    times = mixed_times(timed_steps(steps(after, *COLUMNS)))
    if times is None:
        return []
    seen = {FULL_STEP: times.p95_ms, RATE: times.tokens_per_second}
    return [
        Verdict(
            finding.name, gain.quantity, gain.unit, gain.expected, gain.low, gain.high, seen[gain.quantity],
            f"{times.steps:,} steps with prompts and decodes",
        )
        for gain in finding.gains
        if gain.quantity in seen
    ]  # fmt: skip


def _text(costs: Interference) -> str:
    return (
        f"{100 * costs.token_share:.1f} % of the decoded tokens came from steps that also computed prompts. Such a step took "
        f"{costs.mixed_mean / 1e6:.3g} ms, one without prompts and with as many decodes {costs.plain_mean / 1e6:.3g} ms: the "
        f"prompts add {(costs.added or 0) / 1e6:.3g} ms ({costs.low / 1e6:.3g} to {costs.high / 1e6:.3g} at 95 %), and "
        f"{100 * costs.delay_share:.1f} % of the time that requests spent decoding went to the prompts of others "
        f"({costs.matched:,} of {costs.mixed:,} steps with prompts have such a partner)."
    )


def _numbers(costs: Interference) -> dict[str, Any]:
    return {
        "mixed_steps": costs.mixed, "plain_steps": costs.plain, "matched_steps": costs.matched,
        "added_ms": (costs.added or 0) / 1e6, "added_low_ms": costs.low / 1e6, "added_high_ms": costs.high / 1e6,
        "mixed_mean_ms": costs.mixed_mean / 1e6, "plain_mean_ms": costs.plain_mean / 1e6, "ratio": costs.ratio,
        "share_of_decoded_tokens": costs.token_share, "share_of_decode_time": costs.delay_share,
    }  # fmt: skip
