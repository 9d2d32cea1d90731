"""The slowest requests: where each spent its time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import altair as alt
import polars as pl

from profilemate.figures import style
from profilemate.figures.requests import requests_of
from profilemate.figures.source import Drawn, lost_note, notes, nothing
from profilemate.figures.style import kinds, present
from profilemate.figures.thin import SECOND
from profilemate.figures.words import duration, share
from profilemate.trackers.requests import events
from profilemate.trackers.requests.life import Life

if TYPE_CHECKING:
    from profilemate.frames.session import Session

SLOWEST = 25
SUBMIT, QUEUE, PREFILL, DECODE, PREEMPTED, REST = "submit", "queue", "prefill", "decode", "preempted", "rest"
PARTS = kinds(
    (SUBMIT, "grey"),
    (QUEUE, "orange"),
    (PREFILL, "vermilion"),
    (DECODE, "blue"),
    (PREEMPTED, "purple"),
    (REST, "green"),
)
SHOWN_LETTERS = 16


class Segment(NamedTuple):
    """A part of a request's life, in nanoseconds since the session began."""

    part: str
    begin_ns: int
    end_ns: int


def segments(life: Life) -> list[Segment]:
    """Its life from arrival to end, in order and without overlap; time preempted is cut out of prefill and decode."""
    moments = (
        (SUBMIT, life.arrival_ns), (QUEUE, life.queued_ns), (PREFILL, life.scheduled_ns), (DECODE, life.first_token_ns),
        (REST, life.last_token_ns),
    )  # fmt: skip
    known = [(part, moment) for part, moment in moments if moment is not None]
    ends = [moment for _, moment in known[1:]] + [life.finished_ns]
    found = []
    for (part, begin), end in zip(known, ends, strict=True):
        if end is not None and end > begin:
            found += list(_cut(Segment(part, begin, end), life))
    return found


def _cut(whole: Segment, life: Life) -> Iterator[Segment]:
    at = whole.begin_ns
    for one in sorted(life.preempted, key=lambda one: one.time_ns):
        until = one.resumed_ns if one.resumed_ns is not None else life.finished_ns
        begin, end = max(at, one.time_ns), min(whole.end_ns, until if until is not None else whole.end_ns)
        if whole.part in (PREFILL, DECODE, REST) and begin < end:
            if at < begin:
                yield Segment(whole.part, at, begin)
            yield Segment(PREEMPTED, begin, end)
            at = end
    if at < whole.end_ns:
        yield Segment(whole.part, at, whole.end_ns)


def request_waterfall(session: Session) -> Drawn:
    """The slowest requests that ended, each from its arrival on, slowest on top."""
    ended = [(took, life) for life in requests_of(session) if (took := _whole(life)) is not None]
    if not ended:
        raise nothing(session, "no request ended while it was recorded", events.ENDS, events.IN_ENGINE)
    slowest = sorted(ended, key=lambda item: (-item[0], item[1].request))[:SLOWEST]
    rows = [
        (f"{number}", life, segment, segment.begin_ns - cut[0].begin_ns)
        for number, (_, life) in enumerate(slowest, 1)
        if (cut := segments(life))
        for segment in cut
    ]
    spent = {kind.label: sum(s.end_ns - s.begin_ns for _, _, s, _ in rows if s.part == kind.label) for kind in PARTS}
    whole = sum(spent.values()) or 1
    most = max(spent, key=lambda part: spent[part])
    says = (
        f"The slowest of {len(ended):,} requests took {duration(slowest[0][0] / SECOND)}; the {len(slowest)} slowest spent "
        f"{share(spent[most], whole)} of their time in {most}"
        + (f" and {share(spent[PREEMPTED], whole)} preempted." if spent[PREEMPTED] and most != PREEMPTED else ".")
    )
    return Drawn(
        style.chart_of(_chart(rows), says, height=18 * len(slowest) + 10), says,
        notes(
            "Labels are request ids, hashed unless a setting shows them.",
            f"{len(slowest)} of {len(ended):,} requests are shown." if len(ended) > len(slowest) else "",
            lost_note(session, events.ENDS, events.IN_ENGINE, events.PREEMPTIONS),
        ),
    )  # fmt: skip


def _whole(life: Life) -> int | None:
    if life.e2e_ns is not None:
        return life.e2e_ns
    cut = segments(life)
    return cut[-1].end_ns - cut[0].begin_ns if cut and life.finished_ns is not None else None


def _chart(rows: list[tuple[str, Life, Segment, int]]) -> Any:
    labels: dict[str, str] = {}
    for number, life, _, _ in rows:
        name = life.request if len(life.request) <= SHOWN_LETTERS else f"{life.request[: SHOWN_LETTERS - 1]}…"
        labels[number] = name if name not in labels.values() else f"{name} ({number})"
    frame = pl.DataFrame(
        [
            (
                labels[number], segment.part, begin / SECOND, (begin + segment.end_ns - segment.begin_ns) / SECOND,
                (segment.end_ns - segment.begin_ns) / SECOND, life.prompt_tokens, life.output_tokens, life.preemptions,
            )
            for number, life, segment, begin in rows
        ],
        schema=["request", "kind", "from", "to", "seconds", "prompt", "output", "preemptions"],
        orient="row",
    ).with_columns(pl.col("from", "to", "seconds").round(6))  # fmt: skip
    among = present(PARTS, frame["kind"].unique().to_list())
    return (
        alt.Chart(frame)
        .mark_bar(height={"band": 0.78}, stroke=style.colour("paper"), strokeWidth=0.5)
        .encode(
            y=alt.Y("request:N", title=None, sort=list(labels.values()), axis=alt.Axis(labelFont="monospace")),
            x=alt.X("from:Q", title="time since the request arrived (s)", scale=alt.Scale(zero=True)), x2="to:Q",
            color=style.by_kind(among, columns=3),
            tooltip=style.tips(
                "request|request", "kind|part", "seconds|seconds|,.4~g", "from|from (s)|,.4~g", "to|to (s)|,.4~g",
                "prompt|prompt tokens|,", "output|output tokens|,", "preemptions|preemptions|",
            ),
        )
    )  # fmt: skip
