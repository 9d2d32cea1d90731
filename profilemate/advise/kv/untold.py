"""What can be said of other cache sizes where nothing predicts them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from profilemate.advise.finding import THIN, Evidence, Finding
from profilemate.advise.weighted import quantiles
from profilemate.advise.words import percent
from profilemate.frames.packages import load

if TYPE_CHECKING:
    from profilemate.advise.kv.prediction import Prediction
    from profilemate.frames.session import Session

TOPIC = "kv_cache_size"
TURN_ON = "Record with PROFILEMATE_TRACKERS=default,prefix_lookups: the blocks of every prompt, by keyed hashes."


def unpredicted(session: Session, prediction: Prediction) -> Finding:
    """What the other streams allow to say."""
    recorded = [engine.recorded for engine in prediction.engines]
    asked = sum(one.query_tokens for one in recorded)
    found = sum(one.hit_tokens for one in recorded)
    evicted = sum(one.evicted for one in recorded)
    counted = f" vLLM found {percent(found / asked)} of the looked-up tokens." if asked else ""
    return Finding(
        topic=TOPIC,
        name=f"{TOPIC}.hit_rate",
        level=THIN,
        title="What another cache size would find cannot be told",
        says=f"{' '.join(prediction.why_not)}{counted} {_evictions(session, evicted)}".strip(),
        evidence=(Evidence("kv_evictions", evicted, "evictions, in the totals of engine_steps"),),
        to_be_sure=TURN_ON if any("prefix_lookups" in why for why in prediction.why_not) else "",
        numbers={
            "why_not": list(prediction.why_not),
            "evictions": evicted,
            "hit_rate": found / asked if asked else None,
        },
    )


def _evictions(session: Session, evicted: int) -> str:
    if not evicted:
        return "Nothing was evicted, so that more blocks would find nothing more."
    polars = load("polars")
    ages = session.scan("kv_evictions").select(
        (polars.col("time_ns") - polars.col("used_ns")).alias("idle_ns"),
    )
    idle = ages.drop_nulls().collect(engine="streaming")["idle_ns"].to_numpy() / 1e9
    told = quantiles(idle, [0.1, 0.5, 0.9])
    if not told:
        return f"{evicted:,} blocks were evicted."
    return (
        f"{evicted:,} blocks were evicted, half of them within {told[1]:.3g} s of their last use (10 % within {told[0]:.3g} s, "
        f"90 % within {told[2]:.3g} s): with N times the blocks a prefix is kept about N times as long."
    )
