"""The summary for people, from metadata.json's content: also of a session whose detail is gone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from profilemate.export.words import count_text, indented, names_text, seconds_text
from profilemate.session.records import items_of, table_of, text
from profilemate.trackers import NAMES
from profilemate.trackers.view import OFF, View, lines_of, view_of

COSTLIEST = 3


def told(lines: Callable[[], list[str]]) -> list[str]:
    """What a part of the record tells; of a metadata.json that somebody changed it may be no number at all."""
    try:
        return lines()
    except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError):
        return ["unknown: metadata.json holds something else here than ProfileMate writes"]


def summary_lines(record: dict[str, Any]) -> list[str]:
    """All of it, some ten lines for every tracker that has something to tell."""
    summary = table_of(record.get("summary"))
    lines = session_lines(record)
    for tracker, view in _views(summary):
        lines += ["", view.heading, *indented(told(lambda: lines_of(view, table_of(summary.get(tracker)))))]  # noqa: B023, called at once
    return [
        *lines,
        "",
        "Health of the recording",
        *indented(told(lambda: health_lines(record))),
        "",
        "Time in ProfileMate's own code, estimated from the calls that were timed",
        *indented(told(lambda: own_cost_lines(summary))),
    ]


def short_lines(record: dict[str, Any]) -> list[str]:
    """The most important lines of each tracker, for the end of a run."""
    summary = table_of(record.get("summary"))
    lines = [line for tracker, view in _views(summary) for line in _short(view, table_of(summary.get(tracker)))]
    health = told(lambda: health_lines(record))
    more = [f"{len(health) - 1} more remarks: profilemate summary"] if len(health) > 2 else health[1:2]
    return [session_lines(record)[0], *indented([*lines, *health[:1], *more])]


def _short(view: View, record: dict[str, Any]) -> list[str]:
    return [] if record == OFF else told(lambda: view.lines(record))[: view.num_short_lines]


def _views(summary: dict[str, Any]) -> list[tuple[str, View]]:
    """The views of the trackers that the record tells of, in their order."""
    return [(name, view_of(name)) for name in NAMES if name in summary]


def session_lines(record: dict[str, Any]) -> list[str]:
    """Which session, and its processes."""
    session = table_of(record.get("session"))
    processes = [table_of(process) for process in items_of(record.get("processes"))]
    versions = {table_of(process.get("versions")).get("vllm") for process in processes} - {None, ""}
    vllm = f", vLLM {', '.join(sorted(text(version) for version in versions))}" if versions else ""
    roles = names_text([process.get("role") for process in processes]) if processes else "none recorded"
    return [
        f"{text(session.get('session_id'))}, begun {text(session.get('created'))} on {text(session.get('host'))}{vllm}",
        f"Processes: {roles}",
    ]


def health_lines(record: dict[str, Any]) -> list[str]:
    """Whether the numbers can be trusted, beginning with a verdict."""
    health = table_of(table_of(record.get("summary")).get("health"))
    misfits, failed = items_of(health.get("did_not_fit")), items_of(health.get("failed"))
    lost, never = items_of(health.get("lost_rows")), items_of(health.get("never_called"))
    rows = sum(table_of(row).get("rows") or 0 for row in lost)
    lines = [
        f"hooks in place {count_text(health.get('hooks_in_place'))}, did not fit {len(misfits)}, failed {len(failed)}, "
        f"rows lost or removed {count_text(rows)}, as of {seconds_text(health.get('as_of_sec'))}"
    ]
    lines += [
        f"did not fit: {text(table_of(h).get('name'))} ({text(table_of(h).get('reason'))[:160]})" for h in misfits
    ]
    lines += [
        f"failed {count_text(table_of(h).get('failures'))} times, {text(table_of(h).get('state'))}: "
        f"{text(table_of(h).get('name'))}"
        for h in failed
    ]
    lines += [f"rows missing: {count_text(table_of(row).get('rows'))} of {text(table_of(row).get('table'))} "
              f"({text(table_of(row).get('reason'))})" for row in lost]  # fmt: skip
    if never:
        lines.append(f"in place but never called: {names_text(never)}")
    unused = table_of(health.get("not_in_use"))
    if unused:
        lines.append(f"parts of vLLM that this run did not use: {names_text(list(unused))}")
    for key in ("findings", "notes", "faults"):
        lines += [text(sentence) for sentence in items_of(record.get(key))]
    return lines


def own_cost_lines(summary: dict[str, Any]) -> list[str]:
    """Per process: the whole, its share of the run, per engine step, and the hooks that took most."""
    costs = [table_of(cost) for cost in items_of(summary.get("own_cost"))]
    return [line for cost in costs for line in _process_cost_lines(cost)] or ["not known: no process told its calls"]


def _percent(share: Any) -> str:
    return f"{100 * share:.3g} %" if isinstance(share, (int, float)) else "unknown"


def _process_cost_lines(cost: dict[str, Any]) -> list[str]:
    step = cost.get("microseconds_per_step")
    per_step = f", {step:.1f} us per engine step" if isinstance(step, (int, float)) else ""
    hooks = [table_of(hook) for hook in items_of(cost.get("hooks"))]
    lines = [
        f"{text(cost.get('role'))}: {seconds_text(cost.get('seconds'))} in {seconds_text(cost.get('run_seconds'))} "
        f"({_percent(cost.get('share'))}){per_step}"
    ]
    if per_step:
        lines += [
            f"  {seconds_text(hook.get('seconds')):>9}  {text(hook.get('name'))}: {count_text(hook.get('calls'))} calls, "
            f"{count_text(hook.get('timed_calls'))} timed"
            for hook in hooks[:COSTLIEST]
        ]
    return lines
