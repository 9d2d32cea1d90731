"""The engines of a session whose steps are known."""

from __future__ import annotations

from typing import TYPE_CHECKING

from profilemate.schema.step_table import BASE

if TYPE_CHECKING:
    from profilemate.frames.session import Session
    from profilemate.session.views import EngineSpan


def stepping_engines(session: Session) -> tuple[EngineSpan, ...]:
    """Every scheduler with rows of engine steps, in order of beginning."""
    return tuple(span for span in session.engine_spans if span.table == BASE.name)
