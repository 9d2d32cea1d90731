"""The ranges that users know for the KV cache, as such, with what they leave out; decisions are made by other topics.

60 to 80 % of use good, under 40 % over-provisioned, over 90 % under-provisioned; evicted blocks that lived over 10 s and
were idle under 5 s. docs/KV_CACHE_GUIDE.md, section 10, has the limits of each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from profilemate.advise import block_ages
from profilemate.advise.enough import Need, absent, lost_rows, thin, unmet
from profilemate.advise.finding import FINE, LOOK, Evidence, Finding
from profilemate.advise.steps import ENGINE, TABLE, kv_steps
from profilemate.advise.weighted import mean, quantiles

if TYPE_CHECKING:
    import polars as pl

    from profilemate.frames.session import Session

TOPIC = "healthy_ranges"
NAME = "healthy_ranges.kv_use"
ABOUT = "the healthy ranges of KV cache use"

LOW, GOOD, GOOD_END, HIGH = 0.4, 0.6, 0.8, 0.9
STEPS_NEEDED, SECONDS_NEEDED = 500, 30
SUSTAINED = 0.95
COLUMNS = ("cached_free", "preemptions", "failed_allocations", "evicted", "waiting", "scheduled_tokens")


@dataclass(frozen=True)
class Use:
    """Shares of the pool's blocks, by time; `sustained` is the 95th percentile, `peak` exact. Counts are of the session.

    `cached` is the mean share of blocks that are free and still cached; `waiting` the mean number of waiting requests, None
    if the step tracker was off.
    """

    rows: int
    seconds: float
    blocks: int
    mean: float
    median: float
    sustained: float
    peak: float
    cached: float
    preemptions: int
    failed: int
    evicted: int
    waiting: float | None

    @property
    def range_name(self) -> str:
        """Which of the known ranges the sustained use lies in."""
        if self.sustained < LOW:
            return "over-provisioned"
        if self.sustained > HIGH:
            return "under-provisioned"
        return "good" if GOOD <= self.sustained <= GOOD_END else "between the ranges"

    @property
    def is_short(self) -> bool:
        """Whether anything says that blocks were missing."""
        return self.preemptions > 0 or self.failed > 0


def advise(session: Session) -> list[Finding]:
    """One finding about use, one about lifetime and idle time of evicted blocks."""
    frame = kv_steps(session, *COLUMNS)
    if not frame.height:
        return [absent(TOPIC, NAME, ABOUT, "No state of the KV cache was recorded; the tracker kv_cache has it.")]
    return [_about_use(session, read_use(frame)), *block_ages.advise(session)]


def read_use(frame: pl.DataFrame) -> Use:
    """By time, from the rows of `kv_steps`."""
    import numpy
    import polars

    rows = frame.filter(polars.col("total_blocks") > 0)
    total = rows["total_blocks"].to_numpy().astype(float)
    peak = rows["step_peak"].fill_null(0).to_numpy() / total
    share = numpy.concatenate([peak, rows["before"].to_numpy() / total])
    held = numpy.concatenate([rows["busy_ns"].to_numpy(), rows["idle_ns"].to_numpy()]).astype(float)
    each = (rows["busy_ns"] + rows["idle_ns"]).to_numpy().astype(float)
    found = quantiles(share, [0.5, SUSTAINED], held) or [0.0, 0.0]
    last = frame.group_by(ENGINE).agg(polars.col(name).drop_nulls().last() for name in (*COUNTED, "total_blocks"))
    waiting = rows["waiting"]
    return Use(
        rows=frame.height, seconds=float(held.sum()) / 1e9, blocks=int(last["total_blocks"].sum() or 0),
        mean=mean(share, held) or 0.0, median=found[0], sustained=found[1], peak=float(peak.max(initial=0.0)),
        cached=mean(rows["cached_free"].fill_null(0).to_numpy() / total, each) or 0.0,
        preemptions=int(last["preemptions"].sum() or 0), failed=int(last["failed_allocations"].sum() or 0),
        evicted=int(last["evicted"].sum() or 0),
        waiting=mean(waiting.fill_null(0).to_numpy().astype(float), each) if waiting.count() else None,
    )  # fmt: skip


COUNTED = ("preemptions", "failed_allocations", "evicted")


def _about_use(session: Session, use: Use) -> Finding:
    evidence = (Evidence(TABLE, use.rows, "most blocks within each step, those at its end while idle"),)
    says = f"{_text(use)}{lost_rows(session, TABLE)}"
    needs = [
        Need("engine steps", use.rows, STEPS_NEEDED),
        Need("seconds from the first step to the last", int(use.seconds), SECONDS_NEEDED),
    ]
    if unmet(needs):
        return thin(TOPIC, NAME, ABOUT, needs, says, evidence)
    level, meaning = _meaning(use)
    return Finding(
        TOPIC, NAME, level,
        f"KV cache use: {100 * use.sustained:.0f} % at the 95th percentile, {use.range_name} by the known ranges",
        f"{says} The known ranges: {100 * GOOD:.0f} to {100 * GOOD_END:.0f} % good, under {100 * LOW:.0f} % over-provisioned, "
        f"over {100 * HIGH:.0f} % under-provisioned. They are not vLLM's, and are about a sustained peak: {meaning}",
        evidence,
        to_be_sure=(
            "Use counts blocks that requests hold. Free blocks are no waste where they are cached: the rest is the prefix "
            "cache. A short or idle recording shows less than the server's busy hours."
        ),
        numbers={
            "range": use.range_name, "sustained": use.sustained, "mean": use.mean, "median": use.median, "peak": use.peak,
            "cached_free": use.cached, "seconds": use.seconds, "blocks": use.blocks, "preemptions": use.preemptions,
            "failed_allocations": use.failed, "evicted": use.evicted, "waiting": use.waiting,
        },
    )  # fmt: skip


def _meaning(use: Use) -> tuple[str, str]:
    """What else the session says; the range alone decides nothing."""
    if use.sustained > HIGH:
        if use.is_short:
            return LOOK, (
                f"here {use.preemptions:,} preemptions and {use.failed:,} allocations that found no room agree that blocks "
                "are missing (kv_cache_size has what more would bring)."
            )
        return FINE, "here no request was preempted and every allocation found room, so a full pool does no harm."
    if use.sustained < LOW:
        if use.peak > HIGH:
            return FINE, f"here the peak was {100 * use.peak:.0f} %, so the blocks are needed at times."
        if use.evicted:
            return FINE, (
                f"here {use.evicted:,} cached blocks were evicted all the same, so the free blocks do work as prefix cache "
                "(kv_cache_size has the hit rate with fewer)."
            )
        return LOOK, (
            "here nothing was evicted either, so blocks could be given up, or more requests be run at once if any wait "
            "(scheduling.limits says for what)."
        )
    if use.is_short:
        return LOOK, (
            f"here {use.preemptions:,} preemptions and {use.failed:,} allocations that found no room say that blocks were "
            "missing at times although most of the time they were not."
        )
    return FINE, "here nothing contradicts them."


def _text(use: Use) -> str:
    waiting = "" if use.waiting is None else f" {use.waiting:.1f} requests waited on average."
    return (
        f"Of {use.blocks:,} blocks requests held {100 * use.mean:.1f} % on average over {use.seconds:,.0f} s (by time), "
        f"{100 * use.median:.1f} % in the median, {100 * use.sustained:.1f} % at the 95th percentile and "
        f"{100 * use.peak:.1f} % at most; {100 * use.cached:.1f} % were free and cached on average.{waiting}"
    )
