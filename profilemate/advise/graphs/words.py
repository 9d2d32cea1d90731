"""Sentences of the findings about graphs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from profilemate.advise.finding import ACT, LOOK, Verdict
from profilemate.advise.graphs.recount import share
from profilemate.advise.words import counted, percent

if TYPE_CHECKING:
    from profilemate.advise.graphs.costs import CostModel
    from profilemate.advise.graphs.plan import Budget, Choice, Plan
    from profilemate.advise.graphs.reading import GraphData

PADDED = "padded tokens of all passes"
UNCOVERED = "passes without a graph"
TIME = "device time of the passes that the sizes decide about"
PADDING_SHARE = "padding, share of the padded tokens of passes that the sizes reach"
UNCOVERED_SHARE = "passes without a graph, share of the passes that the sizes reach"
TO_BE_SURE = (
    "Record a session over your busiest hours, run the server with the flag, record again, and look with "
    "`profilemate advise --verify BEFORE AFTER`. Padding is a share of tokens computed, not of time: on small batches a "
    "pass reads all weights whatever its size."
)
SAME_BATCHES = "The same batches came in both sessions."
OTHER_BATCHES = "Other batches came, so that the share is held against its range."
MIB = 1 << 20


def passes(count: int) -> str:
    """`1 forward pass`, `12,345 forward passes`."""
    return "1 forward pass" if count == 1 else f"{count:,} forward passes"


def of(part: int, all_of_it: int) -> str:
    """`12 of 400 (3.0 %)`."""
    return f"{part:,} of {all_of_it:,} ({percent(share(part, all_of_it))})"


def sizes(values: Iterable[int]) -> str:
    """As on a command line."""
    return " ".join(map(str, values))


def price(choice: Choice) -> str:
    """`12 graphs, 1.25 s inside captures, 300 MiB`."""
    parts = [counted(choice.price.graphs, "graph"), f"{choice.price.seconds:.2f} s inside captures"]
    if choice.price.memory_bytes is not None:
        parts.append(f"{choice.price.memory_bytes / MIB:.0f} MiB")
    return ", ".join(parts)


def allowed(budget: Budget) -> str:
    """`20 graphs`, `5 s of captures`, `500 MiB of graphs`."""
    if budget.graphs is not None:
        return counted(budget.graphs, "graph")
    if budget.seconds is not None:
        return f"{budget.seconds:g} s of captures"
    return f"{(budget.memory_bytes or 0) / MIB:,.0f} MiB of graphs"


def ladder_title(level: str, found: Plan, budget: Budget) -> str:
    """One line about the ladder."""
    now, then = found.present, found.advised
    if level == ACT or budget.is_given:
        what = f"Capture sizes within {allowed(budget)}" if budget.is_given else "Other capture sizes"
        title = f"{what}: padding {percent(now.count.padding_share)} -> {percent(then.count.padding_share)}"
        before, after = now.count.uncovered_within, then.count.uncovered_within
        return title if before == after else f"{title}, {before:,} -> {passes(after)} without a graph"
    if level == LOOK:
        return f"{then.price.graphs} graphs would do what {now.price.graphs} do"
    return f"The capture sizes fit the traffic: {percent(now.count.padding_share)} padding"


def ladder_says(data: GraphData, model: CostModel, found: Plan, budget: Budget) -> str:
    """What was counted, what the advised ladder brings and takes."""
    now, then, batches = found.present, found.advised, data.batches
    within = now.count
    sentences = [
        f"Of {passes(within.passes)}, {within.passes_within:,} have at most {found.reach} tokens, so that the sizes decide "
        f"about them; {within.passes - within.passes_within:,} are larger and run without a graph whatever the sizes.",
        f"On the sizes {sizes(now.sizes)} they have {within.padding:,} tokens of padding "
        f"({percent(within.padding_share)}), and {within.uncovered_within:,} have no graph; on {sizes(then.sizes)} "
        f"the same passes have {then.count.padding:,} ({percent(then.count.padding_share)}), and "
        f"{then.count.uncovered_within:,} have none.",
        f"Per engine: {price(now)} now; {price(then)} then (sizes that were not captured are estimated from their "
        "neighbours; warm-up runs of a capture are not counted).",
        f"Costs are {'device times, ' if model.is_time else 'padded tokens: '}{model.why}.",
    ]
    spare = [size for size in found.forced if size in then.sizes]
    if spare:
        sentences.append(
            f"Of the sizes, {sizes(spare)} are kept whatever came: the largest decode batch, what is covered now, and steps "
            "up to these for traffic that grows."
        )
    if found.raised:
        limit = f"the budget of {allowed(budget)}" if budget.is_given else "the graphs that there are now"
        sentences.append(f"That is more than {limit}: less would leave decode batches without a graph.")
    notes = (
        (batches.lost, "passes have no row any more (size cap or losses) and are not in this"),
        (batches.unclear, "passes may have been uniform decodes; they are counted as not"),
        (batches.not_by_rule, "passes got another graph than the sizes alone give, and are counted as they were"),
    )
    sentences += [f"{count:,} {what}." for count, what in notes if count]
    return " ".join(sentences)


def verdict(name: str, quantity: str, unit: str, predicted: Sequence[float], observed: float, says: str) -> Verdict:
    """`predicted` is (expected, low, high)."""
    expected, low, high = predicted
    return Verdict(name, quantity, unit, expected, low, high, observed, says)
