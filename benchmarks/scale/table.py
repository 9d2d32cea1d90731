"""The measurements as a table."""

from __future__ import annotations

from collections.abc import Sequence

from scale.measure import Result

HEADER = (
    "command", "rows of each table", "session", "CPU seconds", "wall seconds", "CPU seconds per million rows",
    "peak memory", "load",
)  # fmt: skip


def table(results: Sequence[Result]) -> str:
    """Rows of one command together, so that one sees whether its time per row stays."""
    lines = [f"| {' | '.join(HEADER)} |", "| --- |" + " ---: |" * (len(HEADER) - 1)]
    for command in dict.fromkeys(one.command for one in results):
        lines += [_line(one) for one in results if one.command == command]
    return "\n".join(lines)


def _line(one: Result) -> str:
    cells = (
        one.command, f"{one.rows:,}", f"{one.session_bytes / 1e9:.2f} GB", f"{one.cpu_seconds:,.1f}",
        f"{one.wall_seconds:,.1f}", f"{one.cpu_seconds_per_million:,.1f}", f"{one.peak_bytes / 2**20:,.0f} MiB",
        f"{one.load_average}",
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"
