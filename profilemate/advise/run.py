"""Runs the topics over a session, and holds what they predicted against another one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from profilemate.advise import TOPICS
from profilemate.advise.finding import ACT, FINE, LOOK, THIN, Finding, Verdict
from profilemate.frames.packages import load
from profilemate.session.errors import SessionError
from profilemate.session.records import text

if TYPE_CHECKING:
    from profilemate.frames.session import Session

LEVELS = (ACT, LOOK, THIN, FINE)
"""In the order in which findings are shown."""

PACKAGES = ("polars", "scipy", "numpy")
FAILED = "failed"
"""Ends the name of a finding that stands for a topic which could not be worked out."""

OnTopic = Callable[[str], None]
Options = Mapping[str, Mapping[str, Any]]
"""What a user wants of a topic: keyword arguments of its `advise`, by the topic's name."""


def topics() -> tuple[str, ...]:
    """Topics that this installation has."""
    return tuple(name for name in TOPICS if find_spec(_module(name)) is not None)


def findings(
    session: Session,
    wanted: Sequence[str] = (),
    on_topic: OnTopic = lambda topic: None,
    options: Options = MappingProxyType({}),
) -> list[Finding]:
    """All findings: those to act on first, within a level in the order of TOPICS.

    `wanted` are the topics to run, all by default; `on_topic` hears of each before it begins. A topic that fails becomes a
    finding that says so. Raises SessionError where a package is missing, and for options that the session has no answer to.
    """
    for package in PACKAGES:
        load(package)
    found: list[Finding] = []
    for topic in topics():
        if not wanted or topic in wanted:
            on_topic(topic)
            found += _guarded(topic, session, options.get(topic, {}))
    return sorted(found, key=_rank)


def topic_module(name: str) -> Any:
    """A topic's module."""
    return import_module(_module(name))


def words_of(error: BaseException) -> str:
    """An error in one line: its kind, unless it is meant to be read by users."""
    said = text(error)[:500]
    return said if isinstance(error, SessionError) else f"{type(error).__name__}: {said}"


def has_failed(finding: Finding) -> bool:
    """Whether it stands for a topic that could not be worked out."""
    return finding.name == f"{finding.topic}.{FAILED}"


def _module(name: str) -> str:
    return f"profilemate.advise.{name}"


def _rank(finding: Finding) -> int:
    return LEVELS.index(finding.level) if finding.level in LEVELS else len(LEVELS)


def _guarded(topic: str, session: Session, options: Mapping[str, Any]) -> list[Finding]:
    panic = load("polars").exceptions.PanicException
    try:
        return list(topic_module(topic).advise(session, **options))
    except (Exception, panic) as error:
        if options and isinstance(error, SessionError):
            raise
        return [_failure(topic, error)]


def _failure(topic: str, error: BaseException) -> Finding:
    words = topic.replace("_", " ")
    return Finding(
        topic=topic,
        name=f"{topic}.{FAILED}",
        level=LOOK,
        title=f"The advice on {words} could not be worked out",
        says=f"It ended with {words_of(error)}. The other findings do not depend on it.",
        to_be_sure="Report this with the session folder: it is a fault of ProfileMate, not of the server.",
        numbers={"exception": type(error).__name__, "message": text(error)[:500]},
    )


def verdicts(before: Session, after: Session) -> list[Verdict]:
    """What became of the predictions from `before`; see `verify.check`, which says more."""
    from profilemate.advise import verify

    return verify.verdicts(before, after)
