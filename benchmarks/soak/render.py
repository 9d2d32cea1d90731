"""The table of docs/reliability.md, written between markers from results.json, so that nobody types one by hand."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Any

BEGIN, END = "<!-- soak: begin, written by `make soak` -->", "<!-- soak: end -->"
HEAD = (
    "fault", "times", "requests answered", "failed", "answered without us", "failed without us",
    "vLLM stood still by itself", "without us", "rows lost", "named in",
)  # fmt: skip


def cells(*texts: object) -> str:
    """One row of a table."""
    return "| " + " | ".join(map(str, texts)) + " |"


def lost_words(lost: dict[str, int]) -> str:
    """Rows by reason."""
    return ", ".join(f"{rows:,} ({reason})" for reason, rows in lost.items()) or "0"


def fault_row(total: dict[str, Any]) -> str:
    """One fault of the table."""
    counts = [total[name] for name in ("answered", "failed", "answered_bare", "failed_bare", "stalls", "stalls_bare")]
    return cells(
        total["fault"], total["times"], *(f"{count:,}" for count in counts), lost_words(total["lost"]),
        total["named_in"] or "-",
    )  # fmt: skip


def how(part: dict[str, Any]) -> str:
    """How a part was run."""
    return (
        f"`{part['command']}`, {part['minutes']:.0f} minutes, vLLM {part['vllm']}, {part['cores']} cores, load average "
        f"{part['load_average']:.0f} at the end, {part['date'][:10]}"
    )


def text(results: dict[str, Any]) -> str:
    """All that stands between the markers: the parts of which there was a whole run."""
    shown = (("servers", servers), ("beside", beside), ("kills", kills))
    parts = [show(results[name]) for name, show in shown if name in results]
    return "\n\n".join("\n".join(lines) for lines in parts)


def servers(part: dict[str, Any]) -> list[str]:
    """The table, and the sum of the accounts of all sessions that could be read in the end."""
    ends = [end for end in part["ends"] if end["step_rows"]]
    steps, rows, missing = (
        sum(end[name] for end in ends) for name in ("steps", "step_rows", "step_rows_named_missing")
    )
    return [
        f"{how(part)}. {len(part['ends'])} servers with ProfileMate, each beside one without it under the same load and the "
        "same faults:",
        "",
        cells(*HEAD),
        cells(*["---"] * len(HEAD)),
        *(fault_row(total) for total in part["faults"]),
        "",
        f"Steps that the oracle saw finish in the {len(ends)} sessions that were not removed: {steps:,}; rows of them at the "
        f"end: {rows:,}; rows that the sessions name as missing, for the size cap or a fault: {missing:,}. The sum may be one "
        f"more in each session: a step that was at its end at the kill. Checks that failed: {troubles(part)}.",
    ]


def kills(part: dict[str, Any]) -> list[str]:
    """The kills of the scheduler driver."""
    return [
        f"{how(part)}: {part['kills']} times `kill -9` in the scheduler driver, {part['kills_before_a_session']} of them "
        f"before there was a session. {part['steps_finished']:,} steps had finished. Lost steps and unreadable files: "
        f"{troubles(part)}."
    ]


TRIO_HEAD = (
    "| engine steps: with ProfileMate / without / without | CPU time of a step, ms | of a step, waited for a processor, ms |",
    "| --- | --- | --- |",
)


def beside(part: dict[str, Any]) -> list[str]:
    """Servers side by side without a fault, each trio in a line, and what of the differences is chance."""
    ours, chance, cpu, lines = [], [], [], []
    for trio in part["trios"]:
        (own, bare, again), (own_cpu, bare_cpu, again_cpu) = trio["steps"].values(), trio["cpu_ms_per_step"].values()
        ours.append(2 * own / (bare + again))
        chance.append(min(bare, again) / max(bare, again))
        cpu.append(2 * own_cpu / (bare_cpu + again_cpu))
        cells = (
            " / ".join(f"{value:{form}}" for value in trio[name].values())
            for name, form in (("steps", ","), ("cpu_ms_per_step", ".1f"), ("waited_ms_per_step", ".1f"))
        )
        lines.append(f"| {' | '.join(cells)} |")
    return [
        f"{how(part)}: {len(ours)} times three servers side by side under the same load, and nothing broken. Engine steps with "
        f"ProfileMate for each without, in the same time: {spread(ours)}; of the slower server without it for each of the "
        f"faster one: {spread(chance)}. CPU time of a step, with ProfileMate over without: {spread(cpu)}.",
        "",
        *TRIO_HEAD,
        *lines,
    ]


def spread(ratios: list[float]) -> str:
    """Median, least and greatest."""
    return f"{median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"


def troubles(part: dict[str, Any]) -> int:
    """Checks of a part that failed."""
    if "kills" in part:
        return int(part["faults"])
    if "trios" in part:
        return 0
    return sum(int(total["troubles"]) for total in part["faults"]) + sum(len(end["troubles"]) for end in part["ends"])


def render(results: dict[str, Any], document: Path) -> None:
    """Write the part between the markers of a document anew."""
    whole = document.read_text()
    before, found, rest = whole.partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not found or not ended:
        raise ValueError(f"{document.name} lacks the markers of the soak")
    document.write_text(f"{before}{BEGIN}\n{text(results)}\n{END}{after}")
