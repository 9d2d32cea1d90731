"""How long evicted blocks had lived, and how long they had been idle, beside the ranges that users know for these."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from profilemate.advise.enough import Need, lost_rows, thin, unmet
from profilemate.advise.finding import FINE, LOOK, Evidence, Finding
from profilemate.advise.weighted import quantiles
from profilemate.trackers.kv_cache import events
from profilemate.trackers.requests import events as request_events

if TYPE_CHECKING:
    from profilemate.frames.session import Session

TOPIC = "healthy_ranges"
NAME = "healthy_ranges.block_ages"
ABOUT = "lifetime and idle time of evicted blocks"

LIVED_SECONDS, IDLE_SECONDS = 10.0, 5.0
EVICTIONS_NEEDED = 100
REUSED = 0.8
"""A block idle for less than this share of its life was hit in between."""


@dataclass(frozen=True)
class Ages:
    """Of evicted blocks whose birth was seen. Seconds; `request` is the median of the requests' time, None if not known."""

    evictions: int
    timed: int
    invalidated: int
    lifetime: float
    idle: float
    reused: float
    request: float | None


def advise(session: Session) -> list[Finding]:
    """One finding."""
    ages = read_ages(session)
    evidence = (Evidence(events.EVICTIONS.name, ages.timed, "evicted blocks whose allocation was seen"),)
    needs = [Need("evictions of blocks whose allocation was seen", ages.timed, EVICTIONS_NEEDED)]
    if not ages.evictions:
        says = "No cached block was evicted: the ranges for lifetime and idle time say nothing about such a session."
        return [Finding(TOPIC, NAME, FINE, "No block was evicted", says, numbers={"evictions": 0})]
    if unmet(needs):
        return [thin(TOPIC, NAME, ABOUT, needs, "", evidence)]
    lived, rested = ages.lifetime > LIVED_SECONDS, ages.idle < IDLE_SECONDS
    level, meaning = _meaning(ages, lived, rested)
    return [
        Finding(
            TOPIC, NAME, level,
            f"Evicted blocks: lived {ages.lifetime:.3g} s ({'in' if lived else 'outside'} the known range), idle for "
            f"{ages.idle:.3g} s ({'in' if rested else 'outside'})",
            f"The median of {ages.timed:,} evicted blocks had lived {ages.lifetime:.3g} s and been idle for {ages.idle:.3g} s; "
            f"{100 * ages.reused:.0f} % of them had been hit after their allocation.{_request_text(ages)}"
            f"{lost_rows(session, events.EVICTIONS.name)} The known ranges: lifetime over {LIVED_SECONDS:.0f} s, idle under "
            f"{IDLE_SECONDS:.0f} s. {meaning}",
            evidence,
            to_be_sure=(
                "A lifetime holds the time in use, so long answers give long lifetimes without any reuse; and blocks that "
                "nobody shares are idle for as long as they live once free, so both ranges at once fit shared blocks only."
            ),
            numbers=_numbers(ages),
        )
    ]  # fmt: skip


def read_ages(session: Session) -> Ages:
    """From the rows of evictions; blocks dropped by invalidation count as evictions and not as ages."""
    import polars

    rows = session.scan(events.EVICTIONS.name).select("time_ns", "allocated_ns", "used_ns", "cause")
    frame = rows.collect(engine="streaming")
    timed = frame.filter((polars.col("cause") == "allocation") & polars.col("allocated_ns").is_not_null())
    used = polars.col("used_ns").fill_null(polars.col("allocated_ns"))
    lived = timed.select((polars.col("time_ns") - polars.col("allocated_ns")) / 1e9).to_series().to_numpy()
    idle = timed.select((polars.col("time_ns") - used) / 1e9).to_series().to_numpy()
    reused = float((idle < REUSED * lived).mean()) if timed.height else 0.0
    medians = [quantiles(values, [0.5])[0] if timed.height else 0.0 for values in (lived, idle)]
    return Ages(
        frame.height, timed.height, frame.filter(polars.col("cause") == "invalidation").height, medians[0], medians[1],
        reused, _request_seconds(session),
    )  # fmt: skip


def _request_seconds(session: Session) -> float | None:
    import polars

    rows = session.scan(request_events.ENDS.name).select(polars.col("e2e_ns").median()).collect(engine="streaming")
    median = rows.item() if rows.height else None
    return None if median is None else float(median) / 1e9


def _meaning(ages: Ages, lived: bool, rested: bool) -> tuple[str, str]:
    if lived and rested:
        return FINE, "Blocks were kept long and hit until shortly before they went."
    if not rested:
        return FINE, "Blocks were cold for long before they went: the pool is roomy, whatever the range says."
    if ages.request is not None and ages.lifetime > ages.request:
        return FINE, (
            "They lived longer than a request takes, so a next one could still find them; whether any came is told by "
            "the prefix cache's hit rate (kv_cache_size, prefix_caching)."
        )
    return LOOK, (
        "Short lives and short idle times together mean that blocks go before they can be used again; whether that "
        "costs anything depends on whether their content comes back (kv_cache_size, prefix_caching)."
    )


def _request_text(ages: Ages) -> str:
    return "" if ages.request is None else f" A request took {ages.request:.3g} s in the median."


def _numbers(ages: Ages) -> dict[str, Any]:
    return {
        "evictions": ages.evictions, "timed": ages.timed, "invalidated": ages.invalidated,
        "median_lifetime_seconds": ages.lifetime, "median_idle_seconds": ages.idle, "share_reused": ages.reused,
        "median_request_seconds": ages.request,
    }  # fmt: skip
