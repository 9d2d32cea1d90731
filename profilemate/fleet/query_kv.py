"""Queries of the KV cache: how full it was, what the prefix cache gave, preemptions."""

from __future__ import annotations

from typing import Any

from profilemate.fleet.packages import load
from profilemate.fleet.query_parts import (
    ENGINE,
    GROUP,
    Tables,
    kv_steps,
    last_rows,
    ordered,
    owned,
    percent,
    with_lost,
)

PERCENTILES = (50, 90, 95, 99)
STEPS = "engine_steps"
LOOKED_UP = ("query_requests", "query_tokens", "hit_tokens", "preempted_query_tokens", "preempted_hit_tokens")
REASONS = ("no_blocks", "prefix_cache_reset", "other")


def usage(tables: Tables) -> Any:
    """Blocks in use of those there are, in percent, weighted by time: a state lasts until the engine's next step.

    Percentile p is the lowest usage at or below which the engines were for p percent of the time (of whole microseconds).
    It is found by counting and not interpolated, so that every engine gives the same. `peak_pct` is of any moment and exact
    also where old rows were removed.
    """
    ibis = load("ibis")
    steps = kv_steps(tables, "in_use", "total_blocks", "peak")
    steps = steps.filter(steps.total_blocks > 0)
    in_order = ibis.window(group_by=list(ENGINE), order_by=["time_ns", "step"])
    steps = steps.mutate(
        used=steps.in_use.cast("float64") / steps.total_blocks.cast("float64"),
        held_us=((steps.time_ns.lead().over(in_order) - steps.time_ns) / 1000).floor().cast("int64").fill_null(0),
    )
    levels = steps.group_by(*GROUP, "used").agg(held_us=steps.held_us.sum())
    found = _percentiles(levels).inner_join(_peaks(steps), list(GROUP))
    columns = ("sessions", "engines", "seconds", "mean_pct", *(f"p{p}_pct" for p in PERCENTILES), "peak_pct")
    return ordered(with_lost(tables, found.select(*GROUP, *columns), STEPS))


def _percentiles(levels: Any) -> Any:
    ibis = load("ibis")
    whole = ibis.window(group_by=list(GROUP))
    so_far = ibis.window(group_by=list(GROUP), order_by="used", preceding=(None, 0))
    levels = levels.mutate(
        below_us=levels.held_us.sum().over(so_far), all_us=levels.held_us.sum().over(whole)
    )  # fmt: skip
    timed = levels.all_us > 0
    reached = {
        f"p{p}_pct": 100.0 * levels.used.min(where=timed & (levels.below_us * 100 >= levels.all_us * p))
        for p in PERCENTILES
    }
    weighted = (levels.used * levels.held_us).sum() / levels.held_us.sum().nullif(0)
    return levels.group_by(*GROUP).agg(seconds=levels.held_us.sum() / 1e6, mean_pct=100.0 * weighted, **reached)


def _peaks(steps: Any) -> Any:
    by_engine = steps.group_by(*GROUP, *ENGINE).agg(
        peak=(steps.peak.cast("float64") / steps.total_blocks.cast("float64")).max()
    )
    return by_engine.group_by(*GROUP).agg(
        sessions=by_engine.session.nunique(), engines=by_engine.count(), peak_pct=100.0 * by_engine.peak.max()
    )


def hit_rates(tables: Tables) -> Any:
    """Tokens looked up and found, as vLLM's own metric counts them; exact also where old rows were removed."""
    last = last_rows(kv_steps(tables, *LOOKED_UP))
    found = last.group_by(*GROUP).agg(
        sessions=last.session.nunique(), engines=last.count(), **{name: last[name].sum() for name in LOOKED_UP}
    )
    found = found.select(
        *GROUP,
        "sessions",
        "engines",
        hit_rate_pct=percent(found.hit_tokens, found.query_tokens),
        hit_tokens=found.hit_tokens,
        query_tokens=found.query_tokens,
        query_requests=found.query_requests,
        preempted_hit_rate_pct=percent(found.preempted_hit_tokens, found.preempted_query_tokens),
        preempted_hit_tokens=found.preempted_hit_tokens,
        preempted_query_tokens=found.preempted_query_tokens,
    )
    return ordered(found)


def preemptions(tables: Tables) -> Any:
    """Preemptions as the engines count them (exact), and what their rows tell: why, and what was lost.

    An engine whose vLLM does not count them is among `not_told`. `rows` may be fewer where rows were removed.
    """
    last = last_rows(kv_steps(tables, "preemptions", "failed_allocations"))
    counted = last.group_by(*GROUP).agg(
        sessions=last.session.nunique(),
        engines=last.count(),
        preemptions=last.preemptions.sum(),
        not_told=last.preemptions.isnull().sum(),
        steps=last.step.sum(),
        failed_allocations=last.failed_allocations.sum(),
    )
    found = counted.left_join(_rows_of_preemptions(tables), list(GROUP))
    own = ("lost_tokens", "recomputed_tokens", "rows", *REASONS)
    told = found.select(*(found[name] for name in counted.columns), **{name: found[name].fill_null(0) for name in own})
    return ordered(with_lost(tables, told, "preemptions"))


def _rows_of_preemptions(tables: Tables) -> Any:
    stream = tables["preemptions"]
    rows = owned(
        tables, stream.select("session", "process", "event", "reason", "lost_tokens", "recomputed_tokens")
    )  # fmt: skip
    began = rows.event == "preempted"
    return rows.group_by(*GROUP).agg(
        rows=began.sum(),
        **{reason: (began & (rows.reason == reason)).sum() for reason in REASONS},
        lost_tokens=rows.lost_tokens.sum(where=began),
        recomputed_tokens=rows.recomputed_tokens.sum(),
    )
