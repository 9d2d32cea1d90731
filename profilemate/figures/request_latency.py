"""Distributions of the time to the first token and of the time per output token."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
    return _latency(session, "ttft_ns", "time to first token", "vermilion", "has a first token")


def tpot(session: Session) -> Drawn:
    """Mean time per output token after the first, of requests with two tokens at least."""
    return _latency(session, "tpot_ns", "time per output token", "blue", "has two output tokens")


def _latency(session: Session, column: str, what: str, colour: str, had: str) -> Drawn:
    requests = requests_of(session)
    values = requests.latencies[column].drop_nulls().clip(lower_bound=0) / SECOND
    if values.is_empty():
        raise Missing(f"none of the {requests.count:,} requests {had}")
    p50, p95, p99 = (percentile(values, share) for share in (0.5, 0.95, 0.99))
    says = (
        f"{what.capitalize()} of {len(values):,} requests: 50 % within {duration(p50)}, 95 % within {duration(p95)}, "
        f"99 % within {duration(p99)}."
    )
    chart = distribution([Series(what, colour, values)], f"{what} (s)", "requests", mark=True)
    left_out = requests.count - len(values)
    return Drawn(
        style.chart_of(chart, says), says,
        notes(
            f"{left_out:,} of {requests.count:,} requests have none." if left_out else "",
            f"The curve is drawn through {MOST_QUANTILES} of the {len(values):,} values, extremes included."
            if len(values) > MOST_QUANTILES else "",
            lost_note(session, events.ENDS, events.IN_ENGINE),
        ),
    )  # fmt: skip
