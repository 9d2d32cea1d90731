"""What each tracker cost a server, told by the session's own account: time in its hooks per engine step."""

from __future__ import annotations

from pathlib import Path

from overhead.samples import Figure

US_PER_NS = 1e-3


def tracker_figures(session: Path) -> list[Figure]:
    """One figure per tracker, over all processes of the session; see profilemate/probe/cost.py for how it is measured."""
    costs = tracker_costs(session)
    return [Figure(f"own account: {name}", "us per step", "value", [cost]) for name, cost in costs.items()]


def tracker_costs(session: Path) -> dict[str, float]:
    """Microseconds per engine step in the hooks of each tracker, the costliest first. Raises ValueError without steps."""
    from profilemate.session.health import read_health
    from profilemate.session.own_cost import read_own_cost
    from profilemate.session.session import Session

    opened = Session(session)
    trackers = {hook.name: hook.tracker for process in opened.processes for hook in process.hooks}
    processes = read_own_cost(opened, read_health(opened))
    steps = max((process.steps for process in processes), default=0)
    if not steps:
        raise ValueError("the session tells of no engine step after its first ones")
    spent: dict[str, float] = {}
    for process in processes:
        for hook in process.hooks:
            name = trackers.get(hook.hook, "probe")
            spent[name] = spent.get(name, 0.0) + hook.later_ns * US_PER_NS / steps
    return dict(sorted(spent.items(), key=lambda item: -item[1]))
