"""Which flag to change, to what, why, what it should bring."""

from __future__ import annotations

from profilemate.advise.finding import ACT
from profilemate.report.model import Part
from profilemate.report.sections.section import SERVER, Section
from profilemate.report.source import Source

OPEN = (ACT,)
"""What to do is shown with its flag and gain; of all other findings the title, and the rest when it is asked for."""


def build(source: Source) -> Part:
    """All findings, as `profilemate advise` gives them."""
    from profilemate.advise.run import has_failed
    from profilemate.advise.text import WORDS, counted

    extra = {"findings": source.findings, "words": WORDS, "open": OPEN}
    failed = tuple(f"{finding.title}: {finding.says}" for finding in source.findings if has_failed(finding))
    return Part(lead=(f"{counted(source.findings)}.",), extra=extra, faults=failed)


SECTION = Section("advice", "Advice", SERVER, build, template="advice.html")
