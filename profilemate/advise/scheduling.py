"""What bounds a step, what prompts cost those who decode, Python's share, the queue, preemptions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from profilemate.advise.engine import host_time, interference, limits, matched_steps, preemption_cost, queue_growth
from profilemate.advise.enough import absent
from profilemate.advise.finding import Finding, Verdict
from profilemate.advise.steps import steps

if TYPE_CHECKING:
    from profilemate.frames.session import Session

TOPIC = "scheduling"

COLUMNS = tuple(
    dict.fromkeys(
        [
            *limits.COLUMNS,
            *matched_steps.COLUMNS,
            *host_time.COLUMNS,
            *queue_growth.COLUMNS,
            *preemption_cost.COLUMNS,
        ]
    )
)
VERIFIED: Mapping[str, Callable[[Finding, Session], list[Verdict]]] = {
    interference.NAME: interference.verify,
    host_time.NAME: host_time.verify,
}


def advise(session: Session) -> list[Finding]:
    """A finding for each of these, from one reading of the steps."""
    frame = steps(session, *COLUMNS)
    if not frame.height:
        return [
            absent(
                TOPIC,
                f"{TOPIC}.steps",
                "scheduling",
                "No engine step was recorded; the tracker engine_steps has them.",
            )
        ]
    costs = matched_steps.measure(frame)
    return [
        *limits.advise(session, frame, costs),
        *interference.advise(session, frame, costs),
        *host_time.advise(session, frame),
        *queue_growth.advise(session, frame),
        *preemption_cost.advise(session, frame),
    ]


def verify(finding: Finding, after: Session) -> list[Verdict]:
    """What those that predict something say of it."""
    return VERIFIED[finding.name](finding, after) if finding.name in VERIFIED else []
