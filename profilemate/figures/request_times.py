"""The slowest requests: where each spent its time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import altair as alt
import polars as pl

from profilemate.figures import style
from profilemate.figures.request_parts import DECODE, PREEMPTED, PREFILL, QUEUE, REST, SUBMIT, Segment, segments
from profilemate.figures.requests import requests_of
from profilemate.figures.source import Drawn, lost_note, notes, nothing
from profilemate.figures.style import kinds, present
from profilemate.figures.thin import SECOND
from profilemate.figures.words import duration, share
from profilemate.trackers.requests import events
from profilemate.trackers.requests.life import Life

if TYPE_CHECKING:
    from profilemate.frames.session import Session

PARTS = kinds(
    (SUBMIT, "grey"),
    (QUEUE, "orange"),
    (PREFILL, "vermilion"),
    (DECODE, "blue"),
    (PREEMPTED, "purple"),
    (REST, "green"),
)
SHOWN_LETTERS = 16


def request_waterfall(session: Session) -> Drawn:
    """The slowest requests that ended, each from its arrival on, slowest on top."""
    requests = requests_of(session)
    ended, slowest = requests.ended, requests.slowest
    if not ended:
        raise nothing(session, "no request ended while it was recorded", events.ENDS, events.IN_ENGINE)
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
        f"The slowest of {ended:,} requests took {duration(slowest[0][0] / SECOND)}; the {len(slowest)} slowest spent "
        f"{share(spent[most], whole)} of their time in {most}"
        + (f" and {share(spent[PREEMPTED], whole)} preempted." if spent[PREEMPTED] and most != PREEMPTED else ".")
    )
    return Drawn(
        style.chart_of(_chart(rows), says, height=18 * len(slowest) + 10), says,
        notes(
            "Labels are request ids, hashed unless a setting shows them.",
            f"{len(slowest)} of {ended:,} requests are shown." if ended > len(slowest) else "",
            lost_note(session, events.ENDS, events.IN_ENGINE, events.PREEMPTIONS),
        ),
    )  # fmt: skip


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
