"""The sections of the page, one module each; a further one is a module with `SECTION` and its name here."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from profilemate.report.sections.section import Section

SECTIONS = (
    "recording",
    "advice",
    "overview",
    "steps",
    "kv",
    "graphs",
    "operations",
    "requests",
    "preemptions",
    "moe",
    "bandwidth",
    "encoder",
    "settings",
    "files",
)
"""In the order of the page: whether to trust it, what to do, the server, its requests, the model, the session."""


def section_of(name: str) -> Section:
    """A section by its name."""
    section: Section = import_module(f"{__name__}.{name}").SECTION
    return section
