"""From the batches that came to the ladder that is advised."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any

from profilemate.advise.graphs.programme import Solutions, solve
from profilemate.advise.graphs.recount import Count, cost_by_block, is_served, total, under
from profilemate.advise.graphs.rules import FULL, NONE, round_up
from profilemate.advise.graphs.setup import LadderPrice, price_of
from profilemate.frames.packages import load
from profilemate.session.errors import SessionError

if TYPE_CHECKING:
    from profilemate.advise.graphs.batches import Batch, Batches
    from profilemate.advise.graphs.costs import CostModel
    from profilemate.advise.graphs.rules import Ladder, Rules
    from profilemate.advise.graphs.setup import Setup

UNITS = 1000
"""Into how many parts a budget in seconds or bytes is cut; what a size takes of it is rounded up to whole parts."""
TOLERANCE = 0.005
"""Fewer graphs are advised where the best ladder within the budget costs no more than this share less."""
RUNGS_SHARE = 0.5
"""Share of today's graphs that the sizes which no batch asked for may take."""
MOST_SIZES_SHOWN = 64


@dataclass(frozen=True)
class Budget:
    """What all captures of one engine may take: one of the three. None of them stands for as many graphs as now."""

    graphs: int | None = None
    seconds: float | None = None
    memory_bytes: float | None = None

    @property
    def is_given(self) -> bool:
        """Whether it is another one than as many graphs as now."""
        return self != Budget()


@dataclass(frozen=True)
class Choice:
    """A ladder and what it means for the session's batches. `cost` is in the model's unit, of passes within reach."""

    sizes: tuple[int, ...]
    ladder: Ladder
    price: LadderPrice
    count: Count
    cost: float


@dataclass(frozen=True)
class Plan:
    """`advised` costs within TOLERANCE of `best`, the optimum of the budget. `curve` has the optimum of each K."""

    present: Choice
    advised: Choice
    best: Choice
    curve: tuple[Choice, ...]
    forced: tuple[int, ...]
    """Sizes that every ladder has: the largest decode batch, the present reach, and doublings up to these where cheap."""
    reach: int
    raised: bool
    """The budget does not allow even the forced sizes: what these take was allowed instead."""


@dataclass(frozen=True)
class Sizes:
    """Sizes that are advised, the best ones within the budget, and whether the budget had to be raised."""

    advised: tuple[int, ...]
    best: tuple[int, ...]
    raised: bool


def choose_sizes(setup: Setup, problem: Problem, budget: Budget) -> Sizes:
    """Solve the programme for a budget. Raises SessionError for a budget that cannot be used."""
    prices, limit = _spending(setup, problem, budget)
    least = sum(price for price, must in zip(prices, problem.is_forced, strict=True) if must)
    most = max(limit, least)
    solutions = solve(problem.weights(), prices, problem.is_forced, most)
    costs = [solutions.cost(spent) for spent in range(most + 1)]
    optimum = min(cost for cost in costs if cost is not None)
    spend = next(b for b, cost in enumerate(costs) if cost is not None and cost <= optimum * (1 + TOLERANCE))
    best = next(b for b, cost in enumerate(costs) if cost == optimum)
    return Sizes(problem.sizes_of(solutions, spend), problem.sizes_of(solutions, best), least > limit)


def make_plan(setup: Setup, batches: Batches, model: CostModel, budget: Budget) -> Plan:
    """The ladder for these batches. Raises SessionError for a budget that cannot be used."""
    batches = batches.merged()
    problem = Problem.of(setup, batches, model)
    sizes = choose_sizes(setup, problem, budget)
    choose = _chooser(setup, batches, model, problem)
    return Plan(
        present=choose(setup.present.sizes, setup.present),
        advised=choose(sizes.advised),
        best=choose(sizes.best),
        curve=tuple(choose(optimum) for optimum in _optima(problem)),
        forced=problem.forced,
        reach=problem.reach,
        raised=sizes.raised,
    )


def _chooser(setup: Setup, batches: Batches, model: CostModel, problem: Problem) -> Any:
    def choose(sizes: tuple[int, ...], ladder: Ladder | None = None) -> Choice:
        ladder = ladder or setup.rules.ladder(sizes)
        return Choice(
            sizes, ladder, price_of(setup, ladder), total(under(batches, ladder, problem.reach)),
            sum(cost_by_block(batches, ladder, problem.reach, model)),
        )  # fmt: skip

    return choose


def _optima(problem: Problem) -> list[tuple[int, ...]]:
    """The best ladder of every K, from the least K that is possible to where another size brings nothing."""
    most = min(len(problem.candidates), max(MOST_SIZES_SHOWN, sum(problem.is_forced)))
    solutions = solve(problem.weights(), [1] * len(problem.candidates), problem.is_forced, most)
    found: list[tuple[int, ...]] = []
    last: float | None = None
    for count in range(1, most + 1):
        cost = solutions.cost(count)
        if cost is not None and (last is None or cost < last):
            found.append(problem.sizes_of(solutions, count))
            last = cost
    return found


def _spending(setup: Setup, problem: Problem, budget: Budget) -> tuple[list[int], int]:
    """What each candidate takes of the budget, in whole units, and the units that there are."""
    given = [value for value in (budget.graphs, budget.seconds, budget.memory_bytes) if value is not None]
    if len(given) > 1 or any(value <= 0 for value in given):
        raise SessionError("a budget is one positive number: of graphs, of seconds or of bytes")
    rules = setup.rules
    if budget.seconds is None and budget.memory_bytes is None:
        limit = price_of(setup, setup.present).graphs if budget.graphs is None else budget.graphs
        return [rules.graphs_of(size) // rules.lora_cases for size in problem.candidates], limit // rules.lora_cases
    each = [price_of(setup, rules.ladder([size])) for size in problem.candidates]
    takes = [one.seconds if budget.seconds is not None else one.memory_bytes for one in each]
    if any(value is None for value in takes):
        raise SessionError("a budget of memory needs the memory that captures took, which this session does not have")
    unit = given[0] / UNITS
    return [max(1, ceil((value or 0) / unit)) for value in takes], UNITS


@dataclass(frozen=True)
class Problem:
    """Candidates, ascending, and the passes that they may serve: those within reach whose graph the rules give."""

    candidates: tuple[int, ...]
    forced: tuple[int, ...]
    reach: int
    rules: Rules
    model: CostModel
    passes: tuple[Batch, ...]

    @classmethod
    def of(cls, setup: Setup, batches: Batches, model: CostModel) -> Problem:
        """Candidates are the sizes of batches that came (a smaller size serves none of them better) and the forced ones."""
        rules = setup.rules
        reach = reach_of(setup)
        served = tuple(batch for batch in batches.groups if is_served(batch, rules.mixed_mode, reach))
        ends = {size for size in (rules.decode_cap, reach) if size}
        rungs = ends | _spare_rungs(served, rules, reach)
        is_cheap = rules.ladder(rungs).graphs <= RUNGS_SHARE * setup.present.graphs
        forced = tuple(sorted(rungs if is_cheap else ends))
        seen = {round_up(batch.tokens, rules.step) for batch in served}
        return cls(tuple(sorted({*seen, *forced})), forced, reach, rules, model, served)

    @property
    def is_forced(self) -> list[bool]:
        """Of each candidate."""
        return [size in self.forced for size in self.candidates]

    def sizes_of(self, solutions: Solutions, budget: int) -> tuple[int, ...]:
        """The sizes that the optimum within a budget consists of."""
        return tuple(self.candidates[place] for place in solutions.chosen(budget))

    def weights(self) -> Any:
        """`weights[i][j]` of programme.solve: int64 for tokens, float64 for times.

        Both kinds of passes above s_i and up to s_j run at s_j: a uniform one in its decode graph, if there can be one.
        """
        numpy = load("numpy")
        kind = numpy.float64 if self.model.is_time else numpy.int64
        uniform = self._passes_per_candidate(True)
        mixed = self._passes_per_candidate(False)
        modes = [self.rules.ladder([size]).dispatch(size, True)[0] for size in self.candidates]
        full = numpy.array([self.model.of(mode, size) for mode, size in zip(modes, self.candidates, strict=True)], kind)
        if self.rules.mixed_mode == NONE:
            return _between(uniform) * full
        other = numpy.array([self.model.of(self.rules.mixed_mode, size) for size in self.candidates], kind)
        return _between(uniform) * full + _between(mixed) * other

    def _passes_per_candidate(self, uniform: bool) -> list[int]:
        numpy = load("numpy")
        counts = [0] * len(self.candidates)
        for batch in self.passes:
            if batch.uniform == uniform:
                counts[int(numpy.searchsorted(self.candidates, batch.tokens))] += batch.passes
        return counts


def _between(counts: list[int]) -> Any:
    """(M + 1, M): passes above s_i and up to s_j."""
    numpy = load("numpy")
    sums = numpy.concatenate([[0], numpy.cumsum(numpy.array(counts, dtype=numpy.int64))])
    return sums[None, 1:] - sums[:, None]


def reach_of(setup: Setup) -> int:
    """The largest size of any ladder that is advised.

    What is covered now stays covered, and the largest decode batch that the scheduler can make gets a graph.
    """
    rules = setup.rules
    top = max(setup.present.mixed, default=0)
    if rules.max_batched_tokens is not None and round_up(top, rules.step) > rules.max_batched_tokens:
        return max(rules.decode_cap, top // rules.step * rules.step)
    return max(rules.decode_cap, round_up(top, rules.step))


def _spare_rungs(served: Iterable[Batch], rules: Rules, reach: int) -> set[int]:
    """Doublings above the largest batch that came: traffic that grows falls onto them instead of onto the largest size."""
    found: set[int] = set()
    batches = list(served)
    for kind, end in ((True, rules.decode_cap), (False, reach)):
        most = max((batch.tokens for batch in batches if batch.uniform == kind), default=0)
        rung = 2 * round_up(most, rules.step)
        while 0 < rung < end:
            found.add(rung)
            rung *= 2
    return found


def modes_needed(setup: Setup, batches: Batches) -> set[str]:
    """Modes whose cost a comparison of ladders needs."""
    reach = reach_of(setup)
    mixed = setup.rules.mixed_mode
    uncovered = any(batch.mode == NONE and is_served(batch, mixed, reach) for batch in batches.groups)
    needed = {FULL} if setup.rules.full_decode else set()
    needed |= {mixed} - {NONE}
    return needed | ({NONE} if uncovered else set())
