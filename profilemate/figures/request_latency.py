"""Distributions of the time to the first token and of the time per output token."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from profilemate.figures import style
from profilemate.figures.distribution import Series, distribution, percentile
from profilemate.figures.requests import requests_of
from profilemate.figures.source import Drawn, Missing, lost_note, notes
from profilemate.figures.thin import MOST_QUANTILES, SECOND
from profilemate.figures.words import duration
from profilemate.trackers.requests import events

if TYPE_CHECKING:
    from profilemate.frames.session import Session


def ttft(session: Session) -> Drawn:
    """Time to first token, as vLLM measures it in the front end."""
    values = [life.ttft_ns for life in requests_of(session)]
    return _latency(
        session,
        [v for v in values if v is not None],
        len(values),
        "time to first token",
        "vermilion",
        "has a first token",
    )


def tpot(session: Session) -> Drawn:
    """Mean time per output token after the first, of requests with two tokens at least."""
    lives = requests_of(session)
    values = [life.tpot_ns for life in lives if (life.output_tokens or 0) > 1]
    return _latency(
        session,
        [v for v in values if v is not None],
        len(lives),
        "time per output token",
        "blue",
        "has two output tokens",
    )


def _latency(session: Session, found: list[int], requests: int, what: str, colour: str, had: str) -> Drawn:
    if not found:
        raise Missing(f"none of the {requests:,} requests {had}")
    values = pl.Series([max(0, ns) / SECOND for ns in found], dtype=pl.Float64)
    p50, p95, p99 = (percentile(values, share) for share in (0.5, 0.95, 0.99))
    says = (
        f"{what.capitalize()} of {len(found):,} requests: 50 % within {duration(p50)}, 95 % within {duration(p95)}, "
        f"99 % within {duration(p99)}."
    )
    chart = distribution([Series(what, colour, values)], f"{what} (s)", "requests", mark=True)
    left_out = requests - len(found)
    return Drawn(
        style.chart_of(chart, says), says,
        notes(
            f"{left_out:,} of {requests:,} requests have none." if left_out else "",
            f"The curve is drawn through {MOST_QUANTILES} of the {len(found):,} values, extremes included."
            if len(found) > MOST_QUANTILES else "",
            lost_note(session, events.ENDS, events.IN_ENGINE),
        ),
    )  # fmt: skip
