"""Whether the figures can be trusted: own overhead, hooks, and what is missing."""

from __future__ import annotations

from typing import Any

from profilemate.report.model import Column, Grid, Number, Numbers, Part
from profilemate.report.numbers import count, in_time_unit, is_number, significant
from profilemate.report.sections.section import SESSION, Section
from profilemate.report.source import Source
from profilemate.session.records import items_of, table_of, text

COSTLIEST_HOOKS = 5
HOOK_PROBLEMS = (
    ("did_not_fit", "did not fit this vLLM"),
    ("failed", "failed in ProfileMate's own code"),
)


def build(source: Source) -> Part:
    """A verdict, what is missing in sentences, and two tables."""
    health = source.tracker("health")
    missing = problems(source)
    return Part(
        lead=(verdict(health, missing),),
        numbers=(_cost(source), _hooks(health)),
        grids=tuple(grid for grid in (_hook_problems(health), _costliest(source)) if grid.rows),
        extra={"missing": missing, "notes": _sentences(source, "notes"), "findings": _sentences(source, "findings")},
    )


def problems(source: Source) -> list[str]:
    """What a reader must know before believing a number: damage, lost rows, caps, hooks that did not do their work."""
    health = source.tracker("health")
    said = [f"{text(fault)}" for fault in items_of(source.record.get("faults"))]
    said += [
        f"{_count(table_of(row).get('rows'))} rows of {text(table_of(row).get('table'))} are missing "
        f"({text(table_of(row).get('reason'))})"
        for row in items_of(health.get("lost_rows"))
    ]
    for key, words in HOOK_PROBLEMS:
        named = [text(table_of(hook).get("name")) for hook in items_of(health.get(key))]
        if named:
            said.append(f"{words}: {', '.join(named)}")
    if not items_of(source.record.get("processes")):
        said.append("no vLLM process was recorded in this session")
    return said


def verdict(health: dict[str, Any], missing: list[str]) -> str:
    """One sentence on the whole."""
    if missing:
        return "Not everything was recorded: the figures lack what is listed here."
    if not health.get("hooks_in_place"):
        return "Nothing tells of hooks: this session may be older, or was stopped before its first step."
    return "Recorded whole: every hook that belongs to this vLLM is in place, none failed, and no row was lost."


def _count(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else "some"


def _sentences(source: Source, key: str) -> list[str]:
    return [text(sentence) for sentence in items_of(source.record.get(key))]


def _cost(source: Source) -> Numbers:
    items: list[Number] = []
    for cost in map(table_of, items_of(source.summary.get("own_cost"))):
        share, step_us, seconds = cost.get("share"), cost.get("microseconds_per_step"), cost.get("seconds")
        notes = []
        if is_number(seconds):
            notes.append(" ".join(in_time_unit(seconds)) + " in all")
        if is_number(step_us):
            notes.append(f"{significant(step_us)} µs per engine step")
        value = significant(100 * share, 2) if is_number(share) else "unknown"
        items.append(Number(text(cost.get("role")), value, "% of its time", ", ".join(notes)))
    return Numbers("Own overhead, estimated from timed calls", tuple(items))


def _hooks(health: dict[str, Any]) -> Numbers:
    lost = sum(rows for row in items_of(health.get("lost_rows")) if isinstance(rows := table_of(row).get("rows"), int))
    return Numbers(
        "Hooks and rows",
        (
            count("In place", health.get("hooks_in_place"), "hooks"),
            count("Did not fit", len(items_of(health.get("did_not_fit"))) if health else None, "hooks"),
            count("Failed", len(items_of(health.get("failed"))) if health else None, "hooks"),
            count("In place, never called", len(items_of(health.get("never_called"))) if health else None, "hooks"),
            count("Lost or removed", lost if health else None, "rows"),
        ),
    )


def _hook_problems(health: dict[str, Any]) -> Grid:
    rows = tuple(
        (text(hook.get("name")), words, text(hook.get("reason")))
        for key, words in HOOK_PROBLEMS
        for hook in map(table_of, items_of(health.get(key)))
    )
    return Grid("Hooks that did not do their work", (Column("Hook"), Column("What"), Column("Reason")), rows)


def _share(seconds: Any, run_seconds: Any) -> str:
    return significant(100 * seconds / run_seconds, 2) if is_number(run_seconds) and run_seconds else ""


def _costliest(source: Source) -> Grid:
    rows = [
        (table_of(cost), table_of(hook))
        for cost in map(table_of, items_of(source.summary.get("own_cost")))
        for hook in items_of(table_of(cost).get("hooks"))
        if is_number(table_of(hook).get("seconds"))
    ]
    rows.sort(key=lambda pair: -pair[1]["seconds"])
    shown = tuple(
        (
            text(hook.get("name")),
            text(cost.get("role")),
            _count(hook.get("calls")),
            _count(hook.get("timed_calls")),
            significant(1e3 * hook["seconds"]),
            _share(hook["seconds"], cost.get("run_seconds")),
        )
        for cost, hook in rows[:COSTLIEST_HOOKS]
    )
    columns = (
        Column("Hook"),
        Column("Process"),
        Column("Calls", True),
        Column("Timed", True),
        Column("Time (ms)", True),
        Column("Share (%)", True),
    )
    return Grid("Hooks that cost most", columns, shown)


SECTION = Section("recording", "The recording", SESSION, build, figures=("own_cost",), template="recording.html")
