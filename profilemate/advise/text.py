"""Findings and verdicts as text for a terminal, a pipe or a ticket."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TextIO

from profilemate.advise.finding import ACT, FINE, LOOK, THIN, Evidence, Finding, Gain, Verdict
from profilemate.advise.flags import shown
from profilemate.advise.run import LEVELS
from profilemate.frames.packages import load
from profilemate.session.records import text

if TYPE_CHECKING:
    from profilemate.advise.verify import Check

WORDS = {ACT: "act", LOOK: "look", THIN: "too little data", FINE: "fine"}
COUNTED = {ACT: "to act on", LOOK: "to look at", THIN: "with too little data", FINE: "fine"}
STYLES = {ACT: "bold red", LOOK: "bold yellow", THIN: "dim", FINE: "bold green"}
WIDTH = 80
INDENT = 3
MANY = 1000


def print_findings(heading: str, findings: Sequence[Finding], file: TextIO) -> None:
    """Numbered findings; lines to be copied are never broken, all else is fitted into the terminal's or 80 columns."""
    page = Page(file)
    page.line(heading, "bold")
    page.line(counted(findings))
    for number, finding in enumerate(findings, 1):
        page.blank()
        page.line(
            f"{number}. {WORDS.get(finding.level, finding.level)}: {finding.title}", STYLES.get(finding.level, "")
        )
        page.paragraph(finding.says)
        if finding.flags:
            page.copyable("Set", finding.command_line)
        for line in finding.alternatives:
            page.copyable("Or", line)
        for gain in finding.gains:
            page.entry("Gain", gain_text(gain))
        if finding.evidence:
            page.entry("Evidence", "; ".join(map(evidence_text, finding.evidence)))
        if finding.to_be_sure:
            page.entry("To be sure", finding.to_be_sure)
        page.entry("Name", finding.name, "dim")


def print_check(heading: str, check: Check, file: TextIO) -> None:
    """Each prediction with its range, what was observed, and whether it holds."""
    page = Page(file)
    page.line(heading, "bold")
    held = sum(verdict.holds for verdict in check.verdicts)
    page.line(f"{held} of {len(check.verdicts)} predictions hold")
    for number, verdict in enumerate(check.verdicts, 1):
        page.blank()
        word, style = ("holds", STYLES[FINE]) if verdict.holds else ("does not hold", STYLES[ACT])
        page.line(f"{number}. {word}: {verdict.quantity} ({verdict.name})", style)
        page.paragraph(verdict_text(verdict))
        if verdict.says:
            page.paragraph(verdict.says)
    if check.skipped:
        page.blank()
        page.line("Not looked up:")
        for one in check.skipped:
            page.paragraph(f"{one.name}: {'; '.join(one.reasons)}")
    if check.also_changed:
        page.blank()
        page.line("These settings differ too, and no prediction knows of it:")
        for key, (old, new) in check.also_changed.items():
            page.paragraph(f"{key}: {shown(old)} before, {shown(new)} after")


def counted(findings: Sequence[Finding]) -> str:
    """How many of each level."""
    levels = Counter(finding.level for finding in findings)
    parts = [f"{levels[level]} {COUNTED[level]}" for level in LEVELS if levels[level]]
    return f"{len(findings)} finding{'' if len(findings) == 1 else 's'}" + (f": {', '.join(parts)}" if parts else "")


def gain_text(gain: Gain) -> str:
    """Now, expected, the range, and where it comes from."""
    unit = f" {gain.unit}" if gain.unit else ""
    span = "exactly" if gain.low == gain.high else f"{number_text(gain.low)} to {number_text(gain.high)}"
    how = f"; {gain.how}" if gain.how else ""
    return f"{gain.quantity}: {number_text(gain.now)} now, {number_text(gain.expected)}{unit} expected ({span}{how})"


def verdict_text(verdict: Verdict) -> str:
    """Predicted, range, observed."""
    unit = f" {verdict.unit}" if verdict.unit else ""
    return (
        f"predicted {number_text(verdict.predicted)}{unit} ({number_text(verdict.low)} to {number_text(verdict.high)}), "
        f"observed {number_text(verdict.observed)}{unit}"
    )


def evidence_text(evidence: Evidence) -> str:
    """Which rows of which table."""
    which = f" ({evidence.which})" if evidence.which else ""
    return f"{evidence.table}, {evidence.rows:,} row{'' if evidence.rows == 1 else 's'}{which}"


def number_text(value: float) -> str:
    """Whole numbers whole; of others as many digits as tell something."""
    if not math.isfinite(value):
        return "unknown"
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= MANY else f"{value:.3g}"


class Page:
    """Lines of text on a terminal; on anything else plain and 80 columns wide."""

    def __init__(self, file: TextIO) -> None:
        """`file` is what is written to."""
        console = load("rich.console").Console
        width = None if file.isatty() else WIDTH
        self._console = console(file=file, width=width, highlight=False, markup=False, emoji=False)

    def blank(self) -> None:
        """An empty line."""
        self._console.print()

    def line(self, words: str, style: str = "") -> None:
        """A line at the margin, its further lines indented."""
        self._padded(words, 0, style, hanging=INDENT)

    def paragraph(self, words: str) -> None:
        """Indented, broken into lines."""
        self._padded(words, INDENT, "")

    def entry(self, name: str, words: str, style: str = "") -> None:
        """A named paragraph, its further lines under its first."""
        self._padded(f"{name}: {words}", INDENT, style, hanging=2)

    def copyable(self, name: str, line: str) -> None:
        """A line that must stay one line."""
        self._console.print(" " * INDENT + f"{name}: {text(line)}", soft_wrap=True, style="bold")

    def _padded(self, words: str, indent: int, style: str = "", hanging: int = 0) -> None:
        first, further = " " * indent, " " * (indent + hanging)
        wide = self._console.width - len(further)
        for number, line in enumerate(self._broken(words, wide)):
            self._console.print((further if number else first) + line, style=style, soft_wrap=True)

    def _broken(self, words: str, width: int) -> list[Any]:
        plain = load("rich.text").Text(text(words))
        return [line.plain.rstrip() for line in plain.wrap(self._console, max(20, width))]


__all__ = [
    "Page", "counted", "evidence_text", "gain_text", "number_text", "print_check", "print_findings", "verdict_text"
]  # fmt: skip
