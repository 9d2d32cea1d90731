"""Figures of the bandwidth estimate: bytes and operations per second of the forward passes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import altair as alt
import polars as pl

from profilemate.figures import style
from profilemate.figures.bars import span_tooltip
from profilemate.figures.columns import amount, least, most, total
from profilemate.figures.source import Drawn, Missing, lost_note, notes, nothing, worker_rows
from profilemate.figures.style import kinds, present
from profilemate.figures.thin import SECOND, Bins, bins
from profilemate.figures.words import share
from profilemate.trackers.bandwidth import events
from profilemate.trackers.bandwidth.analyze import passes, workers_of
from profilemate.trackers.bandwidth.devices import Peak
from profilemate.trackers.cuda_graphs import events as cuda_graphs

if TYPE_CHECKING:
    from profilemate.frames.session import Session

UNKNOWN = "phase not known"
PHASES = kinds(("prefill", "vermilion"), ("mixed", "orange"), ("decode", "blue"), (UNKNOWN, "purple"))


@dataclass
class _Sums:
    """Passes of one phase within one bin that have both a time and the model's sizes."""

    passes: int = 0
    ns: int = 0
    read_bytes: float = 0.0
    flops: float = 0.0


@dataclass(frozen=True)
class _Binned:
    """All passes by phase and bin; `passes` is how many there were, with a time or without."""

    grid: Bins
    sums: dict[tuple[str, int], _Sums]
    passes: int
    peaks: tuple[Peak, ...]


@dataclass(frozen=True)
class _Quantity:
    """What is drawn: a field of _Sums, what makes the unit of it per second, and the device's peak."""

    field: str
    unit: float
    title: str
    what: str
    peak: float | None


COLUMNS = {"kind": pl.String, "bin": pl.Int64, "amount": pl.Float64, "seconds": pl.Float64, "passes": pl.Int64}
_known: WeakKeyDictionary[Any, _Binned] = WeakKeyDictionary()


def memory_bandwidth(session: Session) -> Drawn:
    """Bytes of weights and KV cache read per second of the passes' time."""
    binned = _binned(session)
    return _rates(
        session,
        binned,
        _Quantity("read_bytes", 1e9, "read (GB/s)", "GB/s", _one({p.gb_per_second for p in binned.peaks})),
    )


def compute_rate(session: Session) -> Drawn:
    """Operations per second of the passes' time."""
    binned = _binned(session)
    return _rates(
        session,
        binned,
        _Quantity("flops", 1e12, "operations (TFLOP/s)", "TFLOP/s", _one({p.tflops for p in binned.peaks})),
    )


def _one(peaks: set[float | None]) -> float | None:
    return next(iter(peaks)) if len(peaks) == 1 else None


def _binned(session: Session) -> _Binned:
    """Goes through every pass once for both figures."""
    if session not in _known:
        span = (
            worker_rows(session, cuda_graphs.PASSES._replace(present=""))
            .select(pl.col("at_ns").min().alias("first"), pl.col("at_ns").max().alias("last"))
            .collect(engine="streaming")
        )  # fmt: skip
        if span["first"][0] is None:
            raise nothing(session, "no serving forward pass was recorded", events.READ)
        sums: dict[tuple[str, int], _Sums] = {}
        grid, count = bins(span["first"][0], span["last"][0]), 0
        workers = workers_of(session)
        for one in passes(session, workers):
            count += 1
            if one.work is not None and one.forward_ns is not None and one.forward_ns > 0:
                place = min(grid.count - 1, max(0, (one.time_ns - grid.start_ns) // grid.width_ns))
                mine = sums.setdefault((one.phase or UNKNOWN, place), _Sums())
                mine.passes, mine.ns = mine.passes + 1, mine.ns + one.forward_ns
                mine.read_bytes, mine.flops = mine.read_bytes + one.work.read_bytes, mine.flops + one.work.flops
        _known[session] = _Binned(grid, sums, count, tuple(worker.peak for worker in workers))
    return _known[session]


def _rates(session: Session, binned: _Binned, quantity: _Quantity) -> Drawn:
    grid = binned.grid
    if not binned.sums:
        raise Missing("no forward pass has both a time and the model's sizes")
    found = pl.DataFrame(
        [
            (kind, place, float(getattr(one, quantity.field)), one.ns / SECOND, one.passes)
            for (kind, place), one in sorted(binned.sums.items())
        ],
        schema=COLUMNS, orient="row",
    ).filter(pl.col("amount") > 0)  # fmt: skip
    rates = found.with_columns(
        (pl.col("amount") / pl.col("seconds") / quantity.unit).round_sig_figs(5).alias("rate"),
        ((pl.col("bin") + 0.5) * grid.width_ns + grid.start_ns).truediv(grid.unit_ns).round(6).alias("middle"),
        pl.col("seconds").round(6),
        *grid.edges(),
    ).drop("amount", "bin")
    if quantity.peak:
        rates = rates.with_columns((100 * pl.col("rate") / quantity.peak).round_sig_figs(4).alias("of_peak"))
    says = _says(found, quantity)
    timed = total(found["passes"])
    return Drawn(
        style.chart_of(_chart(rates, grid, quantity), says), says,
        notes(
            "An estimate: the model's sizes times what was scheduled, over the time of the passes.",
            f"A point has the passes of {grid.width_text}; the larger, the more time they took.",
            f"{timed:,} of {binned.passes:,} passes have a time." if timed < binned.passes else "",
            "" if quantity.peak else "The device's peak is not known.", lost_note(session, events.READ),
        ),
    )  # fmt: skip


def _says(found: pl.DataFrame, quantity: _Quantity) -> str:
    said = []
    for kind in PHASES:
        mine = found.filter(pl.col("kind") == kind.label)
        if mine.height:
            rate = amount(mine["amount"]) / amount(mine["seconds"]) / quantity.unit
            of_peak = f" ({share(rate, quantity.peak)} of the peak)" if quantity.peak else ""
            said.append(f"{kind.label} {rate:,.3g} {quantity.what}{of_peak}")
    peak = f" The peak is {quantity.peak:,.4g} {quantity.what}." if quantity.peak else ""
    return f"Over the time of the passes: {', '.join(said)}.{peak}"


def _chart(rates: pl.DataFrame, grid: Bins, quantity: _Quantity) -> Any:
    among = present(PHASES, rates["kind"].unique().to_list())
    low, high = least(rates["rate"]) or 1e-9, max(most(rates["rate"]), quantity.peak or 0) or 1e-9
    y = alt.Y("rate:Q", title=quantity.title, scale=style.log_scale(low, high),
              axis=style.plain(style.decades(low, high)))  # fmt: skip
    of_peak = style.tips("of_peak|of the peak (%)|") if quantity.peak else []
    points = (
        alt.Chart(rates)
        .mark_point(filled=True, opacity=0.85, clip=True)
        .encode(
            x=style.time_x(grid, "middle"), y=y, color=style.by_kind(among), shape=style.shape_by_kind(among),
            size=alt.Size("seconds:Q", scale=alt.Scale(type="sqrt", range=[25, 150], zero=True), legend=None),
            tooltip=[
                *span_tooltip(grid), *style.tips("kind|passes"),
                alt.Tooltip("rate:Q", title=quantity.what, format=",.4~g"), *of_peak,
                *style.tips("passes|passes|,", "seconds|their time (s)|,.4~g"),
            ],
        )
        .add_params(style.pan_and_zoom())
    )  # fmt: skip
    if not quantity.peak:
        return points
    peak = (
        alt.Chart(pl.DataFrame({"rate": [quantity.peak], "text": [f"peak {quantity.peak:,.4g} {quantity.what}"]}))
        .encode(y=y)
    )  # fmt: skip
    rule = peak.mark_rule(strokeDash=[6, 4], strokeWidth=1.4, color=style.colour("ink"))
    text = peak.mark_text(align="left", baseline="top", dx=4, dy=4, x=0).encode(text="text:N")
    return alt.layer(rule, text, points)
