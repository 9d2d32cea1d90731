"""How much of the KV cache was in use, by time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from profilemate.advise.enough import absent, lost_rows
from profilemate.advise.finding import FINE, LOOK, Evidence, Finding
from profilemate.advise.steps import TABLE, kv_steps
from profilemate.advise.weighted import mean, quantiles
from profilemate.advise.words import percent
from profilemate.frames.packages import load

if TYPE_CHECKING:
    from profilemate.frames.session import Session

TOPIC = "kv_cache_size"
NAME = f"{TOPIC}.use"
SHARES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}
FULL = 0.9
"""From this share of the blocks on the cache is said to be nearly full."""


def nothing() -> Finding:
    """No engine wrote a row."""
    return absent(TOPIC, NAME, "the KV cache", "No engine step was recorded.")


def finding(session: Session) -> Finding:
    """Peak and percentiles of the blocks that requests held, by how long each step lasted; times without requests left out."""
    polars = load("polars")
    frame = kv_steps(session)
    if not frame.height:
        return absent(TOPIC, NAME, "the use of the KV cache", "The tracker kv_cache was off.")
    busy = frame.filter((polars.col("busy_ns") > 0) & (polars.col("total_blocks") > 0))
    share = (busy["step_peak"] / busy["total_blocks"]).to_numpy()
    seconds = busy["busy_ns"].to_numpy() / 1e9
    peak = float((frame["step_peak"] / frame["total_blocks"]).max() or 0.0)  # type: ignore[arg-type]
    told = dict(zip(SHARES, quantiles(share, list(SHARES.values()), seconds), strict=False)) or dict.fromkeys(
        SHARES, 0.0
    )
    average = mean(share, seconds) or 0.0
    full = float(seconds[share >= FULL].sum() / seconds.sum()) if seconds.sum() else 0.0
    blocks = sorted({int(one) for one in frame["total_blocks"].unique().to_list() if one})
    return Finding(
        topic=TOPIC,
        name=NAME,
        level=LOOK if full > 0.5 else FINE,
        title=f"At most {percent(peak)} of the KV cache was in use at once",
        says=(
            f"Of {_list(blocks)} usable blocks of an engine, requests held {percent(average)} on average while an "
            f"engine had any, "
            f"{percent(told['p50'])} or less for half of that time, {percent(told['p95'])} or less for 95 % of it; the "
            f"most at any "
            f"moment was {percent(peak)}. Over {percent(FULL, 0)} were held for {percent(full, 0)} of the time. "
            f"What no request holds is not "
            f"idle: it is the prefix cache.{lost_rows(session, TABLE)}"
        ),
        evidence=(Evidence(TABLE, frame.height, "step_peak and total_blocks of every step"),),
        numbers={
            "usable_blocks": blocks, "peak_share": peak, "mean_share": average, **{f"{k}_share": v for k, v in told.items()},
            "nearly_full_share_of_time": full, "seconds_in_use": float(seconds.sum()),
            "seconds": float((frame["busy_ns"] + frame["idle_ns"]).sum()) / 1e9,
        },
    )  # fmt: skip


def _list(blocks: list[int]) -> str:
    return " and ".join(f"{one:,}" for one in blocks) or "an unknown number of"
