"""The dynamic programme against every ladder there is."""

from __future__ import annotations

from itertools import combinations
from types import SimpleNamespace
from typing import Any

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profilemate.advise.graphs.batches import Batch, Batches
from profilemate.advise.graphs.costs import CostModel
from profilemate.advise.graphs.plan import Budget, Problem, choose_sizes, make_plan, reach_of
from profilemate.advise.graphs.programme import solve
from profilemate.advise.graphs.rules import FULL, NONE, PIECEWISE, V1, Ladder, Rules
from profilemate.session.errors import SessionError

TOKENS = CostModel("tokens", "")


@st.composite
def problems(draw: Any) -> tuple[Any, list[int], list[bool], int]:
    count = draw(st.integers(1, 6))
    cells = st.lists(st.integers(0, 1000), min_size=count, max_size=count)
    weights = numpy.array([draw(cells) for _ in range(count + 1)], dtype=numpy.int64)
    prices = draw(st.lists(st.integers(1, 4), min_size=count, max_size=count))
    forced = draw(st.lists(st.booleans(), min_size=count, max_size=count))
    return weights, prices, forced, draw(st.integers(0, 16))


def cheapest(weights: Any, prices: list[int], forced: list[bool], budget: int) -> int | None:
    """Every set of candidates that has the last one and the forced ones, and is within the budget."""
    count = len(prices)
    costs = []
    for size in range(count + 1):
        for chosen in combinations(range(count), size):
            must = {place for place in range(count) if forced[place]} | {count - 1}
            if must <= set(chosen) and sum(prices[place] for place in chosen) <= budget:
                before = [0, *(place + 1 for place in chosen)]
                costs.append(sum(int(weights[i][j]) for i, j in zip(before, chosen, strict=False)))
    return min(costs, default=None)


@settings(deadline=None, max_examples=300)
@given(problems())
def test_the_optimum_of_every_budget_is_that_of_trying_all(problem: tuple[Any, list[int], list[bool], int]) -> None:
    weights, prices, forced, budget = problem
    solutions = solve(weights, prices, forced, budget)
    for spent in range(budget + 1):
        best = cheapest(weights, prices, forced, spent)
        assert solutions.cost(spent) == best
        if best is not None:
            chosen = solutions.chosen(spent)
            before = [0, *(place + 1 for place in chosen)]
            assert sum(int(weights[i][j]) for i, j in zip(before, chosen, strict=False)) == best
            assert sum(prices[place] for place in chosen) <= spent


def setup_of(rules: Rules, sizes: list[int]) -> Any:
    """What the plan asks of a Setup, without captures."""
    return SimpleNamespace(rules=rules, present=rules.ladder(sizes), first_engine=())


@st.composite
def traffic(draw: Any) -> tuple[Any, Batches, int]:
    """A configuration, the batches that came, and a budget of graphs."""
    query_len = draw(st.sampled_from([1, 1, 2]))
    max_num_seqs = draw(st.integers(1, 6))
    decode, mixed = draw(st.sampled_from([(True, PIECEWISE), (True, NONE), (False, PIECEWISE), (False, FULL)]))
    rules = Rules(V1, decode, mixed, query_len, max_num_seqs, 16)
    setup = setup_of(rules, draw(st.lists(st.integers(query_len, 12), min_size=1, max_size=4)))
    groups = []
    for _ in range(draw(st.integers(1, 8))):
        uniform = decode and draw(st.booleans())
        tokens = query_len * draw(st.integers(1, max_num_seqs)) if uniform else draw(st.integers(1, 14))
        got = setup.present.dispatch(tokens, uniform)
        groups.append(Batch(0, tokens, uniform, "", *got, True, draw(st.integers(1, 50))))
    return setup, Batches(tuple(groups)), draw(st.integers(1, 14))


def cost_of(ladder: Ladder, batches: Batches, reach: int) -> int:
    """Padded tokens of the batches that graphs can serve, by looking each one up."""
    padded = 0
    for batch in batches.groups:
        if batch.tokens <= reach and (batch.uniform or ladder.mixed_mode != NONE):
            sizes = ladder.decode if batch.uniform and ladder.decode else ladder.mixed
            padded += batch.passes * min(size for size in sizes if size >= batch.tokens)
    return padded


@settings(deadline=None, max_examples=200)
@given(traffic())
def test_no_ladder_of_any_sizes_pads_less_within_the_graphs(case: tuple[Any, Batches, int]) -> None:
    """All sizes are tried, not the candidates alone: those that are left out serve nobody better."""
    setup, batches, budget = case
    problem = Problem.of(setup, batches, TOKENS)
    sizes = choose_sizes(setup, problem, Budget(graphs=budget))
    rules, reach = setup.rules, reach_of(setup)
    step = rules.step
    allowed = max(budget, rules.ladder(problem.forced).graphs)
    others = [size for size in range(step, reach + 1, step) if size not in problem.forced]
    costs = []
    for count in range(len(others) + 1):
        for chosen in combinations(others, count):
            ladder = rules.ladder([*chosen, *problem.forced])
            if ladder.graphs <= allowed:
                costs.append(cost_of(ladder, batches, reach))
    best = rules.ladder(sizes.best)
    assert cost_of(best, batches, reach) == min(costs)
    assert best.graphs <= allowed
    assert set(problem.forced) <= set(sizes.advised)
    assert cost_of(rules.ladder(sizes.advised), batches, reach) <= 1.005 * min(costs)


def plain_setup() -> Any:
    return setup_of(Rules(V1, True, PIECEWISE, 1, 8, 64), [1, 8, 16])


def batches_of(*counts: tuple[int, bool, int]) -> Batches:
    present = plain_setup().present
    return Batches(tuple(Batch(0, n, u, "", *present.dispatch(n, u), True, passes) for n, u, passes in counts))


def test_the_ladder_by_hand() -> None:
    """Decodes of 3 (often), 5 and 8, a mixed batch of 11; five graphs are 3 FULL or fewer with their PIECEWISE twins."""
    batches = batches_of((3, True, 100), (5, True, 10), (8, True, 1), (11, False, 4))
    plan = make_plan(plain_setup(), batches, TOKENS, Budget(graphs=6))
    assert plan.forced == (8, 16)
    assert plan.present.count.padding == 100 * 5 + 10 * 3 + 4 * 5
    assert plan.advised.sizes == (3, 8, 11, 16)
    assert plan.advised.price.graphs == 6
    assert plan.advised.count.padding == 10 * 3
    by_graphs = {choice.price.graphs: choice.count.padding for choice in plan.curve}
    assert by_graphs == {3: 500 + 30 + 20, 5: 30 + 20, 7: 20, 8: 0}


def test_fewer_graphs_where_more_bring_next_to_nothing() -> None:
    batches = batches_of((8, True, 100_000), (3, True, 1))
    plan = make_plan(plain_setup(), batches, TOKENS, Budget(graphs=30))
    assert plan.best.sizes == (3, 8, 16)
    assert plan.advised.sizes == (8, 16)


def test_a_budget_below_the_forced_sizes_is_raised_and_said() -> None:
    plan = make_plan(plain_setup(), batches_of((3, True, 9)), TOKENS, Budget(graphs=1))
    assert plan.raised
    assert plan.advised.sizes == (8, 16)


@pytest.mark.parametrize("budget", [Budget(graphs=3, seconds=1.0), Budget(seconds=0.0), Budget(memory_bytes=1.0)])
def test_a_budget_that_cannot_be_used_is_refused(budget: Budget) -> None:
    with pytest.raises(SessionError, match="budget"):
        make_plan(plain_setup(), batches_of((3, True, 9)), TOKENS, budget)


def test_sizes_for_traffic_that_grows_where_they_are_few_beside_todays() -> None:
    """Doublings above the largest decode batch and up to the largest that may come; not where they would take most graphs."""
    rules = Rules(V1, True, PIECEWISE, 1, 40, 64)
    came = Batches((Batch(0, 3, True, "", FULL, 4, True, 9),))
    wide = setup_of(rules, list(range(2, 41, 2)))
    assert Problem.of(wide, came, TOKENS).forced == (6, 12, 24, 40)
    narrow = setup_of(rules, [4, 8])
    assert Problem.of(narrow, came, TOKENS).forced == (40,)
