"""Sizes that were asked for beside the graphs that vLLM made of them."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from profilemate.advise.finding import FINE, LOOK, Evidence, Finding
from profilemate.advise.graphs import words
from profilemate.advise.graphs.rules import V1
from profilemate.advise.graphs.use_finding import use_finding
from profilemate.advise.words import counted

if TYPE_CHECKING:
    from profilemate.advise.graphs.reading import GraphData
    from profilemate.advise.graphs.setup import Setup


def dropped_sizes(data: GraphData) -> list[Finding]:
    """Sizes that became no graph, or another one: vLLM's log names only those above max_num_batched_tokens."""
    setup = data.setup
    if not setup.listed_sizes or setup.beyond_the_rules:
        return []
    captured = set(setup.present.sizes)
    wanted = sorted({*setup.asked_sizes, *setup.listed_sizes})
    without = [size for size in wanted if size not in captured]
    made = sorted(captured - set(wanted))
    numbers = {
        "asked": list(setup.asked_sizes), "listed": list(setup.listed_sizes), "captured": sorted(captured),
        "without_graph": without, "not_listed": made,
    }  # fmt: skip
    evidence = (Evidence("graph_captures", len(setup.captures)),)
    if not without and not made:
        title, says = "Every listed size was captured", f"{words.sizes(wanted)}: all of them have graphs."
        return [use_finding("dropped_sizes", FINE, title, says, evidence=evidence, numbers=numbers)]
    return [
        use_finding(
            "dropped_sizes",
            LOOK,
            f"{counted(len(without), 'capture size')} became no graph: {words.sizes(without)}",
            " ".join([_lists(setup), _differ(without, made), *_why(setup, without)]),
            evidence=evidence,
            numbers=numbers,
        )
    ]


def _lists(setup: Setup) -> str:
    asked = f"Asked: {words.sizes(setup.asked_sizes)}; in" if setup.asked_sizes else "In"
    captured = words.sizes(setup.present.sizes)
    return f"{asked} vLLM's configuration: {words.sizes(setup.listed_sizes)}; captured: {captured}."


def _differ(without: Collection[int], made: Collection[int]) -> str:
    also = f" Captured though not listed: {words.sizes(made)}." if made else ""
    return f"Without a graph: {words.sizes(without) or 'none'}.{also}"


def _why(setup: Setup, without: Collection[int]) -> list[str]:
    """Sentences: which of vLLM's rules gives this, as far as one does."""
    rules = setup.rules
    found = []
    limit = rules.max_batched_tokens
    if limit is not None and (too_large := [size for size in without if size > limit]):
        found.append(f"{words.sizes(too_large)} exceed max_num_batched_tokens ({limit}).")
    if not setup.present.mixed and (idle := [size for size in without if rules.decode_cap < size <= (limit or size)]):
        found.append(f"{words.sizes(idle)} exceed the largest decode batch ({rules.decode_cap} tokens).")
    if rules.step > 1 and rules.runner == V1:
        found.append(f"Sizes are rounded up to multiples of the decode query length {rules.step}, up to the largest.")
    if set(rules.ladder(setup.listed_sizes).sizes) != set(setup.present.sizes):
        found.append("The rules that are known do not give this.")
    return found
