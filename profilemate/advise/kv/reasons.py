"""Missed prompt tokens by reason: what was evicted before it came again, and what resets dropped."""

from __future__ import annotations

from typing import TYPE_CHECKING

from profilemate.advise.enough import absent
from profilemate.advise.finding import FINE, LOOK, Evidence, Finding, Gain
from profilemate.advise.kv.prediction import NOW, TOLERANCE, Prediction
from profilemate.advise.kv.untold import TURN_ON
from profilemate.advise.words import percent
from profilemate.trackers.prefix_lookups import events
from profilemate.trackers.prefix_lookups.view import WORDS

if TYPE_CHECKING:
    from profilemate.frames.session import Session
    from profilemate.trackers.prefix_lookups.analyze import LookupSummary

TOPIC = "prefix_caching"
MATTERS = 0.01
"""Of the looked-up tokens; less is told and not looked at."""
LARGER = (1.5, 2.0)
TABLE = events.LOOKUPS.name


def unrecorded(session: Session) -> Finding:
    """The tracker was off, or nothing was admitted."""
    is_on = any(session.has_rows(process, events.LOOKUPS) for process in session.with_role("EngineCore"))
    why = "No request was admitted." if is_on else f"The tracker prefix_lookups was off. {TURN_ON}"
    return absent(TOPIC, f"{TOPIC}.reasons", "why prompt tokens were not found in the prefix cache", why)


def overview(summary: LookupSummary) -> Finding:
    """Where the looked-up tokens went."""
    tokens, asked = summary.first.tokens, summary.first.tokens["asked_tokens"]
    found = tokens["hit_tokens"] / asked if asked else 0.0
    named = sorted(((tokens[name], words) for name, words in WORDS.items() if tokens[name]), reverse=True)
    parts = ", ".join(f"{words} {percent(count / asked)}" for count, words in named if asked)
    says = f"Of {asked:,} prompt tokens {percent(found)} were found. Not found: {parts or 'none'}."
    if summary.sampled:
        says += f" {summary.sampled:,} look-ups missed so many blocks that only some were looked at: there it is an estimate."
    if summary.blind:
        says += f" Blocks that were there may be told as never seen: {', '.join(summary.blind)} did not always work."
    return Finding(
        topic=TOPIC,
        name=f"{TOPIC}.reasons",
        level=FINE,
        title=f"{percent(found)} of the prompt tokens came from the prefix cache",
        says=says,
        evidence=(Evidence(TABLE, summary.first.lookups, "requests that were admitted for the first time"),),
        numbers={"asked_tokens": asked, "hit_tokens": tokens["hit_tokens"], "missed": {n: tokens[n] for n in WORDS}},
    )


def evicted(summary: LookupSummary, prediction: Prediction) -> list[Finding]:
    """Prefixes that were there once; how long before, and how many of them a larger cache would keep."""
    tokens, asked = summary.first.tokens["evicted_tokens"], summary.first.tokens["asked_tokens"]
    if not tokens:
        return []
    ages = {name: summary.age_seconds(share) for name, share in (("p10", 0.1), ("p50", 0.5), ("p90", 0.9))}
    says = f"{tokens:,} tokens, {percent(tokens / asked)} of those looked up, had been in the cache and were evicted before"
    if ages["p50"] is not None:
        says += f": half of them at most {ages['p50']:.3g} s before the look-up, 90 % at most {ages['p90']:.3g} s"
    says += "."
    gains: tuple[Gain, ...] = ()
    if prediction.predicted:
        kept = {factor: _kept(prediction, factor) for factor in LARGER if factor in prediction.factors}
        says += " " + ", ".join(
            f"{factor:g} times the blocks would find {more:,} tokens more" for factor, more in kept.items()
        )
        says += " (as in kv_cache_size.hit_rate, which has the flags)."
        gains = tuple(_gain(prediction, factor, more) for factor, more in kept.items())
    elif prediction.why_not:
        says += f" How many a larger cache would keep cannot be told: {' '.join(prediction.why_not)}"
    return [
        Finding(
            topic=TOPIC,
            name=f"{TOPIC}.evicted",
            level=LOOK if tokens >= MATTERS * asked else FINE,
            title=f"{percent(tokens / asked)} of the prompt tokens were evicted before they came again",
            says=says,
            evidence=(Evidence(TABLE, summary.first.lookups, "evicted_tokens, median_ns"),),
            gains=gains,
            numbers={"evicted_tokens": tokens, "asked_tokens": asked, "seconds_before": ages},
        )
    ]


def _kept(prediction: Prediction, factor: float) -> int:
    return prediction.total(factor, "hit_tokens") - prediction.total(NOW, "hit_tokens")


def _gain(prediction: Prediction, factor: float, more: int) -> Gain:
    now = prediction.total(NOW, "hit_tokens")
    off = TOLERANCE * prediction.total(NOW, "asked_tokens")
    how = "two points of hit rate, as far as a replay may be off"
    return Gain(
        f"tokens found, {factor:g} times the blocks", "tokens", now, now + more, now + more - off, now + more + off, how
    )


def resets(summary: LookupSummary) -> list[Finding]:
    """Tokens that a reset of the prefix cache dropped."""
    tokens, asked = summary.first.tokens["reset_tokens"], summary.first.tokens["asked_tokens"]
    if not tokens:
        return []
    return [
        Finding(
            topic=TOPIC,
            name=f"{TOPIC}.resets",
            level=LOOK if tokens >= MATTERS * asked else FINE,
            title=f"Resets of the prefix cache cost {percent(tokens / asked)} of the prompt tokens",
            says=(
                f"{tokens:,} tokens had been in the cache and were dropped by a reset. Somebody asks for it: "
                "POST /reset_prefix_cache, LLM.reset_prefix_cache(), or a framework that changes the weights and must. Where "
                "the weights stay the same a reset is not needed."
            ),
            evidence=(Evidence(TABLE, summary.first.lookups, "reset_tokens"),),
            numbers={"reset_tokens": tokens, "asked_tokens": asked},
        )
    ]
