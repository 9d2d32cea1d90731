"""What prompts cost those who decode, and what a smaller token budget would make of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from profilemate.advise.engine.matched_steps import CLUSTERS, COLUMNS, Interference, measure, timed_steps
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

if TYPE_CHECKING:
    import polars as pl

    from profilemate.frames.session import Session

TOPIC = "scheduling"
NAME = "scheduling.interference"
ABOUT = "what prompts cost those who decode"

MIXED_NEEDED, PLAIN_NEEDED, MATCHED = 50, 50, 0.5
UNLIKE = 1.1
FELT_TOKENS, FELT_RATIO = 0.05, 2.0
"""Worth a look from this share of decoded tokens in steps with prompts on, and from so many times a plain step on."""


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

    frame = steps(after, *COLUMNS)
    times = mixed_times(timed_steps(frame))
    if times is None:
        return []
    says = f"{times.steps:,} steps with prompts and decodes{_control(finding, measure(frame))}"
    seen = {FULL_STEP: times.p95_ms, RATE: times.tokens_per_second}
    return [
        Verdict(
            finding.name, gain.quantity, gain.unit, gain.expected, gain.low, gain.high, seen[gain.quantity],
            says,
        )
        for gain in finding.gains
        if gain.quantity in seen
    ]  # fmt: skip


def _control(finding: Finding, costs: Interference | None) -> str:
    """Steps without prompts, on which the budget has no influence: whether the machine was the same."""
    before = float(finding.numbers.get("plain_mean_ms") or 0)
    if costs is None or not costs.plain_mean or not before:
        return ""
    now = costs.plain_mean / 1e6
    told = f"; decode steps without prompts, which the flag does not change, took {now:.3g} ms there and {before:.3g} ms before"
    return told + (": the machine was not as quick or the load not the same" if now > UNLIKE * before else "")


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
