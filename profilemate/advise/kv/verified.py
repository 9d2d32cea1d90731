"""What was predicted for other cache sizes beside a session that was run with one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from profilemate.advise.finding import Finding, Verdict
from profilemate.advise.kv import hits, preempted
from profilemate.advise.kv.engines import stepping_engines
from profilemate.advise.kv.prediction import TOLERANCE, Recorded, hit_rate_between, read_counters
from profilemate.advise.kv.trace import read_limits
from profilemate.advise.words import percent

if TYPE_CHECKING:
    from profilemate.frames.session import Session

SAME_LOAD = 0.01
"""Looked-up tokens may differ by so much of them; more is another load."""


def size_differences(finding: Finding, after: Session) -> list[str]:
    """Sentences about why `after` does not show what was predicted; none if it does."""
    seen = _seen(after)
    if not seen:
        return ["the other session does not tell how many blocks its engines had"]
    sizes = {limits.usable_blocks for limits, _ in seen}
    if len(sizes) > 1:
        return [
            f"the engines of the other session have different numbers of blocks: {', '.join(map(str, sorted(sizes)))}"
        ]
    blocks = sizes.pop()
    if finding.name == preempted.NAME:
        wanted = finding.numbers["blocks"]
        return [] if blocks == wanted else [f"{wanted} usable blocks were advised; the other session had {blocks}"]
    engines = finding.numbers["engines"]
    if any(engine["block_size"] != limits.block_size for engine in engines for limits, _ in seen):
        return ["the other session has another block size"]
    if all(engine["usable_blocks"] == blocks for engine in engines):
        return [f"the other session had {blocks} usable blocks as well"]
    return []


def size_verdicts(finding: Finding, after: Session) -> list[Verdict]:
    """One verdict."""
    seen = _seen(after)
    if not seen:
        return []
    if finding.name == preempted.NAME:
        return [_preemptions(finding, [recorded for _, recorded in seen])]
    if finding.name != hits.NAME or not finding.gains:
        return []
    return [_hit_rate(finding, seen[0][0].usable_blocks, [recorded for _, recorded in seen])]


def _seen(after: Session) -> list[tuple[Any, Recorded]]:
    spans = stepping_engines(after)
    found = [(read_limits(after, span), read_counters(after, span)) for span in spans]
    return [pair for pair in found if pair[0] is not None]


def _hit_rate(finding: Finding, blocks: int, recorded: list[Recorded]) -> Verdict:
    engines = finding.numbers["engines"]
    asked = sum(engine["asked_tokens"] for engine in engines)
    each = [hit_rate_between([(size, rate) for size, rate, _ in engine["replayed"]], blocks) for engine in engines]
    expected, low, high = (
        sum(engine["asked_tokens"] * one[place] for engine, one in zip(engines, each, strict=True)) / asked
        for place in range(3)
    )
    looked_up = sum(one.query_tokens for one in recorded)
    observed = sum(one.hit_tokens for one in recorded) / looked_up if looked_up else 0.0
    return Verdict(
        name=finding.name,
        quantity=hits.HIT_RATE,
        unit=hits.PERCENT,
        predicted=100 * expected,
        low=100 * max(0.0, low - TOLERANCE),
        high=100 * min(1.0, high + TOLERANCE),
        observed=100 * observed,
        says=(
            f"With {blocks:,} blocks {percent(expected)} was predicted and vLLM counted "
            f"{percent(observed)}.{_load(asked, looked_up)}"
        ),
    )


def _load(asked: int, looked_up: int) -> str:
    if asked and abs(looked_up - asked) > SAME_LOAD * asked:
        return f" It was another load: {looked_up:,} looked-up tokens instead of {asked:,}."
    return ""


def _preemptions(finding: Finding, recorded: list[Recorded]) -> Verdict:
    gain = finding.gains[0]
    observed = sum(one.preemptions for one in recorded)
    return Verdict(
        finding.name, preempted.QUANTITY, gain.unit, gain.expected, gain.low, gain.high, observed,
        f"{gain.expected:,.0f} preemptions were predicted and there were {observed:,}.",
    )  # fmt: skip
