"""Prefix caching that is off: for the whole server, or for some requests."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from profilemate.advise.finding import ACT, FINE, LOOK, THIN, Evidence, Finding, Gain
from profilemate.advise.kv.engines import stepping_engines
from profilemate.advise.kv.replay import replay, unlimited_blocks
from profilemate.advise.kv.trace import Trace, read_limits, read_trace
from profilemate.advise.words import percent
from profilemate.frames.packages import load
from profilemate.session.views import EngineSpan, engine_config
from profilemate.trackers.prefix_lookups import events

if TYPE_CHECKING:
    from profilemate.frames.session import Session
    from profilemate.trackers.prefix_lookups.analyze import LookupSummary

TOPIC = "prefix_caching"
FLAG = "--enable-prefix-caching"
WORTH = 0.02
WHY = {
    "server": "prefix caching is off",
    "prompt_logprobs": "they ask for prompt_logprobs, which need every prompt token computed",
    "pooling": "a pooling model needs every token's state",
    "request": "they ask for it (skip_reading_prefix_cache)",
}


def server_finding(session: Session) -> Finding | None:
    """The server runs without; None where it runs with, or does not say."""
    if engine_config(session).get("enable_prefix_caching") is not False:
        return None
    traces = [trace for span in stepping_engines(session) if (trace := _as_if_on(session, span))]
    if not traces:
        return Finding(
            topic=TOPIC,
            name=f"{TOPIC}.server_off",
            level=THIN,
            title="Prefix caching is off",
            says=(
                "Whether prompts share prefixes is not known: without prefix caching vLLM does not hash the blocks of prompts. "
                "Where they share none it costs the hashing of prompts and nothing else."
            ),
            alternatives=(FLAG,),
            to_be_sure=(
                f"Run with {FLAG} and PROFILEMATE_TRACKERS=default,prefix_lookups; some models are run without by vLLM itself."
            ),
        )
    asked = sum(trace.asked_tokens for trace in traces)
    found = sum(replay(trace, {}, trace.limits.usable_blocks).hit_tokens for trace in traces)
    most = sum(replay(trace, {}, unlimited_blocks(trace)).hit_tokens for trace in traces)
    share = found / asked
    return Finding(
        topic=TOPIC,
        name=f"{TOPIC}.server_off",
        level=ACT if share >= WORTH else FINE,
        title=f"Prefix caching is off; it would find {percent(share)} of the prompt tokens",
        says=(
            f"A replay of the session with prefix caching finds {found:,} of {asked:,} prompt tokens with the blocks that "
            f"there are, {most:,} with unlimited ones. Answers that the next prompt begins with come on top."
        ),
        evidence=(Evidence(events.BLOCKS.name, sum(trace.uses for trace in traces), "blocks of prompts"),),
        flags=(FLAG,) if share >= WORTH else (),
        gains=(
            Gain(
                "prompt tokens found in the cache", "share of prompt tokens", 0.0, share, max(0.0, share - WORTH), 1.0,
                "a replay that knows no answers, so it may be more",
            ),
        ),
        to_be_sure=f"Run with {FLAG}.",
        numbers={"asked_tokens": asked, "would_find": found, "unlimited": most},
    )  # fmt: skip


def _as_if_on(session: Session, span: EngineSpan) -> Trace | None:
    """The trace with every request looked up; None where vLLM hashed no blocks."""
    limits = read_limits(session, span)
    trace = read_trace(session, span, limits) if limits else None
    if trace is None or not trace.uses:
        return None
    return replace(trace, asked=tuple(replace(one, is_looked_up=True) for one in trace.asked))


def request_findings(session: Session, summary: LookupSummary) -> list[Finding]:
    """Requests for which no look-up was made."""
    tokens, asked = summary.first.tokens["off_tokens"], summary.first.tokens["asked_tokens"]
    if not tokens:
        return []
    polars = load("polars")
    rows = session.scan(events.LOOKUPS.name).filter(polars.col("off_tokens") > 0)
    counted = rows.group_by("cache_off").agg(polars.len().alias("requests"), polars.col("off_tokens").sum())
    reasons = {why: (requests, off) for why, requests, off in counted.collect(engine="streaming").rows()}
    parts = "; ".join(
        f"{requests:,} requests ({off:,} tokens) since {WHY.get(why, why)}" for why, (requests, off) in reasons.items()
    )
    return [
        Finding(
            topic=TOPIC,
            name=f"{TOPIC}.skipped",
            level=LOOK if tokens >= WORTH * asked else FINE,
            title=f"{percent(tokens / asked)} of the prompt tokens were not looked up",
            says=f"vLLM made no look-up for {parts}. Their blocks are cached for others all the same.",
            evidence=(Evidence(events.LOOKUPS.name, sum(n for n, _ in reasons.values()), "cache_off is not empty"),),
            numbers={"off_tokens": tokens, "asked_tokens": asked, "reasons": {k: list(v) for k, v in reasons.items()}},
        )
    ]
