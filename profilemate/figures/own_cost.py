"""What ProfileMate itself cost, by process and by hook."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import altair as alt
import polars as pl

from profilemate.figures import style
from profilemate.figures.columns import most
from profilemate.figures.source import Drawn, Missing, health_of, notes
from profilemate.figures.style import kinds, present
from profilemate.figures.words import amount, duration, share
from profilemate.session.own_cost import HookCost, ProcessCost, read_own_cost

if TYPE_CHECKING:
    from profilemate.frames.session import Session

MOST_HOOKS = 15
ROLES = kinds(("front end", "green"), ("engine core", "blue"), ("worker", "orange"), ("other", "grey"))
ROLE_WORDS = {
    "APIServer": "front end",
    "LLM": "front end",
    "Script": "front end",
    "EngineCore": "engine core",
    "Worker": "worker",
}
ESTIMATE = "Calls are counted; their time is that of a sample, times the calls."


def _costs(session: Session) -> tuple[ProcessCost, ...]:
    costs = read_own_cost(session, health_of(session))
    if not costs:
        raise Missing("no process told how often its hooks were called")
    return costs


def _role(process: ProcessCost) -> str:
    return ROLE_WORDS.get(process.role.split("_")[0], "other")


def own_cost_by_process(session: Session) -> Drawn:
    """Share of each process's run that was spent in ProfileMate's code."""
    costs = _costs(session)
    rows = []
    for cost in costs:
        label = cost.role if sum(one.role == cost.role for one in costs) == 1 else cost.process
        per_step = f", {duration(cost.step_ns / 1e9)} per step" if cost.step_ns else ""
        text = f"{share(cost.spent_ns, cost.run_ns)} of {duration(cost.run_ns / 1e9)}{per_step}"
        rows.append((label, _role(cost), 100 * (cost.share or 0), cost.spent_ns / 1e6, (cost.step_ns or 0) / 1e3, text))
    frame = pl.DataFrame(
        rows, schema=["process", "kind", "share", "spent_ms", "step_us", "text"], orient="row"
    ).with_columns(pl.col("share", "spent_ms", "step_us").cast(pl.Float64).round_sig_figs(5))
    worst = max(costs, key=lambda cost: cost.share or 0)
    spent = sum(cost.spent_ns for cost in costs) / 1e9
    says = f"ProfileMate's own code took {duration(spent)} in {amount(len(costs), 'process', 'processes')}, "
    says += f"at most {share(worst.spent_ns, worst.run_ns)} of one ({worst.role})."
    chart = _bars(frame, "process", alt.X("share:Q", title="share of the process's time in ProfileMate's code (%)"))
    return Drawn(style.chart_of(chart, says, height=28 * len(costs) + 14), says, ESTIMATE)


def own_cost_by_hook(session: Session) -> Drawn:
    """The hooks on which most time was spent."""
    roles = {cost.process: _role(cost) for cost in _costs(session)}
    hooks = [hook for cost in _costs(session) for hook in cost.hooks]
    known = sorted((hook for hook in hooks if hook.spent_ns), key=lambda hook: -(hook.spent_ns or 0))
    if not known:
        raise Missing("no call of a hook was timed")
    whole = sum(hook.spent_ns or 0 for hook in known)
    shown = known[:MOST_HOOKS]
    frame = pl.DataFrame(
        [
            (label, roles[hook.process], (hook.spent_ns or 0) / 1e6, hook.calls, hook.timed_calls, _per_call(hook))
            for label, hook in _labelled(shown)
        ],
        schema=["hook", "kind", "spent_ms", "calls", "timed_calls", "text"], orient="row",
    ).with_columns(pl.col("spent_ms").round_sig_figs(5))  # fmt: skip
    top = shown[0]
    says = (
        f"Of {duration(whole / 1e9)} in the handlers of {len(known)} hooks, {top.hook} took {share(top.spent_ns or 0, whole)} "
        f"({top.calls:,} calls)."
    )
    chart = _bars(frame, "hook", alt.X("spent_ms:Q", title="time in ProfileMate's code (ms)"))
    untimed = sum(1 for hook in hooks if hook.spent_ns is None)
    return Drawn(
        style.chart_of(chart, says, height=style.ROW_HEIGHT * len(shown) + 14), says,
        notes(
            f"The {len(shown)} costliest of {len(known)} hooks are shown." if len(known) > len(shown) else "",
            f"Of {untimed} hooks no call was timed." if untimed else "", ESTIMATE,
        ),
    )  # fmt: skip


def _labelled(hooks: list[HookCost]) -> list[tuple[str, HookCost]]:
    """With the process where several of those shown have the same hook."""
    names = [hook.hook for hook in hooks]
    return [(hook.hook if names.count(hook.hook) == 1 else f"{hook.hook}, {hook.process}", hook) for hook in hooks]


def _per_call(hook: HookCost) -> str:
    return (
        f"{duration((hook.spent_ns or 0) / 1e9)}: {hook.calls:,} x {duration((hook.spent_ns or 0) / hook.calls / 1e9)}"
    )


def _bars(frame: pl.DataFrame, label: str, x: Any) -> Any:
    """Horizontal bars with their text beside them."""
    field = str(x.shorthand).split(":")[0]
    among = present(ROLES, frame["kind"].unique().to_list())
    y = alt.Y(f"{label}:N", title=None, sort=list(frame[label]))
    scaled = x.copy()
    scaled["scale"] = alt.Scale(domain=[0, 1.7 * (most(frame[field]) or 1)], nice=False)
    scaled["axis"] = alt.Axis(grid=True, tickCount=6)
    base = alt.Chart(frame)
    details = [
        alt.Tooltip(f"{name}:{'N' if frame[name].dtype == pl.String else 'Q'}", title=name.replace("_", " "))
        for name in frame.columns
    ]
    bars = base.mark_bar(height={"band": 0.75}).encode(y=y, x=scaled, color=style.by_kind(among), tooltip=details)
    text = base.mark_text(align="left", dx=5, baseline="middle").encode(y=y, x=scaled, text="text:N")
    return alt.layer(bars, text)
