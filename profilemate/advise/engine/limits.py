"""Which limit bound the steps, by number and by time, and the flag that each points to."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from profilemate.advise.enough import Need, lost_rows, thin, unmet
from profilemate.advise.finding import FINE, LOOK, Evidence, Finding
from profilemate.advise.steps import TABLE
from profilemate.trackers.engine_steps import events

if TYPE_CHECKING:
    import polars as pl

    from profilemate.advise.engine.matched_steps import Interference
    from profilemate.frames.session import Session

TOPIC = "scheduling"
NAME = "scheduling.limits"
ABOUT = "what bounds the steps"
COLUMNS = ("limit", "max_step_tokens", "waiting")

STEPS_NEEDED = 500
BINDS = 0.2
CHEAP = 1.5
"""A step with prompts of at most so many times a plain decode step leaves room for larger chunks."""

WORDS = {
    events.NO_WORK: "no more work", events.TOKEN_BUDGET: "the token budget", events.SEQUENCE_CAP: "the sequence cap",
    events.KV_SPACE: "KV space", events.THROTTLED: "throttling", events.OTHER: "other settings",
}  # fmt: skip

POINTS_TO = {
    events.SEQUENCE_CAP: "`--max-num-seqs`; lengths.max_num_seqs has a value where a higher one would help.",
    events.KV_SPACE: (
        "more blocks lift it (`--gpu-memory-utilization`, `--kv-cache-dtype`; see kv_cache_size), and a lower "
        "`--max-num-seqs` makes fewer requests compete for them. With prefix caching a full pool alone is no harm: what "
        "counts are requests that wait and preemptions."
    ),
    events.THROTTLED: "data-parallel balancing deferred prefills, or the engine was paused by somebody.",
    events.OTHER: (
        "requests waited or prefills were cut short by the encoder budget, Mamba block alignment or "
        "`--long-prefill-token-threshold`."
    ),
}


NOT_KNOWN = "this ProfileMate does not know the limit."


class Share(NamedTuple):
    """Of the steps, and of the time in which engines held requests."""

    steps: float
    time: float


def advise(session: Session, frame: pl.DataFrame, costs: Interference | None) -> list[Finding]:
    """One finding."""
    evidence = (Evidence(TABLE, frame.height, "all steps whose scheduling was seen"),)
    need = Need("engine steps", frame.height, STEPS_NEEDED)
    found = shares(frame)
    says = f"{_text(found)}{lost_rows(session, TABLE)}"
    if unmet([need]):
        return [thin(TOPIC, NAME, ABOUT, [need], says, evidence)]
    limits = [name for name in found if name != events.NO_WORK and found[name].time >= BINDS]
    numbers = {
        "limits": {name: {"share_of_steps": one.steps, "share_of_time": one.time} for name, one in found.items()}
    }
    if not limits:
        title = "No limit binds for long: the engine takes what there is"
        return [Finding(TOPIC, NAME, FINE, title, says, evidence, numbers=numbers)]
    limits.sort(key=lambda name: -found[name].time)
    budget = int(frame["max_step_tokens"].drop_nulls().tail(1).sum() or 0)
    flags, about_budget = _budget(budget, costs) if events.TOKEN_BUDGET in limits else ((), "")
    points = [
        f"{_capital(WORDS.get(name, name))}: {about_budget if name == events.TOKEN_BUDGET else POINTS_TO.get(name, NOT_KNOWN)}"
        for name in limits
    ]
    return [
        Finding(
            TOPIC, NAME, LOOK, _title(limits[0], found[limits[0]].time), " ".join([says, *points]), evidence, flags=flags,
            to_be_sure="What lifting a limit brings is not in one session: run with the flag and compare (--verify, compare).",
            numbers=numbers,
        )
    ]  # fmt: skip


def _title(limit: str, share: float) -> str:
    verb = "bound" if limit == events.OTHER else "bounds"
    return f"{_capital(WORDS.get(limit, limit))} {verb} the steps for {100 * share:.0f} % of the time"


def _capital(words: str) -> str:
    return words[:1].upper() + words[1:]


def shares(frame: pl.DataFrame) -> dict[str, Share]:
    """By limit, those that never bound left out, in the order of the events."""
    import polars

    whole = int(frame["working_ns"].sum() or 0)
    sums = frame.group_by("limit").agg(polars.len().alias("steps"), polars.col("working_ns").sum())
    by_limit = {limit: (count, spent) for limit, count, spent in sums.iter_rows() if limit}
    names = [*events.LIMITS, *sorted(name for name in by_limit if name not in events.LIMITS)]
    return {
        name: Share(by_limit[name][0] / frame.height, by_limit[name][1] / whole if whole else 0.0)
        for name in names
        if name in by_limit
    }


def _budget(budget: int, costs: Interference | None) -> tuple[tuple[str, ...], str]:
    """Raise it only where steps with prompts hardly take longer than those without."""
    told = f"a larger `--max-num-batched-tokens` (now {budget:,}) ends prefills in fewer, longer steps."
    if costs is None or costs.ratio is None:
        return (), f"{told} What that does to those who decode was not measured here."
    if costs.ratio > CHEAP or not budget:
        return (), (
            f"{told} Here a step with prompts takes {costs.ratio:.1f} times as long as one without, which those who decode "
            "feel: see scheduling.interference before you raise it."
        )
    return (f"--max-num-batched-tokens {2 * budget}",), (
        f"{told} Here a step with prompts takes only {costs.ratio:.2f} times as long as one without, so there is room; "
        "larger chunks than the largest seen were not measured, so no gain is predicted."
    )


def _text(found: dict[str, Share]) -> str:
    parts = [
        f"{WORDS.get(name, name)} {100 * one.time:.1f} % of the time ({100 * one.steps:.1f} % of the steps)"
        for name, one in sorted(found.items(), key=lambda item: -item[1].time)
    ]
    return f"What kept steps from taking more: {', '.join(parts) or 'not known'}." if parts else "No limit was told."
