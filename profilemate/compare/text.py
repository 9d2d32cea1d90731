"""A comparison as text that fits the terminal; nothing but spaces where it is piped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from profilemate.compare.catalogue import NUMBERS
from profilemate.compare.change import BETTER, BEYOND, DIFFERS, FOUND, SAME, SINGLE, SMALL, UNSURE, WORSE, Change
from profilemate.compare.comparison import Comparison, Side
from profilemate.compare.conditions import HOLDS, Outcome
from profilemate.compare.ladder import ladders
from profilemate.compare.shown import NONE, change_text, interval_text, p_text, value_text
from profilemate.compare.steady import SLICES
from profilemate.frames.packages import load

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

STYLES = {
    WORSE: "bold red",
    BETTER: "bold green",
    DIFFERS: "bold yellow",
    SMALL: "",
    SAME: "dim",
    UNSURE: "dim",
    SINGLE: "dim",
}
WORDS = {SAME: "within noise", SMALL: "small", UNSURE: "cannot tell"}
WIDE = 104
"""From so many columns on there is room for the interval and p."""

WIDEST_SETTING = 60
TITLE_WIDTH, VALUE_WIDTH, SESSION_WIDTH, GRAPH_WIDTH, RUNG_WIDTH = 32, 13, 35, 16, 20
"""Columns that titles, a value, a later session's value with change and verdict, a graph's name and its use need at most."""


def print_comparison(
    comparison: Comparison, outcomes: Sequence[Outcome], console: Console, everything: bool = False
) -> None:
    """All of it: sessions, settings, verdict, numbers, graphs, totals, conditions."""
    printer = _Printer(comparison, console)
    printer.sessions()
    printer.settings()
    printer.verdict()
    printer.numbers()
    printer.graphs()
    printer.totals()
    if everything:
        printer.reasons()
    printer.outcomes(outcomes)


class _Printer:
    def __init__(self, comparison: Comparison, console: Console) -> None:
        self.comparison, self.console = comparison, console
        self.sides = comparison.sides
        self.is_wide = console.width >= WIDE and len(self.sides) == 2

    def say(self, text: str = "", style: str = "") -> None:
        """A paragraph; whatever is in it is no markup."""
        self.console.print(load("rich.text").Text(text, style=style))

    def heading(self, text: str) -> None:
        self.say()
        self.say(text, "bold")

    def table(self) -> Table:
        table: Table = load("rich.table").Table(
            box=None, show_header=True, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0)
        )
        return table

    def show(self, table: Table) -> None:
        self.console.print(table)

    def sessions(self) -> None:
        for side in self.sides:
            of = "" if side.steady is None else f", {side.steady.seconds:.1f} s of it compared"
            self.say(f"{side.label}  {side.name}{of}", "bold")
            for note in side.notes:
                self.say(f"   {note}", "dim")

    def settings(self) -> None:
        rows = self.comparison.settings
        self.heading("Settings that differ" if rows else "Settings: no difference")
        if not rows:
            return
        table = self.table()
        for name in ("", "setting", *(side.label for side in self.sides)):
            table.add_column(name, overflow="fold")
        for row in rows:
            values = [NONE if value is None else shortened(value) for value in row.values]
            table.add_row(*map(load("rich.text").Text, (row.area, row.name, *values)))
        self.show(table)

    def verdict(self) -> None:
        """What is beyond the noise, in words."""
        for side, changes in zip(self.sides[1:], self.comparison.changes, strict=True):
            self.heading(f"{side.label} against {self.sides[0].label}: {counted(changes)}")
            for word in FOUND:
                for change in changes:
                    if change.verdict == word:
                        self.say(f"  {word:<8} {sentence(change)}", STYLES[word])
        for said in self.comparison.load_doubts:
            self.say(f"  {said}", "yellow")
        for said in self.comparison.load:
            self.say(f"  the load differs: {said}", "bold yellow")
        if self.comparison.load:
            self.say("  With another load, a change of latency or throughput is not about the settings alone.")

    def numbers(self) -> None:
        """One table by group; several where the terminal has no room for all sessions side by side."""
        self.heading("Numbers")
        later = list(range(len(self.sides) - 1))
        for places in chunks(later, (self.console.width - TITLE_WIDTH - VALUE_WIDTH) // SESSION_WIDTH):
            self._numbers_of(places)
        note = f"Of the steady part of each session, in {SLICES} time slices."
        if self.is_wide:
            note += " p is adjusted for all numbers; the interval is each number's own."
        self.say(note, "dim")

    def _numbers_of(self, places: Sequence[int]) -> None:
        """The baseline and some later sessions."""
        table = self.table()
        table.add_column("")
        table.add_column(self.sides[0].label, justify="right", no_wrap=True)
        for place in places:
            table.add_column(self.sides[place + 1].label, justify="right", no_wrap=True)
            table.add_column("change", justify="right", no_wrap=True)
            if self.is_wide:
                table.add_column("95 %", justify="right", no_wrap=True)
                table.add_column("p", justify="right", no_wrap=True)
            table.add_column("", no_wrap=True)
        group = ""
        for row, number in enumerate(NUMBERS):
            changes = [self.comparison.changes[place][row] for place in places]
            if not any(is_there(change) for change in changes):
                continue
            if number.group != group:
                group = number.group
                table.add_row(load("rich.text").Text(group, style="bold"))
            table.add_row(number.title, value_text(number, changes[0].before.value), *self._cells(changes))
        self.show(table)

    def _cells(self, changes: Sequence[Change]) -> Iterator[Any]:
        text = load("rich.text").Text
        for change in changes:
            style = STYLES[change.verdict]
            yield value_text(change.number, change.after.value)
            yield text(change_text(change), style=style)
            if self.is_wide:
                yield text(interval_text(change), style="dim")
                yield text(p_text(change), style="dim")
            yield text(WORDS.get(change.verdict, change.verdict), style=style)

    def graphs(self) -> None:
        """The ladders: passes that replayed each size, and what was captured in vain."""
        steps = ladders([side.material for side in self.sides])
        if not steps:
            return
        self.heading("Graphs: passes that replayed them (captured but never replayed: 0; not captured: -)")
        for places in chunks(range(len(self.sides)), (self.console.width - GRAPH_WIDTH) // RUNG_WIDTH):
            table = self.table()
            table.add_column("graph")
            for place in places:
                table.add_column(self.sides[place].label, justify="right")
                table.add_column("of passes", justify="right")
            for step in steps:
                rungs = [step.rungs[place] for place in places]
                cells = [
                    word
                    for rung in rungs
                    for word in ((NONE, "") if rung is None else (f"{rung.replays:,}", f"{100 * rung.share:.1f} %"))
                ]
                table.add_row(f"{step.mode} {step.size}", *cells)
            self.show(table)

    def totals(self) -> None:
        """Exact counts."""
        self.heading("Totals of the whole sessions")
        for places in chunks(range(len(self.sides)), (self.console.width - TITLE_WIDTH) // VALUE_WIDTH):
            table = self.table()
            table.add_column("")
            for place in places:
                table.add_column(self.sides[place].label, justify="right")
            for n, total in enumerate(self.sides[0].totals):
                values = [self.sides[place].totals[n].value for place in places]
                if any(values):
                    table.add_row(total.title, *(NONE if one is None else f"{one:,}" for one in values))
            self.show(table)

    def reasons(self) -> None:
        """Why nothing can be told of some numbers."""
        for side, changes in zip(self.sides[1:], self.comparison.changes, strict=True):
            self.heading(f"{side.label}: why nothing can be told")
            for change in changes:
                if change.verdict == UNSURE and is_there(change):
                    self.say(f"  {change.number.name}: {change.why}")

    def outcomes(self, outcomes: Sequence[Outcome]) -> None:
        if outcomes:
            self.heading("Conditions")
        for outcome in outcomes:
            self.say(f"  {outcome.says}", "bold red" if outcome.state == HOLDS else "")


def chunks(places: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    """At most so many at a time, one at least."""
    size = max(1, size)
    for begin in range(0, len(places), size):
        yield places[begin : begin + size]


def is_there(change: Change) -> bool:
    """Whether either session has the number, and not both have nothing of it."""
    return bool(change.before.value) or bool(change.after.value)


def counted(changes: Sequence[Change]) -> str:
    """How many numbers got which verdict."""
    counts = Counter(change.verdict for change in changes if is_there(change))
    beyond = sum(counts[word] for word in BEYOND)
    kinds = ", ".join(f"{counts[word]} {word}" for word in FOUND if counts[word])
    rest = [f"{counts[SAME] + counts[SMALL]} within it or small", f"{counts[UNSURE]} cannot be told"]
    first = f"{beyond} numbers beyond the noise ({kinds})" if beyond else "nothing beyond the noise"
    return ", ".join([first, *rest])


def sentence(change: Change) -> str:
    """A number and how it changed."""
    number = change.number
    went = f"{value_text(number, change.before.value)} -> {value_text(number, change.after.value)}"
    return f"{number.title}: {went} ({change_text(change)})"


def shortened(value: str) -> str:
    """A setting as the table has it."""
    return value if len(value) <= WIDEST_SETTING else f"{value[: WIDEST_SETTING - 3]}..."


def side_names(sides: Sequence[Side]) -> str:
    """For a title."""
    return ", ".join(f"{side.label} {side.name}" for side in sides)
