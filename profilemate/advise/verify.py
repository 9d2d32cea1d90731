"""What was predicted from one session beside what another one shows that was run with the advice."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from profilemate.advise import flags, run
from profilemate.advise.finding import Finding, Verdict
from profilemate.session.errors import SessionError
from profilemate.session.views import engine_config

if TYPE_CHECKING:
    from collections.abc import Sequence

    from profilemate.frames.session import Session


@dataclass(frozen=True)
class Skipped:
    """A finding whose prediction was not looked up, and why."""

    name: str
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Check:
    """What became of the predictions. `also_changed` are settings that differ although no verified finding says so."""

    verdicts: tuple[Verdict, ...]
    skipped: tuple[Skipped, ...] = ()
    also_changed: dict[str, tuple[Any, Any]] = field(default_factory=dict)

    @property
    def all_hold(self) -> bool:
        """Whether every observed value lies in its predicted range."""
        return all(verdict.holds for verdict in self.verdicts)


def check(
    before: Session,
    after: Session,
    wanted: Sequence[str] = (),
    on_topic: run.OnTopic = lambda topic: None,
    options: run.Options = MappingProxyType({}),
) -> Check:
    """Look up each prediction from `before` whose flags `after` was run with; `options` as the advice was asked for.

    Raises SessionError where nothing was predicted, or `after` was run with none of what was advised.
    """
    able = [name for name in run.topics() if hasattr(run.topic_module(name), "verify")]
    able = [name for name in able if not wanted or name in wanted]
    found = run.findings(before, able, on_topic, options) if able else []
    verdicts: list[Verdict] = []
    skipped: list[Skipped] = []
    applied: list[Finding] = []
    for finding in found:
        if not finding.gains:
            continue
        reasons = _differences(finding, after)
        if reasons:
            skipped.append(Skipped(finding.name, tuple(reasons)))
            continue
        got, failure = _looked_up(finding, after)
        if got:
            applied.append(finding)
            verdicts += got
        else:
            skipped.append(Skipped(finding.name, (failure or "the other session does not show what was predicted",)))
    if not verdicts:
        raise SessionError(_refusal(skipped))
    return Check(tuple(verdicts), tuple(skipped), _also_changed(before, after, applied))


def verdicts(before: Session, after: Session) -> list[Verdict]:
    """The verdicts alone. Raises SessionError as `check` does."""
    return list(check(before, after).verdicts)


def _looked_up(finding: Finding, after: Session) -> tuple[list[Verdict], str]:
    """What the topic says, or why it failed."""
    try:
        return list(run.topic_module(finding.topic).verify(finding, after)), ""
    except Exception as error:
        return [], f"it ended with {run.words_of(error)}"


def _differences(finding: Finding, after: Session) -> list[str]:
    module = run.topic_module(finding.topic)
    if hasattr(module, "differences"):
        return list(module.differences(finding, after))
    if not finding.flags:
        return ["it advises no flag, so there is nothing to run with"]
    return flags.differences(finding, engine_config(after))


def _also_changed(before: Session, after: Session, applied: Sequence[Finding]) -> dict[str, tuple[Any, Any]]:
    advised = {one.key for finding in applied for one in flags.settings(finding.flags)}
    advised |= {key for key, causes in flags.DERIVED.items() if advised & set(causes)}
    differ = flags.changes(engine_config(before), engine_config(after))
    return {key: pair for key, pair in differ.items() if key not in advised}


def _refusal(skipped: Sequence[Skipped]) -> str:
    if not skipped:
        return "nothing was predicted from the first session that could be looked up in another one"
    why = "; ".join(f"{one.name}: {', '.join(one.reasons)}" for one in skipped)
    return f"no prediction can be looked up, since the second session was not run with what was advised: {why}"
