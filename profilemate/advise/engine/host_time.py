"""Which part of an engine's time is Python: scheduling, update and what lies between steps, against the model's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from profilemate.advise.enough import Need, lost_rows, thin, unmet
from profilemate.advise.finding import ACT, FINE, LOOK, Evidence, Finding, Gain, Verdict
from profilemate.advise.steps import TABLE
from profilemate.session.health import read_health
from profilemate.session.own_cost import read_own_cost
from profilemate.session.views import engine_config
from profilemate.trackers.cpu_operations import analyze as cpu_operations

if TYPE_CHECKING:
    import polars as pl

    from profilemate.frames.session import Session

TOPIC = "scheduling"
NAME = "scheduling.python"
ABOUT = "Python's share of a step"
COLUMNS = ("step_tokens",)

STEPS_NEEDED = 500
MUCH, SOME = 0.25, 0.1
STEP_TIME = "engine time per step with tokens"
PYTHON = ("schedule_ns", "update_ns", "between_ns")


class HostTime(NamedTuple):
    """Nanoseconds over all steps; `hidden` is what would be left if Python ran beside the model, step by step."""

    busy: int
    schedule: int
    update: int
    between: int
    blocked: int
    hidden: int

    @property
    def python(self) -> int:
        """All but the wait for the model."""
        return self.schedule + self.update + self.between

    @property
    def working(self) -> int:
        """Wall time of the engines' threads while they held requests."""
        return self.python + self.blocked

    @property
    def share(self) -> float:
        """Python's."""
        return self.python / self.working if self.working else 0.0

    @property
    def step_ms(self) -> float:
        """Working time per step with tokens."""
        return self.working / self.busy / 1e6 if self.busy else 0.0


def measure(frame: pl.DataFrame) -> HostTime:
    """Sums of the columns."""
    import polars

    python = polars.sum_horizontal(*(polars.col(name).fill_null(0) for name in PYTHON))
    hidden = polars.max_horizontal(python, polars.col("blocked_ns").fill_null(0))
    sums = frame.select(
        (polars.col("step_tokens") > 0).sum().alias("busy"),
        *(polars.col(name).fill_null(0).sum() for name in (*PYTHON, "blocked_ns")),
        hidden.sum().alias("hidden"),
    ).row(0)
    return HostTime(*(int(value or 0) for value in sums))


def advise(session: Session, frame: pl.DataFrame) -> list[Finding]:
    """One finding."""
    spent = measure(frame)
    evidence = [Evidence(TABLE, frame.height, "all steps whose scheduling was seen")]
    need = Need("steps with tokens", spent.busy, STEPS_NEEDED)
    if unmet([need]):
        return [thin(TOPIC, NAME, ABOUT, [need], "", evidence)]
    is_async = engine_config(session).get("async_scheduling")
    operations, rows = _operations_text(session)
    if rows:
        evidence.append(Evidence("cpu_operations", rows, "operations of the shown processes"))
    says = f"{_text(spent)}{_async_text(is_async)}{operations}{_own_cost_text(session)}{lost_rows(session, TABLE)}"
    numbers = _numbers(spent, is_async)
    title = f"Python takes {100 * spent.share:.0f} % of the engine's time"
    if spent.share < SOME:
        return [Finding(TOPIC, NAME, FINE, title, says, tuple(evidence), numbers=numbers)]
    if is_async is False:
        return [_switch_on(spent, title, says, tuple(evidence), numbers)]
    if spent.share < MUCH:
        return [Finding(TOPIC, NAME, FINE, title, says, tuple(evidence), numbers=numbers)]
    return [
        Finding(
            TOPIC, NAME, LOOK, title,
            f"{says} No single flag removes it: larger batches share it among more tokens (`--max-num-seqs`), more engines "
            "run beside each other (`--data-parallel-size`), and a faster CPU, or fewer neighbours on it, shortens it.",
            tuple(evidence),
            to_be_sure="Record with PROFILEMATE_TRACKERS=default,cpu_operations to see which operation it is.",
            numbers=numbers,
        )
    ]  # fmt: skip


def _switch_on(
    spent: HostTime, title: str, says: str, evidence: tuple[Evidence, ...], numbers: dict[str, Any]
) -> Finding:
    hidden_ms = spent.hidden / spent.busy / 1e6
    return Finding(
        TOPIC, NAME, ACT if spent.share >= MUCH else LOOK, title,
        f"{says} With async scheduling vLLM does this work while the model runs.", evidence,
        flags=("--async-scheduling",),
        gains=(
            Gain(
                STEP_TIME, "ms", spent.step_ms, hidden_ms, hidden_ms, spent.step_ms,
                "from the longer of Python and the model in each step (all of it hidden) to no change",
            ),
        ),
        to_be_sure=(
            "vLLM switches it on by itself where it can: read its start-up log for why it did not here. Some "
            "features (several executors, kinds of speculative decoding) exclude it, and then it refuses to start."
        ),
        numbers=numbers,
    )  # fmt: skip


def verify(finding: Finding, after: Session) -> list[Verdict]:
    """The time per step there."""
    from profilemate.advise.steps import steps

    spent = measure(steps(after, *COLUMNS))
    if not spent.busy:
        return []
    return [
        Verdict(
            finding.name, gain.quantity, gain.unit, gain.expected, gain.low, gain.high, spent.step_ms,
            f"{spent.busy:,} steps with tokens",
        )
        for gain in finding.gains
        if gain.quantity == STEP_TIME
    ]  # fmt: skip


def _text(spent: HostTime) -> str:
    whole = spent.working or 1
    return (
        f"While engines held requests their threads spent {100 * spent.blocked / whole:.1f} % of the time launching the model "
        f"or waiting for it, {100 * spent.schedule / whole:.1f} % scheduling, {100 * spent.update / whole:.1f} % updating and "
        f"{100 * spent.between / whole:.1f} % between steps: {spent.step_ms:.3g} ms per step with tokens, of which "
        f"{spent.python / spent.busy / 1e6:.3g} ms are Python."
    )


def _async_text(is_async: object) -> str:
    if is_async is True:
        return " Async scheduling is on: this is what it could not hide behind the model."
    return "" if is_async is False else " Whether async scheduling is on was not recorded."


def _operations_text(session: Session) -> tuple[str, int]:
    """What the tracker of CPU operations adds, and how many operations it has."""
    cpu = cpu_operations.analyze(session)
    whole = cpu.step.total_ns
    if not whole or not cpu.part_ns:
        return "", 0
    parts = ", ".join(f"{part} {100 * ns / whole:.1f} %" for part, ns in cpu.part_ns.items())
    overlaps = " (these run beside the model too)" if cpu.is_async else ""
    return f" By the timed operations of all processes, as shares of the steps: {parts}{overlaps}.", len(cpu.operations)


def _own_cost_text(session: Session) -> str:
    cores = [cost for cost in read_own_cost(session, read_health(session)) if cost.step_ns and "Core" in cost.role]
    if not cores:
        return ""
    most = max(cost.step_ns or 0.0 for cost in cores)
    return f" ProfileMate's own code is {most / 1e6:.3g} ms of a step by its own estimate."


def _numbers(spent: HostTime, is_async: object) -> dict[str, Any]:
    return {
        "python_share": spent.share, "busy_steps": spent.busy, "seconds_scheduling": spent.schedule / 1e9,
        "seconds_update": spent.update / 1e9, "seconds_between": spent.between / 1e9,
        "seconds_waiting_for_model": spent.blocked / 1e9, "async_scheduling": is_async if isinstance(is_async, bool) else None,
    }  # fmt: skip
