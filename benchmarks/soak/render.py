"""The table of docs/reliability.md, written between markers from results.json, so that nobody types one by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

BEGIN, END = "<!-- soak: begin, written by `make soak` -->", "<!-- soak: end -->"
HEAD = (
    "fault", "times", "requests answered", "failed", "answered without us", "failed without us", "rows lost", "named in",
)  # fmt: skip


def cells(*texts: object) -> str:
    """One row of a table."""
    return "| " + " | ".join(map(str, texts)) + " |"


def lost_words(lost: dict[str, int]) -> str:
    """Rows by reason."""
    return ", ".join(f"{rows:,} ({reason})" for reason, rows in lost.items()) or "0"


def fault_row(total: dict[str, Any]) -> str:
    """One fault of the table."""
    counts = [total[name] for name in ("answered", "failed", "answered_bare", "failed_bare")]
    return cells(
        total["fault"], total["times"], *(f"{count:,}" for count in counts), lost_words(total["lost"]),
        total["named_in"] or "-",
    )  # fmt: skip


def text(results: dict[str, Any]) -> str:
    """All that stands between the markers."""
    kills, ends = results["kills"], results["ends"]
    table = [cells(*HEAD), cells(*["---"] * len(HEAD)), *(fault_row(total) for total in results["faults"])]
    steps, rows = sum(end["steps"] for end in ends), sum(end["step_rows"] for end in ends)
    missing = sum(end["step_rows_named_missing"] for end in ends)
    troubles = sum(total["troubles"] for total in results["faults"]) + sum(len(end["troubles"]) for end in ends)
    return "\n".join(
        [
            f"`{results['command']}`: {results['minutes']:.0f} minutes, {len(ends)} servers with ProfileMate, each beside one "
            f"without it under the same load and faults, vLLM {results['vllm']}, {results['cores']} cores, load average "
            f"{results['load_average']:.0f} at the end, {results['date'][:10]}.",
            "",
            *table,
            "",
            f"Steps that an oracle outside of ProfileMate saw finish in the sessions that could be read: "
            f"{steps - gone(ends):,}; rows of them at the end: {rows:,}; rows that the sessions name as missing: {missing:,}.",
            "",
            f"`kill -9` in the scheduler driver: {kills['kills']} kills, {kills['kills_before_a_session']} of them before "
            f"there was a session; {kills['steps_finished']:,} steps had finished, all of them are recorded; "
            f"{kills['faults']} lost steps or unreadable files.",
            "",
            f"Checks that failed: {troubles + kills['faults']}.",
        ]
    )


def gone(ends: list[dict[str, Any]]) -> int:
    """Steps of sessions that were removed."""
    return sum(end["steps"] for end in ends if not end["step_rows"])


def render(results: dict[str, Any], document: Path) -> None:
    """Write the part between the markers of a document anew."""
    whole = document.read_text()
    before, found, rest = whole.partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not found or not ended:
        raise ValueError(f"{document.name} lacks the markers of the soak")
    document.write_text(f"{before}{BEGIN}\n{text(results)}\n{END}{after}")
