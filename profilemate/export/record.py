"""The summary as plain data: what metadata.json keeps and `profilemate summary` shows."""

from __future__ import annotations

from profilemate.export.analysis import Analysis
from profilemate.export.values import in_seconds, rounded
from profilemate.session.health import Health, HookHealth
from profilemate.session.own_cost import ProcessCost
from profilemate.trackers.view import OFF, Record, was_on

NAMED_HOOKS = 40


def summary_record(analysis: Analysis) -> Record:
    """Every tracker's part, under its name, then health and own cost."""
    return {
        **{
            part.name: part.view.record(part.result) if was_on(analysis.session, part.name) else OFF
            for part in analysis.parts
        },
        "health": health_record(analysis.health),
        "own_cost": [own_cost_record(cost) for cost in analysis.own_cost],
    }


def health_record(health: Health) -> Record:
    """Hooks that did not do their work, and lost rows by table and reason."""
    lost: dict[tuple[str, str], int] = {}
    for row in health.lost:
        lost[row.table, row.reason] = lost.get((row.table, row.reason), 0) + row.rows
    return {
        "as_of_sec": in_seconds(health.as_of_ns),
        "hooks_in_place": len(health.in_state("put_in")),
        "did_not_fit": [_hook_record(hook) for hook in health.misfits[:NAMED_HOOKS]],
        "never_called": [hook.name for hook in health.never_called[:NAMED_HOOKS]],
        "not_in_use": dict(list(health.not_in_use.items())[:NAMED_HOOKS]),
        "failed": [{**_hook_record(hook), "failures": hook.failures} for hook in health.failed[:NAMED_HOOKS]],
        "lost_rows": [{"table": table, "reason": why, "rows": rows} for (table, why), rows in sorted(lost.items())],
    }


def _hook_record(hook: HookHealth) -> Record:
    return {"name": hook.name, "state": hook.state, "reason": hook.reason}


def own_cost_record(cost: ProcessCost) -> Record:
    """Time in our own code in one process, estimated from `timed_calls` of each hook's calls."""
    return {
        "process": cost.process,
        "role": cost.role,
        "seconds": in_seconds(cost.spent_ns),
        "run_seconds": in_seconds(cost.run_ns),
        "share": rounded(cost.share),
        "steps": cost.steps,
        "microseconds_per_step": None if cost.step_ns is None else round(cost.step_ns / 1e3, 3),
        "hooks": [
            {
                "name": hook.hook,
                "calls": hook.calls,
                "timed_calls": hook.timed_calls,
                "seconds": in_seconds(hook.spent_ns),
            }
            for hook in cost.hooks
        ],
    }
