"""State of every hook in every process, as a matrix."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import altair as alt
import polars as pl

from profilemate.figures import style
from profilemate.figures.source import Drawn, Missing, health_of, notes
from profilemate.figures.style import kinds, present
from profilemate.session.health import Health, ProcessHook

if TYPE_CHECKING:
    from profilemate.frames.session import Session

CALLED, SILENT, WAITING = "in place, called", "in place, not called", "its module was not imported"
ABSENT, MISFIT, FAILED, OFF = (
    "not in this vLLM",
    "does not fit this vLLM",
    "its own code failed",
    "switched off after failures",
)
STATES = kinds(
    (CALLED, "blue"), (SILENT, "sky"), (WAITING, "grey"), (ABSENT, "grey"), (MISFIT, "orange"), (FAILED, "vermilion"),
    (OFF, "purple"),
)  # fmt: skip
SHAPES = {
    CALLED: "circle", SILENT: "diamond", WAITING: "M-0.6,-0.1L0.6,-0.1L0.6,0.1L-0.6,0.1Z", ABSENT: "square",
    MISFIT: "triangle-up", FAILED: "cross", OFF: "triangle-down",
}  # fmt: skip
BAD = (MISFIT, FAILED, OFF)
WORDS = {
    "waiting": WAITING,
    "absent": MISFIT,
    "does_not_fit": MISFIT,
    "not_in_this_version": ABSENT,
    "switched_off": OFF,
}
LEFT_OUT = ("tracker_off",)
MOST_ROWS = 150
ROW_HEIGHT = 15


def state_of(hook: ProcessHook) -> str:
    """In the words of the matrix; a failure counts more than that it is in place."""
    if hook.state == "put_in":
        return FAILED if hook.failures else CALLED if hook.calls else SILENT
    return WORDS.get(hook.state, hook.state)


def hook_health(session: Session) -> Drawn:
    """Hooks (rows) by process (columns). What has trouble comes first, the others by tracker."""
    health = health_of(session)
    hooks = [hook for hook in health.by_process if hook.state not in LEFT_OUT and hook.state]
    if not hooks:
        raise Missing("no process says which hooks it has")
    names = _names(health, hooks)
    shown = names[:MOST_ROWS]
    place = {name: number for number, name in enumerate(shown)}
    rows = [
        (
            _column(session, hook.process),
            hook.record.name,
            hook.record.tracker,
            state_of(hook),
            hook.calls,
            hook.failures,
            hook.record.reason,
        )
        for hook in hooks
        if hook.record.name in place
    ]
    frame = pl.DataFrame(
        rows, orient="row",
        schema={"process": pl.String, "hook": pl.String, "tracker": pl.String, "state": pl.String, "calls": pl.Int64,
                "failures": pl.Int64, "reason": pl.String},
    )  # fmt: skip
    in_place = {hook.record.name for hook in hooks if hook.state == "put_in"}
    bad = sorted(
        {
            hook.record.name
            for hook in hooks
            if state_of(hook) in BAD and (hook.failures or hook.record.name not in in_place)
        }
    )
    says = f"{len(in_place)} of {len(names)} hooks are in place"
    says += (
        f"; {len(bad)} have trouble: {', '.join(bad[:5])}{' and more' if len(bad) > 5 else ''}."
        if bad
        else "; none has trouble."
    )
    return Drawn(
        style.chart_of(_matrix(frame, shown), says, height=ROW_HEIGHT * len(shown) + 10), says,
        notes(
            "Hooks of trackers that were off are left out.",
            f"{len(names) - len(shown)} more hooks are not shown." if len(names) > len(shown) else "",
        ),
    )  # fmt: skip


def _names(health: Health, hooks: list[ProcessHook]) -> list[str]:
    """Those with trouble first, then those that were called, by tracker."""
    merged = {hook.name: hook for hook in health.hooks}
    states: dict[str, set[str]] = {}
    for hook in hooks:
        states.setdefault(hook.record.name, set()).add(state_of(hook))

    def rank(name: str) -> tuple[int, str, str]:
        found = states[name]
        order = 0 if found & {FAILED, OFF} else 1 if MISFIT in found and not found & {CALLED, SILENT} else 2
        return order, merged[name].tracker, name

    return sorted(states, key=rank)


def _column(session: Session, process: str) -> str:
    """The role where only one process has it, else its folder's name."""
    roles = {one.name: one.role for one in session.processes}
    role = roles.get(process, process)
    return role if list(roles.values()).count(role) == 1 else process


def _matrix(frame: pl.DataFrame, names: list[str]) -> Any:
    among = present(STATES, frame["state"].unique().to_list())
    others = sorted(set(frame["state"]) - {kind.label for kind in among})
    among = (*among, *kinds(*((state, "grey") for state in others)))
    processes = list(dict.fromkeys(frame["process"]))
    return (
        alt.Chart(frame)
        .mark_point(filled=True, size=62, opacity=1)
        .encode(
            x=alt.X("process:N", title=None, sort=processes, axis=alt.Axis(orient="top", labelAngle=0)),
            y=alt.Y("hook:N", title=None, sort=names, axis=alt.Axis(labelLimit=260, labelOverlap=False, grid=True)),
            color=style.by_kind(among, "state", columns=3),
            shape=alt.Shape("state:N", scale=alt.Scale(
                domain=[kind.label for kind in among], range=[SHAPES.get(kind.label, "square") for kind in among])),
            tooltip=style.tips(
                "hook|hook", "tracker|tracker", "process|process", "state|state", "calls|calls|,", "failures|failures|,",
                "reason|reason",
            ),
        )
    )  # fmt: skip
