"""Figures of the engine steps over time: what they held, what bound them, who waited, where the time went."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import altair as alt
import polars as pl

from profilemate.figures import style
from profilemate.figures.bars import bands, span_tooltip, stacked_bars, to_the_end
from profilemate.figures.source import Drawn, engine_rows, lost_note, notes, nothing, several_engines
from profilemate.figures.style import Kind, kinds, present
from profilemate.figures.thin import SECOND, Bins, bins, ranges, spread, sums
from profilemate.figures.words import duration, share
from profilemate.trackers.engine_steps import events

if TYPE_CHECKING:
    from profilemate.frames.session import Session

STEPS = events.STEPS
PHASES = kinds(
    ("prefill", "vermilion"), ("mixed", "orange"), ("decode", "blue"), ("phase not known", "purple"), ("no tokens", "grey"),
    ("no requests", "pale"),
)  # fmt: skip
LIMITS = {
    events.TOKEN_BUDGET: "token budget",
    events.SEQUENCE_CAP: "sequence cap",
    events.KV_SPACE: "KV space",
    events.THROTTLED: "throttled",
    events.OTHER: "other",
    events.NO_WORK: "nothing: no request was left out",
}
LIMIT_KINDS = kinds(*zip(LIMITS.values(), ("orange", "sky", "vermilion", "purple", "grey", "pale"), strict=True))
PARTS = {
    "schedule_ns": "scheduling",
    "update_ns": "update",
    "between_ns": "between steps",
    "blocked_ns": "launching or waiting for the model",
    "no_requests_ns": "no requests",
}
PART_KINDS = kinds(*zip(PARTS.values(), ("vermilion", "orange", "green", "blue", "pale"), strict=True))
QUEUES = {"running": "running", "waiting": "waiting", "skipped": "passed over"}
QUEUE_KINDS = kinds(("running", "blue"), ("waiting", "vermilion"), ("passed over", "green"))
IN_ORDER = ("no_requests_ns", "between_ns", "schedule_ns", "blocked_ns", "update_ns")
"""The parts of the time since the row before, in the order in which they come to pass."""


def phase() -> pl.Expr:
    """What a step held, as `Step.phase` of the engine step tracker says."""
    return (
        pl.when(pl.col("step_tokens") == 0)
        .then(pl.lit("no tokens"))
        .when(pl.col("context_requests").is_null() | pl.col("step_requests").is_null())
        .then(pl.lit("phase not known"))
        .when(pl.col("context_requests") == 0)
        .then(pl.lit("decode"))
        .when(pl.col("context_requests") == pl.col("step_requests"))
        .then(pl.lit("prefill"))
        .otherwise(pl.lit("mixed"))
    )


def grid_of(session: Session, rows: pl.LazyFrame) -> Bins:
    """Bins over the steps of a session, from the beginning of the first."""
    found = rows.select((pl.col("at_ns") - _whole()).min().alias("first"), pl.col("at_ns").max().alias("last")).collect(
        engine="streaming"
    )
    if found["first"][0] is None:
        raise nothing(session, "no engine step was recorded", STEPS)
    return bins(max(found["first"][0], 0), found["last"][0])


def _whole() -> pl.Expr:
    """The engine thread's time since the row before."""
    return pl.sum_horizontal(*(pl.col(name).fill_null(0) for name in IN_ORDER))


def _parts(rows: pl.LazyFrame, *kept: str) -> pl.LazyFrame:
    """Intervals of the parts of each step, one after the other up to the step's end. `part` names it."""
    begin = pl.col("at_ns") - _whole()
    pieces = []
    for name in IN_ORDER:
        length = pl.col(name).fill_null(0)
        pieces.append(
            rows.select(
                "engine", *kept, pl.lit(name).alias("part"), begin.alias("begin_ns"), (begin + length).alias("end_ns")
            )
        )
        begin = begin + length
    return pl.concat(pieces)


def _time_bars(session: Session, shares: pl.DataFrame, grid: Bins, among: tuple[Kind, ...], what: str) -> Any:
    """Stacked shares of the engines' time; `shares` has kind, bin and ns."""
    engines = len({*shares["engine"]})
    found = shares.group_by("kind", "bin").agg(pl.col("ns").sum()).with_columns(
        (100 * pl.col("ns") / (grid.width_ns * engines)).round(3).alias("share"),
        (pl.col("ns") / SECOND).round(6).alias("seconds"),
    ).drop("ns")  # fmt: skip
    tooltip = [
        *span_tooltip(grid), alt.Tooltip("kind:N", title=what), *style.tips("share|share (%)|.3~g", "seconds|seconds|,.4~g"),
    ]  # fmt: skip
    y = alt.Y("share:Q", title="share of the engine's time (%)", scale=alt.Scale(domain=[0, 100], clamp=True))
    return stacked_bars(found, grid, present(among, found["kind"].unique().to_list()), y, tooltip, columns=3)


def _rest(session: Session, grid: Bins) -> str:
    return notes(
        f"Each bar is {grid.width_text}; the times of the bars add up exactly.",
        several_engines(session, STEPS), lost_note(session, STEPS),
    )  # fmt: skip


def step_phases(session: Session) -> Drawn:
    """The engine's wall time by what the batch of the step held."""
    rows = engine_rows(session, STEPS)
    grid = grid_of(session, rows)
    parts = _parts(rows.with_columns(phase().alias("phase")), "phase").with_columns(
        pl.when(pl.col("part") == "no_requests_ns").then(pl.lit("no requests")).otherwise(pl.col("phase")).alias("kind")
    )
    shares = spread(parts, grid, ["engine", "kind"])
    total = _totals(shares, "kind")
    whole = sum(total.values())
    said = ", ".join(
        f"{name} {share(total[name], whole)} ({duration(total[name] / SECOND)})"
        for name in (kind.label for kind in PHASES)
        if total.get(name)
    )
    says = f"Of {duration(whole / SECOND)} of the engine's time: {said}."
    chart = _time_bars(session, shares, grid, PHASES, "steps")
    return Drawn(
        style.chart_of(chart, says), says, notes("A step's time is all since the step before.", _rest(session, grid))
    )


def step_time_split(session: Session) -> Drawn:
    """The engine's wall time by what its thread did."""
    rows = engine_rows(session, STEPS)
    grid = grid_of(session, rows)
    shares = spread(_parts(rows), grid, ["engine", "part"]).with_columns(
        pl.col("part").replace_strict(PARTS).alias("kind")
    )
    total = _totals(shares, "kind")
    idle = total.pop(PARTS["no_requests_ns"], 0)
    working = sum(total.values())
    said = ", ".join(f"{name} {share(ns, working)}" for name, ns in sorted(total.items(), key=lambda item: -item[1]))
    says = f"Of {duration(working / SECOND)} with requests: {said}."
    if idle:
        says = f"{says} Without requests: {duration(idle / SECOND)}."
    chart = _time_bars(session, shares, grid, PART_KINDS, "part")
    return Drawn(style.chart_of(chart, says), says, _rest(session, grid))


def _totals(shares: pl.DataFrame, by: str) -> dict[str, int]:
    return dict(shares.group_by(by).agg(pl.col("ns").sum()).rows())


def step_limits(session: Session) -> Drawn:
    """What kept the steps of each bin from taking more, as shares of the steps."""
    rows = engine_rows(session, STEPS).filter(pl.col("limit").is_not_null() & (pl.col("limit") != ""))
    grid = grid_of(session, rows)
    counted = sums(rows, grid, ["limit"]).with_columns(
        pl.col("limit").replace_strict(LIMITS, default=LIMITS[events.OTHER]).alias("kind")
    )
    counted = counted.group_by("kind", "bin").agg(pl.col("rows").sum().alias("steps"))
    shares = counted.with_columns((100 * pl.col("steps") / pl.col("steps").sum().over("bin")).round(2).alias("share"))
    total = dict(counted.group_by("kind").agg(pl.col("steps").sum()).rows())
    whole = sum(total.values())
    said = ", ".join(
        f"{name} {count:,} ({share(count, whole)})" for name, count in sorted(total.items(), key=lambda i: -i[1])
    )
    says = f"{whole:,} steps by what kept them from taking more: {said}."
    tooltip = [
        *span_tooltip(grid), *style.tips("kind|bound by", "steps|steps|,", "share|share (%)|.3~g"),
    ]  # fmt: skip
    y = alt.Y("share:Q", title="share of the steps (%)", scale=alt.Scale(domain=[0, 100], clamp=True))
    chart = stacked_bars(shares, grid, present(LIMIT_KINDS, list(total)), y, tooltip, columns=3)
    return Drawn(
        style.chart_of(chart, says), says,
        notes(f"Each bar has the steps that ended within {grid.width_text}.", several_engines(session, STEPS),
              lost_note(session, STEPS)),
    )  # fmt: skip


def step_queue(session: Session) -> Drawn:
    """Requests running, waiting and passed over at the end of each step: mean, lowest and highest of each bin."""
    rows = engine_rows(session, STEPS)
    grid = grid_of(session, rows)
    long = rows.select("engine", "at_ns", *QUEUES).unpivot(
        list(QUEUES), index=["engine", "at_ns"], variable_name="kind", value_name="requests"
    )
    found = ranges(long, grid, ["kind", "engine"], "requests").with_columns(pl.col("kind").replace_strict(QUEUES))
    engines = found["engine"].n_unique()
    points = found.group_by("kind", "bin").agg(pl.col("low", "mean", "high").sum())
    highest = dict(found.group_by("kind").agg(pl.col("high").max()).rows())
    if not highest.get("passed over"):
        points = points.filter(pl.col("kind") != "passed over")
    among = present(QUEUE_KINDS, points["kind"].unique().to_list())
    mean = rows.select(pl.col(*QUEUES).mean()).collect(engine="streaming").row(0, named=True)
    says = (
        f"A step left on average {mean['running'] or 0:.1f} requests running (at most {highest.get('running', 0):,}) and "
        f"{mean['waiting'] or 0:.1f} waiting (at most {highest.get('waiting', 0):,})"
        + (f", of which up to {highest['passed over']:,} were passed over." if highest.get("passed over") else ".")
    )
    chart = bands(to_the_end(points.with_columns(pl.col("mean").round(2)), grid, "kind"), grid, among, "requests")
    how = f"Lines are means over {grid.width_text}, the bands reach from the lowest to the highest value."
    many = f"{engines} engines are added up, their extremes too, which need not have been at the same moment."
    return Drawn(style.chart_of(chart, says), says, notes(how, many if engines > 1 else "", lost_note(session, STEPS)))
