"""Requests that ended, with their lengths: what the front ends saw, or what the schedulers saw where that is more."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from profilemate.frames.packages import load
from profilemate.trackers.requests import events
from profilemate.trackers.requests.life import REASONS

if TYPE_CHECKING:
    import polars as pl

    from profilemate.frames.session import Session

BY_THEMSELVES = ("stop", "length", "repetition")
"""Reasons of requests that were not broken off."""


class Ended(NamedTuple):
    """`frame` has prompt_tokens, output_tokens and reason (the front end's words), a row for each request that ended."""

    frame: pl.DataFrame
    table: str


def ended_requests(session: Session) -> Ended:
    """All of a session whose lengths are known."""
    polars = load("polars")
    in_front = _rows(session, events.ENDS.name, polars.col("reason"))
    words = polars.col("status").replace(REASONS).str.to_lowercase().alias("reason")
    in_engine = _rows(session, events.IN_ENGINE.name, words, polars.col("event") == "finished")
    if in_engine.height > in_front.height:
        return Ended(in_engine, events.IN_ENGINE.name)
    return Ended(in_front, events.ENDS.name)


def _rows(session: Session, table: str, reason: pl.Expr, which: pl.Expr | None = None) -> pl.DataFrame:
    lengths = ["prompt_tokens", "output_tokens"]
    scan = session.scan(table)
    known = scan.filter(which) if which is not None else scan
    frame: pl.DataFrame = known.select(*lengths, reason).drop_nulls(lengths).collect(engine="streaming")
    return frame
