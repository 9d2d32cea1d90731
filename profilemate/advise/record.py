"""Findings and verdicts as plain data: the JSON of `profilemate advise`, described in docs/advice.md."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from profilemate.advise.finding import Finding, Gain, Verdict
from profilemate.advise.run import has_failed

if TYPE_CHECKING:
    from profilemate.advise.verify import Check
    from profilemate.session.session import Session

SCHEMA = 1
"""Changes when a key is removed or means another thing; more keys may come without a change."""

DIGITS = 6


def findings_record(session: Session, topics: Sequence[str], findings: Sequence[Finding]) -> dict[str, Any]:
    """All findings of a session; `topics` are those that ran."""
    return {
        "schema": SCHEMA,
        "session": session_record(session),
        "topics": list(topics),
        "failed_topics": [finding.topic for finding in findings if has_failed(finding)],
        "findings": [{"number": n, **finding_record(finding)} for n, finding in enumerate(findings, 1)],
    }


def finding_record(finding: Finding) -> dict[str, Any]:
    """One finding."""
    return {
        "topic": finding.topic,
        "name": finding.name,
        "level": finding.level,
        "title": finding.title,
        "says": finding.says,
        "evidence": [{"table": one.table, "rows": one.rows, "which": one.which} for one in finding.evidence],
        "flags": list(finding.flags),
        "command_line": finding.command_line,
        "alternatives": list(finding.alternatives),
        "gains": [_gain(gain) for gain in finding.gains],
        "to_be_sure": finding.to_be_sure,
        "numbers": plain(finding.numbers),
    }


def check_record(before: Session, after: Session, check: Check) -> dict[str, Any]:
    """What `--verify` found."""
    return {
        "schema": SCHEMA,
        "before": session_record(before),
        "after": session_record(after),
        "all_hold": check.all_hold,
        "verdicts": [_verdict(verdict) for verdict in check.verdicts],
        "not_looked_up": [{"name": one.name, "reasons": list(one.reasons)} for one in check.skipped],
        "also_changed": {
            key: {"before": plain(old), "after": plain(new)} for key, (old, new) in check.also_changed.items()
        },
    }


def session_record(session: Session) -> dict[str, Any]:
    """Which session it is."""
    return {"session_id": session.info.session_id, "path": str(session.path)}


def _gain(gain: Gain) -> dict[str, Any]:
    return {
        "quantity": gain.quantity,
        "unit": gain.unit,
        "now": plain(gain.now),
        "expected": plain(gain.expected),
        "low": plain(gain.low),
        "high": plain(gain.high),
        "how": gain.how,
    }


def _verdict(verdict: Verdict) -> dict[str, Any]:
    return {
        "name": verdict.name,
        "quantity": verdict.quantity,
        "unit": verdict.unit,
        "predicted": plain(verdict.predicted),
        "low": plain(verdict.low),
        "high": plain(verdict.high),
        "observed": plain(verdict.observed),
        "holds": verdict.holds,
        "says": verdict.says,
    }


def plain(value: Any) -> Any:
    """As JSON can hold it: six significant digits, null for what is no number, text for what JSON does not know."""
    if hasattr(value, "item") and not isinstance(value, (str, bytes)) and getattr(value, "ndim", 0) == 0:
        value = value.item()
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    if isinstance(value, (set, frozenset)):
        return [plain(one) for one in sorted(value, key=str)]
    return str(value)
