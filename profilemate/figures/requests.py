"""Requests for figures: what the request tracker joins, read once for all figures of a session."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from profilemate.figures.source import nothing
from profilemate.trackers.requests import events
from profilemate.trackers.requests.join import lives
from profilemate.trackers.requests.life import Life

if TYPE_CHECKING:
    from profilemate.frames.session import Session

_known: WeakKeyDictionary[Any, tuple[Life, ...]] = WeakKeyDictionary()


def requests_of(session: Session) -> tuple[Life, ...]:
    """Every request, as `request_lifecycle.csv` has them. Raises Missing where there is none."""
    if session not in _known:
        _known[session] = tuple(lives(session))
    if not _known[session]:
        raise nothing(session, "no request was recorded", events.IN_ENGINE, events.ENDS, events.ARRIVALS)
    return _known[session]
