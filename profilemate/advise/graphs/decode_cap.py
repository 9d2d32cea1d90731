"""Decode batches between the largest graph and what max_num_seqs allows: they fall off the graphs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from profilemate.advise.finding import ACT, FINE, LOOK, Evidence, Finding, Gain, Verdict
from profilemate.advise.graphs import words
from profilemate.advise.graphs.batches import DECODE
from profilemate.advise.graphs.rules import NONE
from profilemate.advise.words import counted

if TYPE_CHECKING:
    from profilemate.advise.graphs.batches import Batch
    from profilemate.advise.graphs.reading import GraphData
    from profilemate.advise.graphs.rules import Rules

TOPIC = "capture_sizes"
DECODE_CAP = f"{TOPIC}.decode_cap"
QUANTITY = "decode passes above the largest decode graph"


def decode_cap_finding(data: GraphData, ladder: Finding) -> list[Finding]:
    """One finding where decode batches have graphs at all. It needs no traffic: the configuration tells."""
    setup, rules = data.setup, data.setup.rules
    if not setup.captures or setup.beyond_the_rules or not rules.decode_cap:
        return []
    top = largest(data)
    cap = rules.decode_cap
    most = max((batch.tokens for batch in data.batches.groups if _is_decode(batch, rules)), default=0)
    above = [batch for batch in data.batches.groups if _is_decode(batch, rules) and batch.tokens > top]
    count = sum(batch.passes for batch in above)
    without = sum(batch.passes for batch in above if batch.mode == NONE)
    seqs, top_seqs = cap // rules.query_len, top // rules.query_len
    numbers = {
        "max_num_seqs": rules.max_num_seqs, "query_len": rules.query_len, "decode_cap_tokens": cap,
        "largest_decode_graph_tokens": top, "largest_decode_batch_tokens": most, "passes_above": count,
        "passes_above_without_graph": without,
    }  # fmt: skip
    evidence: tuple[Evidence, ...] = (
        Evidence("graph_captures", len(setup.captures), f"the largest size for decode batches is {top}"),
    )
    if count:
        evidence += (Evidence("forward_passes", count, f"decode batches of more than {top} tokens"),)
    reaches = f"max_num_seqs={rules.max_num_seqs} allows decode batches of {counted(seqs, 'request')} ({cap} tokens)"
    if top >= cap:
        return [
            Finding(
                TOPIC, DECODE_CAP, FINE, "Every decode batch that the scheduler can make has a graph",
                f"{reaches}; the largest decode graph has {top} tokens.", evidence, numbers=numbers,
            )
        ]  # fmt: skip
    own = tuple(sorted({*setup.present.sizes, *_up_to(top, cap)}))
    flags = ladder.flags or (f"--cudagraph-capture-sizes {words.sizes(own)}",)
    came = f"{words.passes(count)} did, {without:,} of them without any graph" if count else "none came yet"
    return [
        Finding(
            topic=TOPIC,
            name=DECODE_CAP,
            level=ACT if count else LOOK,
            title=f"Decode batches of {top_seqs + 1} to {seqs} requests fall off the graphs",
            says=(
                f"{reaches}, but the largest decode graph has {top}. Larger ones run "
                f"{fallback(data)}: {came} (the largest decode batch had {most} tokens)."
            ),
            evidence=evidence,
            flags=flags,
            alternatives=(f"--max-num-seqs {top_seqs}",) if top_seqs else (),
            gains=(
                Gain(QUANTITY, "passes", count, 0, 0, 0, "the largest decode batch has a graph with the flag"),
            ) if count else (),
            to_be_sure="" if count else "Look at a session that covers your busiest hours: batches grow with the load.",
            numbers=numbers,
        )
    ]  # fmt: skip


def verify_decode_cap(finding: Finding, data: GraphData) -> list[Verdict]:
    """Decode passes above the largest decode graph of the other session: none."""
    if finding.name != DECODE_CAP or data.missing or not data.setup.captures:
        return []
    top, rules = largest(data), data.setup.rules
    count = sum(batch.passes for batch in data.batches.groups if _is_decode(batch, rules) and batch.tokens > top)
    return [
        words.verdict(
            finding.name, gain.quantity, gain.unit, [0, 0, 0], count, f"The largest decode graph has {top} tokens now."
        )
        for gain in finding.gains
    ]


def largest(data: GraphData) -> int:
    """Tokens of the largest graph that decode batches are meant to run in."""
    present = data.setup.present
    return max(present.decode if data.setup.rules.full_decode else present.mixed, default=0)


def fallback(data: GraphData) -> str:
    """Where a decode batch goes that has no decode graph."""
    top = max(data.setup.present.mixed, default=0)
    if not data.setup.rules.full_decode or not top:
        return "without a graph"
    return f"in a {data.setup.rules.mixed_mode} graph up to {top} tokens and without a graph above"


def _is_decode(batch: Batch, rules: Rules) -> bool:
    """A batch that decode graphs are for; without such graphs, one in which nobody is in prefill and nobody recomputes."""
    if rules.full_decode:
        return batch.uniform
    return batch.phase == DECODE and batch.tokens <= rules.decode_cap and batch.tokens % rules.query_len == 0


def _up_to(top: int, cap: int) -> list[int]:
    """Doublings of the largest size, and the cap."""
    rungs = [cap]
    while 0 < 2 * top < cap:
        top *= 2
        rungs.append(top)
    return rungs
