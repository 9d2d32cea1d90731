"""How large the KV cache should be: how much of it is used, what other sizes would have found, preemptions they avoid."""

from __future__ import annotations

from typing import TYPE_CHECKING

from profilemate.advise.finding import Finding, Verdict
from profilemate.advise.kv import hits, preempted, usage
from profilemate.advise.kv.engines import stepping_engines
from profilemate.advise.kv.memory import memory_of
from profilemate.advise.kv.prediction import predict
from profilemate.advise.kv.verified import size_differences, size_verdicts

if TYPE_CHECKING:
    from profilemate.frames.session import Session


def advise(session: Session) -> list[Finding]:
    """Use, hit rate by size, preemptions by size."""
    if not stepping_engines(session):
        return [usage.nothing()]
    prediction, memory = predict(session), memory_of(session)
    found = [usage.finding(session), hits.finding(session, prediction, memory)]
    return [*found, *preempted.findings(session, prediction, memory)]


def verify(finding: Finding, after: Session) -> list[Verdict]:
    """What became of a prediction in a session with another number of blocks."""
    return size_verdicts(finding, after)


def differences(finding: Finding, after: Session) -> list[str]:
    """Why a session does not show what was predicted: any size can be looked up, not only the one that was advised."""
    return size_differences(finding, after)
