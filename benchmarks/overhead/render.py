"""The documents' figures, written between markers from benchmarks/results.json, so that nobody types one by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from overhead.places import OVERHEAD_PAGE, README
from overhead.verdict import INFORMATION, RULES, slowness

BEGIN, END = "<!-- benchmarks: begin, written by `make bench` -->", "<!-- benchmarks: end -->"
RATIO_UNIT = "x"
SHORT_VERDICT = {"met": "met", "not met": "**not met**", "beyond the gate": "**not met, beyond the gate**"}


class Document(NamedTuple):
    """A file and what goes between its markers."""

    path: Path
    text: Callable[[dict[str, Any]], str]


def number(value: float | None, unit: str = "") -> str:
    """Three significant digits, more for a ratio close to one; a dash for nothing."""
    if value is None:
        return "-"
    if unit == RATIO_UNIT and value < 1.1:
        return f"{value:.4f}"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:#.3g}"


def unit_after(unit: str) -> str:
    """A unit as it stands after a number."""
    return {"%": "%", RATIO_UNIT: ""}.get(unit, f" {unit_words(unit)}")


def quantity(value: float | None, unit: str) -> str:
    """A number with its unit."""
    return "-" if value is None else f"{number(value, unit)}{unit_after(unit)}"


def unit_words(unit: str) -> str:
    """A unit as it is printed."""
    return unit.replace("us", "\u00b5s") if unit.split()[:1] == ["us"] else unit


def cells(*texts: str) -> str:
    """One row of a table."""
    return "| " + " | ".join(texts) + " |"


def spread(side: dict[str, float] | None) -> str:
    """Minimum, median and quartiles of one side."""
    if side is None:
        return "-"
    quartiles = f"{number(side['quartile_low'])} to {number(side['quartile_high'])}"
    return f"{number(side['min'])} / {number(side['median'])} ({quartiles})"


def interval(effect: dict[str, Any]) -> str:
    """Where the true effect lies with 95 % confidence."""
    return f"{number(effect['low'], effect['unit'])} to {number(effect['high'], effect['unit'])}"


def target_words(figure: dict[str, Any]) -> str:
    """The limit of a figure."""
    target = figure["target"]
    return f"{RULES[target['rule']].words} {target['limit']:g}{unit_after(figure['effect']['unit'])}"


def at_the_targets_speed(figure: dict[str, Any]) -> str:
    """The effect there, and by how much the machine of the run was slower; a dash for what has no unit of time."""
    times, effect = slowness(figure), figure["effect"]
    return f"{quantity(effect['estimate'] / times, effect['unit'])} (here {times:.1f}x slower)" if times else "-"


def summary_table(results: dict[str, Any]) -> str:
    """Every figure that has a target."""
    head = ("what", "target", "measured", "95 % interval", "at the targets' speed", "verdict")
    lines = [cells(*head), cells(*["---"] * len(head))]
    for benchmark in results["benchmarks"].values():
        for figure in benchmark["figures"]:
            if figure["verdict"] != INFORMATION:
                effect = figure["effect"]
                lines.append(
                    cells(
                        f"{benchmark['title']}: {figure['name']}",
                        target_words(figure),
                        quantity(effect["estimate"], effect["unit"]),
                        interval(effect),
                        at_the_targets_speed(figure),
                        SHORT_VERDICT[figure["verdict"]],
                    )
                )
    return "\n".join(lines)


def figure_row(figure: dict[str, Any]) -> str:
    """One figure with its spread."""
    effect = figure["effect"]
    return cells(
        f"{figure['name']}, {unit_words(figure['unit'])}",
        spread(figure["with"]),
        spread(figure["without"]),
        f"{quantity(effect['estimate'], effect['unit'])} ({interval(effect)})",
        number(effect["of_minima"]),
        str(figure["samples"]),
    )


def benchmark_section(name: str, benchmark: dict[str, Any]) -> str:
    """One benchmark in full."""
    lines = [f"### {benchmark['title']}", ""]
    facts = "; ".join(f"{fact}: {text}" for fact, text in benchmark["facts"].items())
    lines += [f"`{name}`, {benchmark['date']}{'. ' if facts else ''}{facts}.", ""]
    lines += [cells("figure", "with: min / median (quartiles)", "without", "effect (95 %)", "of the minima", "rounds")]
    lines += [cells(*["---"] * 6)]
    lines += [figure_row(figure) for figure in benchmark["figures"]]
    return "\n".join(lines)


def surroundings(results: dict[str, Any]) -> str:
    """Machine, versions and command."""
    machine, versions = results["machine"], results["versions"]
    commands = sorted({benchmark["command"] for benchmark in results["benchmarks"].values()})
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']:g} GiB, Linux {machine['kernel']}; "
        f"Python {versions['python']}, torch {versions['torch']}, vLLM {versions['vllm']} (CPU build), "
        f"ProfileMate {versions['profilemate']}. Command: {', '.join(f'`{command}`' for command in commands)}."
    )


def overhead_page(results: dict[str, Any]) -> str:
    """For docs/overhead.md."""
    sections = [benchmark_section(name, benchmark) for name, benchmark in results["benchmarks"].items()]
    return "\n\n".join([surroundings(results), summary_table(results), *sections])


def readme_statement(results: dict[str, Any]) -> str:
    """For README.md: the figures that have targets, and where they come from."""
    return f"{summary_table(results)}\n\n{surroundings(results)}"


DOCUMENTS = (Document(OVERHEAD_PAGE, overhead_page), Document(README, readme_statement))


def between_markers(document: str, text: str) -> str:
    """The document with the text in its place. Raises ValueError where the markers are missing."""
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"there is no {BEGIN} ... {END}")
    return f"{before}{begin}\n{text}\n{end}{after}"


def render(results: dict[str, Any], documents: tuple[Document, ...] = DOCUMENTS) -> None:
    """Write the figures into every document."""
    for document in documents:
        old = document.path.read_text()
        new = between_markers(old, document.text(results))
        if new != old:
            document.path.write_text(new)
