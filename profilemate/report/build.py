"""From a session to the model of its page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from profilemate import __version__
from profilemate.report.masthead import masthead
from profilemate.report.model import Page, ShownSection
from profilemate.report.sections import SECTIONS, section_of
from profilemate.report.source import Source
from profilemate.session.errors import SessionError

if TYPE_CHECKING:
    from profilemate.figures import Entry
    from profilemate.frames.session import Session
    from profilemate.report.sections.section import Section

OnStep = Callable[[str], None]


def page_of(session: Session, wanted: Sequence[str] = (), on_step: OnStep = lambda step: None) -> Page:
    """The page of a session with all sections, or the wanted ones in the page's order.

    `on_step` hears of each thing before it is begun. Raises SessionError for a section that there is not.
    """
    from profilemate.advise.run import findings
    from profilemate.figures import FIGURES, draw

    chosen = chosen_sections(wanted)
    on_step("counting")
    source = Source(session, draw, findings)
    shown = []
    for name in chosen:
        section = section_of(name)
        on_step(section.title)
        shown.append(_shown(section, source, FIGURES, on_step))
    return Page(masthead(source), tuple(shown), f"ProfileMate {__version__}")


def chosen_sections(wanted: Sequence[str]) -> list[str]:
    """Names of sections in the page's order. Raises SessionError for another one."""
    for name in wanted:
        if name not in SECTIONS:
            raise SessionError(f"there is no section {name!r}; there are {', '.join(SECTIONS)}")
    return [name for name in SECTIONS if not wanted or name in wanted]


def _shown(section: Section, source: Source, known: Sequence[Entry], on_step: OnStep) -> ShownSection:
    part = section.build(source)
    figures = []
    for entry in known:
        if entry.section in section.figures:
            on_step(entry.title)
            figures.append(source.figure(entry.name, entry.title))
    whole = replace(part, figures=tuple(figures))
    return ShownSection(section.name, section.title, section.level, section.template, whole)
