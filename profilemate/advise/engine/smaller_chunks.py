"""What a smaller token budget would make of the steps with prompts: their time is linear in the chunk's tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from profilemate.advise.finding import Gain
from profilemate.advise.weighted import SEED, quantiles

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

FULL_STEP = "95th percentile of the time of a step with prompts"
RATE = "prompt tokens computed per second of steps with prompts"

STEPS_NEEDED = 50
FIT_NEEDED = 0.5
TOGETHER = 0.8
"""From this squared correlation on, what the chunk costs cannot be told from what the decodes cost."""
REACH = 0.1
"""This share of the chunks seen must be as small as those of the smaller budget: nothing is extrapolated."""
RESAMPLES = 199
MOST_STEPS = 5000
TAIL = (0.025, 0.975)
LESS = 0.9


class Fit(NamedTuple):
    """Nanoseconds per token of a chunk, as estimated and as drawn by stretch, and the share of variance explained.

    `drawn` has the shape [resamples], `counts` [resamples, clusters].
    """

    per_token: float
    explained: float
    drawn: Floats
    counts: Floats


class Times(NamedTuple):
    """Of steps with prompts and decodes."""

    steps: int
    p95_ms: float
    tokens_per_second: float


@dataclass(frozen=True)
class Prediction:
    """For a smaller budget."""

    budget: int
    chunk: int
    fit: float
    gains: tuple[Gain, ...]
    numbers: dict[str, Any]


def mixed_times(own: pl.DataFrame) -> Times | None:
    """As they were; None of no step."""
    import polars

    mixed = own.filter(polars.col("is_mixed"))
    spent = int(mixed["period_ns"].sum() or 0)
    if not spent:
        return None
    p95 = quantiles(mixed["period_ns"].to_numpy(), [0.95])[0]
    return Times(mixed.height, p95 / 1e6, 1e9 * int(mixed["context_tokens"].sum() or 0) / spent)


def smaller_budget(own: pl.DataFrame) -> int | str:
    """Half the budget, as far as vLLM and the decodes allow and as chunks of that size were seen; else a sentence why not."""
    import polars

    mixed = own.filter(polars.col("is_mixed"))
    budget = int(own["max_step_tokens"].drop_nulls().tail(1).sum() or 0)
    cap = int(own["max_requests"].drop_nulls().tail(1).sum() or 0)
    if not budget or not cap:
        return "The session does not record max_num_batched_tokens, so no smaller one is advised."
    half = max(budget // 2, cap)
    if half > LESS * budget:
        return (
            f"vLLM wants max_num_batched_tokens ({budget:,}) no smaller than max_num_seqs ({cap:,}): it cannot go down."
        )
    decoded = quantiles((mixed["step_tokens"] - mixed["context_tokens"]).to_numpy(), [0.99])[0]
    chunk = half - decoded
    if chunk < half / 2:
        return "The decodes alone would take most of a smaller budget, so none is advised."
    if float((mixed["context_tokens"].to_numpy() > chunk).mean()) < 0.05:
        return (
            f"The chunks are small already: nearly all would fit a budget of {half:,}, so a smaller one changes little."
        )
    if float((mixed["context_tokens"].to_numpy() <= chunk).mean()) < REACH:
        return (
            f"No chunks of {chunk:,.0f} tokens and fewer were seen, so what smaller ones would take is not predicted."
        )
    return half


def fit(own: pl.DataFrame, clusters: int) -> Fit | str:
    """Least squares of a step's time on the chunk's tokens and the decodes, and drawn again over stretches of the session."""
    import numpy
    import polars

    mixed = own.filter(polars.col("is_mixed"))
    if mixed.height < STEPS_NEEDED:
        return f"There are {mixed.height:,} steps with prompts of {STEPS_NEEDED:,} that a prediction takes."
    time = mixed["period_ns"].to_numpy().astype(float)
    design = numpy.column_stack(
        [numpy.ones(mixed.height), mixed["context_tokens"].to_numpy(), mixed["decodes"].to_numpy()]
    ).astype(float)
    if _together(design[:, 1], design[:, 2]) > TOGETHER:
        return "Long chunks and many decodes go together here, so what either costs is not known and no prediction is made."
    squares = numpy.zeros((clusters, 3, 3))
    products = numpy.zeros((clusters, 3))
    cluster = mixed["cluster"].to_numpy()
    numpy.add.at(squares, cluster, design[:, :, None] * design[:, None, :])
    numpy.add.at(products, cluster, design * time[:, None])
    random = numpy.random.default_rng(SEED)
    counts = random.multinomial(clusters, numpy.full(clusters, 1 / clusters), size=RESAMPLES).astype(float)
    best = _solve(squares.sum(axis=0), products.sum(axis=0))
    drawn = numpy.array([_solve(numpy.tensordot(one, squares, 1), one @ products)[1] for one in counts])
    around = float(((time - time.mean()) ** 2).sum())
    explained = 1 - float(((time - design @ best) ** 2).sum()) / around if around else 0.0
    if explained < FIT_NEEDED or best[1] <= 0:
        return (
            f"The chunk's tokens and the decodes explain only {100 * max(0.0, explained):.0f} % of the variance of these "
            "steps' time: what smaller chunks would take is not predicted."
        )
    return Fit(float(best[1]), explained, drawn, counts)


def _together(one: Floats, other: Floats) -> float:
    import numpy

    return float(numpy.corrcoef(one, other)[0, 1] ** 2) if one.std() > 0 and other.std() > 0 else 0.0


def _solve(squares: Floats, products: Floats) -> Floats:
    import numpy

    return numpy.asarray(numpy.linalg.lstsq(squares, products, rcond=None)[0], dtype=float)


def predict(own: pl.DataFrame, budget: int, fitted: Fit, clusters: int) -> Prediction:
    """Each chunk cut to what the budget leaves beside its decodes, its step shorter by the tokens that it lacks."""
    import numpy
    import polars

    mixed = own.filter(polars.col("is_mixed"))
    mixed = mixed.gather_every(max(1, -(-mixed.height // MOST_STEPS)))
    chunks = mixed["context_tokens"].to_numpy().astype(float)
    room = numpy.maximum(1.0, budget - (mixed["step_tokens"].to_numpy() - chunks))
    pieces = numpy.ceil(chunks / room).astype(int)
    owner = numpy.repeat(numpy.arange(len(chunks)), pieces)
    is_last = numpy.append(owner[1:] != owner[:-1], True)
    tokens = numpy.where(is_last, chunks[owner] - room[owner] * (pieces[owner] - 1), room[owner])
    time, missing = mixed["period_ns"].to_numpy().astype(float)[owner], chunks[owner] - tokens
    cluster = mixed["cluster"].to_numpy()[owner]

    def after(per_token: float, weights: Floats) -> tuple[float, float]:
        shorter = numpy.maximum(time - per_token * missing, 0.0)
        p95 = quantiles(shorter, [0.95], weights)[0] / 1e6
        return p95, 1e9 * float((tokens * weights).sum()) / max(1.0, float((shorter * weights).sum()))

    p95, rate = after(fitted.per_token, numpy.ones(len(time)))
    drawn = numpy.array([after(one, row[cluster]) for one, row in zip(fitted.drawn, fitted.counts, strict=True)])
    (p95_low, rate_low), (p95_high, rate_high) = numpy.quantile(drawn, TAIL, axis=0)
    now = mixed_times(own)
    how = f"by a fit of {mixed.height:,} steps, drawn again over {clusters} stretches of the session, at 95 %"
    gains = (
        Gain(FULL_STEP, "ms", now.p95_ms if now else 0.0, p95, min(p95, p95_low), max(p95, p95_high), how),
        Gain(
            RATE,
            "tokens/s",
            now.tokens_per_second if now else 0.0,
            rate,
            min(rate, rate_low),
            max(rate, rate_high),
            how,
        ),
    )
    numbers = {"budget": budget, "ns_per_prompt_token": fitted.per_token, "variance_explained": fitted.explained}
    return Prediction(budget, int(numpy.median(room)), fitted.explained, gains, numbers)
