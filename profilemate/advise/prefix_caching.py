"""Why prompt tokens were not found in the prefix cache, and what can be done about each reason."""

from __future__ import annotations

from typing import TYPE_CHECKING

from profilemate.advise.enough import absent
from profilemate.advise.finding import Finding
from profilemate.advise.kv import off, reasons, short_prefixes
from profilemate.advise.kv.engines import stepping_engines
from profilemate.advise.kv.prediction import predict
from profilemate.trackers.prefix_lookups import analyze

if TYPE_CHECKING:
    from profilemate.frames.session import Session

TOPIC = "prefix_caching"


def advise(session: Session) -> list[Finding]:
    """Server off; else evicted, reset and skipped look-ups, and prefixes shorter than a block."""
    if not stepping_engines(session):
        return [absent(TOPIC, f"{TOPIC}.look_ups", "the prefix cache", "No engine step was recorded.")]
    server_off = off.server_finding(session)
    if server_off:
        return [server_off]
    summary = analyze.analyze(session)
    if not summary.first.lookups:
        return [reasons.unrecorded(session)]
    prediction = predict(session)
    found = [reasons.overview(summary), *reasons.evicted(summary, prediction), *reasons.resets(summary)]
    return [*found, *off.request_findings(session, summary), *short_prefixes.findings(session, summary, prediction)]
