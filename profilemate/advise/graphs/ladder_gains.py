"""What an advised ladder is predicted to bring, and how far that would vary."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from profilemate.advise.finding import Gain
from profilemate.advise.graphs import recount, words
from profilemate.advise.graphs.batches import BLOCKS
from profilemate.advise.graphs.plan import Problem, choose_sizes
from profilemate.advise.graphs.recount import Range

if TYPE_CHECKING:
    from profilemate.advise.graphs.batches import Batches
    from profilemate.advise.graphs.costs import CostModel
    from profilemate.advise.graphs.plan import Budget, Plan
    from profilemate.advise.graphs.reading import GraphData
    from profilemate.advise.graphs.setup import Setup


@dataclass(frozen=True)
class Ranges:
    """Expected values under the advised ladder over resampled blocks, and with the ladder fitted to the other half."""

    padding_share: Range
    uncovered_share: Range
    time_ratio: Range | None


def ranges_of(data: GraphData, model: CostModel, found: Plan, budget: Budget) -> Ranges:
    """Draws over the session's stretches under the advised ladder, widened by what it does out of sample."""
    setup, batches = data.setup, data.batches
    blocks = recount.under(batches, found.advised.ladder, found.reach)
    elsewhere = _out_of_sample(setup, batches, model, budget)
    padding = recount.resampled(
        [one.padded_within - one.tokens_within for one in blocks], [one.padded_within for one in blocks]
    )
    uncovered = recount.resampled([one.uncovered_within for one in blocks], [one.passes_within for one in blocks])
    time = None
    if model.is_time:
        costs = [
            recount.cost_by_block(batches, one.ladder, found.reach, model) for one in (found.advised, found.present)
        ]
        time = recount.resampled(*costs)
    expected = found.advised.count
    return Ranges(
        padding.around(expected.padding_share, elsewhere.padding_share),
        uncovered.around(expected.uncovered_share, elsewhere.uncovered_share),
        time,
    )


def _out_of_sample(setup: Setup, batches: Batches, model: CostModel, budget: Budget) -> recount.Count:
    """Each half of the blocks under the ladder that was fitted to the other half: what fitting alone makes look good."""
    halves = [
        replace(batches, groups=tuple(b for b in batches.groups if b.block % 2 == side)).merged() for side in (0, 1)
    ]
    reach = Problem.of(setup, batches, model).reach
    found = recount.Count()
    for fitted, other in (halves, halves[::-1]):
        sizes = choose_sizes(setup, Problem.of(setup, fitted, model), budget).advised
        found += recount.total(recount.under(other, setup.rules.ladder(sizes), reach))
    return found


def gains_of(model: CostModel, found: Plan, ranges: Ranges) -> tuple[Gain, ...]:
    """Two exact counts, two shares, and device time where times decide."""
    now, then = found.present, found.advised
    varied = (
        f"95 % over {recount.REPLICATES} draws of {BLOCKS} stretches of the session, and the ladder fitted to one half "
        "and counted on the other; how much one run differs from the next is not in it"
    )
    gains = [
        _exact_gain(words.PADDED, "tokens", now.count.padded, then.count.padded),
        _exact_gain(words.UNCOVERED, "passes", now.count.uncovered, then.count.uncovered),
        _share_gain(
            words.PADDING_SHARE, now.count.padding_share, then.count.padding_share, ranges.padding_share, varied
        ),
        _share_gain(
            words.UNCOVERED_SHARE, now.count.uncovered_share, then.count.uncovered_share, ranges.uncovered_share, varied
        ),
    ]
    if ranges.time_ratio is not None:
        ratios = ranges.time_ratio
        within = Range(now.cost * ratios.low / 1e9, now.cost * ratios.high / 1e9).around(then.cost / 1e9)
        how = f"{model.why}; {varied}"
        gains.append(Gain(words.TIME, "s", now.cost / 1e9, then.cost / 1e9, within.low, within.high, how))
    return tuple(gains)


def _exact_gain(quantity: str, unit: str, now: int, expected: int) -> Gain:
    how = "these passes counted again with the advised sizes: exact if the same batches come again"
    return Gain(quantity, unit, now, expected, expected, expected, how)


def _share_gain(quantity: str, now: float, expected: float, within: Range, how: str) -> Gain:
    return Gain(quantity, "%", 100 * now, 100 * expected, 100 * within.low, 100 * within.high, how)
