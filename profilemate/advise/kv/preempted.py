"""Preemptions that another number of blocks would avoid."""

from __future__ import annotations

from typing import TYPE_CHECKING

from profilemate.advise.finding import ACT, LOOK, Evidence, Finding, Gain
from profilemate.advise.kv.hits import size_record
from profilemate.advise.kv.memory import Memory, command_lines, memory_text
from profilemate.advise.kv.prediction import NOW, Prediction
from profilemate.advise.kv.untold import TURN_ON
from profilemate.advise.words import counted
from profilemate.frames.packages import load
from profilemate.trackers.requests import events

if TYPE_CHECKING:
    from profilemate.frames.session import Session

TOPIC = "kv_cache_size"
NAME = f"{TOPIC}.preemptions"
QUANTITY = "preemptions"

MOST_AVOIDED = 0.1
"""The smallest size is advised that leaves at most so many of the preemptions; else the largest that was replayed."""

FEWEST_OFF, SHARE_OFF, SHARE_OF_RECORDED_OFF = 3, 0.5, 0.1
"""A replay preempts whom vLLM does as long as both take the same steps; in tests it was up to a tenth off, and few are few."""


def findings(session: Session, prediction: Prediction, memory: Memory) -> list[Finding]:
    """None where nobody was preempted."""
    recorded = sum(engine.recorded.preemptions for engine in prediction.engines)
    if not recorded:
        return []
    polars = load("polars")
    rows = session.scan(events.PREEMPTIONS.name).filter(polars.col("event") == "preempted")
    by_reason = dict(rows.group_by("reason").len().collect(engine="streaming").rows())
    no_blocks = by_reason.get("no_blocks", 0) if by_reason else recorded
    evidence = (Evidence(events.PREEMPTIONS.name, sum(by_reason.values()), "event preempted"),)
    if prediction.predicted and not prediction.why_not and no_blocks:
        return [_predicted(prediction, memory, recorded, evidence)]
    return [_unpredicted(recorded, no_blocks, evidence)]


def _predicted(prediction: Prediction, memory: Memory, recorded: int, evidence: tuple[Evidence, ...]) -> Finding:
    replayed = prediction.total(NOW, "preemptions")
    larger = [factor for factor in prediction.factors if factor > NOW]
    enough = [one for one in larger if prediction.total(one, "preemptions") <= MOST_AVOIDED * max(replayed, 1)]
    best = enough[0]  # unlimited blocks preempt nobody
    blocks, usable = prediction.blocks(best), prediction.blocks(NOW)
    left = prediction.total(best, "preemptions")
    off = abs(replayed - recorded)
    spread = max(FEWEST_OFF, 2 * off, SHARE_OFF * left, SHARE_OF_RECORDED_OFF * recorded)
    lines = command_lines(memory, blocks, usable)
    return Finding(
        topic=TOPIC,
        name=NAME,
        level=ACT if recorded >= 10 else LOOK,
        title=f"{counted(recorded, 'preemption')}; {blocks:,} KV blocks instead of {usable:,} would have left about {left:,}",
        says=(
            f"vLLM preempted {recorded:,} times since no block was free; a replay of the session preempts {replayed:,} times, "
            f"and {left:,} times with {blocks:,} blocks. Fewer requests at once (--max-num-seqs) avoid preemptions too, "
            f"and make requests wait instead. {memory_text(memory, blocks, usable)}"
        ),
        evidence=evidence,
        flags=tuple(lines[:1]),
        alternatives=tuple(lines[1:]),
        gains=(
            Gain(
                QUANTITY, "preemptions", recorded, left, max(0.0, left - spread), left + spread,
                f"a replay of the session, {off} off at its own size; it cannot know the order of later steps to the unit",
            ),
        ),
        to_be_sure="Run the same load with the other number of blocks: profilemate advise --verify BEFORE AFTER.",
        numbers={
            "recorded": recorded, "replayed": replayed, "advised_factor": best, "blocks": blocks, "usable_blocks": usable,
            "left": left, "sizes": [size_record(prediction, factor) for factor in prediction.factors],
        },
    )  # fmt: skip


def _unpredicted(recorded: int, no_blocks: int, evidence: tuple[Evidence, ...]) -> Finding:
    return Finding(
        topic=TOPIC,
        name=NAME,
        level=LOOK,
        title=counted(recorded, "preemption"),
        says=(
            f"{no_blocks:,} of {counted(recorded, 'preemption')} happened for want of a free block: more blocks avoid between "
            "none and all of them, and so do fewer requests at once (--max-num-seqs). How many blocks it takes cannot be told "
            "from this session."
        ),
        evidence=evidence,
        to_be_sure=TURN_ON,
        numbers={"recorded": recorded, "no_blocks": no_blocks},
    )
