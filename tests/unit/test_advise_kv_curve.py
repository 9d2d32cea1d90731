"""The plain LRU curve against a straightforward simulation at every size, and its sample against the whole."""

from __future__ import annotations

import random
from collections import OrderedDict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profilemate.advise.kv.curve import Curve, Sample, miss_ratio_curve, sampled_blocks
from profilemate.advise.kv.prompts import BlockTree
from profilemate.advise.kv.steps import Clock
from profilemate.advise.kv.trace import Asked, Limits, Trace

SIZE = 16

Prompt = tuple[tuple[int, ...], int, bool]
"""Its whole blocks (a number tells blocks after one prefix apart), tokens behind the last one, whether it is looked up."""

prompts = st.lists(
    st.tuples(st.lists(st.integers(0, 2), max_size=6).map(tuple), st.integers(0, SIZE - 1), st.booleans()), max_size=24
)


def trace_of(asked: list[Prompt], resets: tuple[int, ...] = ()) -> Trace:
    """One request a second, at second n + 1/2; resets at whole seconds."""
    tree = BlockTree()
    known: dict[tuple[int, ...], int] = {(): -1}
    requests = []
    for place, (path, tail, is_looked_up) in enumerate(asked):
        for end in range(1, len(path) + 1):
            if path[:end] not in known:
                known[path[:end]] = tree.add(known[path[: end - 1]])
        tokens = len(path) * SIZE + tail
        requests.append(Asked(place, tokens, 1, known[path], is_looked_up, 0, 0))
    starts = tuple(range(len(asked)))
    clock = Clock(1.0, 0.0, starts, tuple(place + 0.5 for place in starts), tuple(map(float, resets)))
    return Trace(Limits(1, SIZE, 8, 64), tree, tuple(requests), clock)


def lru_hits(asked: list[Prompt], capacity: int, resets: tuple[int, ...] = ()) -> int:
    """Tokens found by a cache that is a queue of prefixes: the one used longest ago goes, of a prompt its last block."""
    cache: OrderedDict[tuple[int, ...], None] = OrderedDict()
    found = 0
    for place, (path, tail, is_looked_up) in enumerate(asked):
        if place in resets:
            cache.clear()
        prefixes = [path[:end] for end in range(1, len(path) + 1)]
        hits = 0
        while hits < len(prefixes) and prefixes[hits] in cache:
            hits += 1
        if is_looked_up:
            found += SIZE * min(hits, max(0, len(path) * SIZE + tail - 1) // SIZE)
        for prefix in reversed(prefixes):
            cache.pop(prefix, None)
            cache[prefix] = None
            if len(cache) > capacity:
                cache.popitem(last=False)
    return found


@settings(max_examples=150, deadline=None)
@given(prompts, st.sets(st.integers(1, 23), max_size=2))
def test_every_size_finds_what_an_lru_simulation_finds(asked: list[Prompt], resets: set[int]) -> None:
    when = tuple(sorted(resets))
    curve = miss_ratio_curve(trace_of(asked, when))
    most = sum(len(path) for path, _, _ in asked) + 1
    assert [curve.hit_tokens(size) for size in range(most + 1)] == [
        lru_hits(asked, size, when) for size in range(most + 1)
    ]


def test_by_hand() -> None:
    """The first block goes last: a cache of one has it for the second and third prompt; their last one is computed anyway."""
    curve = miss_ratio_curve(trace_of([((0, 0, 0), 0, True), ((0, 0, 1), 4, True), ((0, 0, 0), 0, True)]))
    assert [curve.hit_tokens(size) for size in range(6)] == [0, 32, 64, 64, 64, 64]
    assert curve.asked_tokens == 48 + 52 + 48
    assert (curve.blocks_for(1.0), curve.blocks_for(0.25)) == (2, 1)
    assert curve.is_exact and curve.error(3) == 0


def test_a_reset_forgets() -> None:
    asked: list[Prompt] = [((0, 1), 1, True)] * 3
    assert miss_ratio_curve(trace_of(asked)).hit_tokens(9) == 64
    assert miss_ratio_curve(trace_of(asked, (1,))).hit_tokens(9) == 32


def test_without_prompts() -> None:
    curve = miss_ratio_curve(trace_of([]))
    assert (curve.hit_tokens(10), curve.hit_rate(10), curve.blocks_for(0.9)) == (0, 0, 0)


@pytest.fixture(scope="module")
def large() -> Trace:
    """Popular prefixes of 5 to 60 blocks with tails of their own: 200,000 uses of 70,000 blocks."""
    rng = random.Random(3)
    heads = [tuple(rng.randrange(1 << 30) for _ in range(rng.randint(5, 60))) for _ in range(300)]
    weights = [1 / (rank + 3) for rank in range(len(heads))]
    asked: list[Prompt] = []
    for _ in range(5000):
        head = rng.choices(heads, weights)[0]
        asked.append(((*head, *(rng.randrange(1 << 30) for _ in range(rng.randint(0, 25)))), 5, True))
    return trace_of(asked)


def test_a_sample_is_near_the_whole_and_knows_how_near(large: Trace) -> None:
    """One block in eleven: within a point, and within twice its own standard error, at every size of some use."""
    exact, sampled = miss_ratio_curve(large), miss_ratio_curve(large, most_uses=large.uses // 10)
    assert exact.is_exact and not sampled.is_exact
    assert len(sampled.sample.needed) < 0.12 * large.uses
    sizes = [160 * 2**power for power in range(8)]
    off = [abs(sampled.hit_rate(size) - exact.hit_rate(size)) for size in sizes]
    assert max(off) < 0.01
    errors = [sampled.error(size) for size in sizes]
    assert max(errors) < 0.04
    assert all(one <= 2 * error for one, error in zip(off, errors, strict=True))
    assert exact.error(640) == 0


def test_a_sample_is_spread_along_every_prompt(large: Trace) -> None:
    """Every eleventh block but for where prompts part, in eight parts of about the same number; each time the same ones."""
    part_of = sampled_blocks(large.tree, 11)
    for one in large.asked[:500]:
        path = large.tree.path(one.end)
        assert abs(sum(part_of[block] >= 0 for block in path) - len(path) / 11) < 3
    counts = [int((part_of == part).sum()) for part in range(-1, 8)]
    assert counts[0] / len(part_of) == pytest.approx(10 / 11, abs=0.005)
    assert max(counts[1:]) < 1.2 * min(counts[1:])
    assert (part_of == sampled_blocks(large.tree, 11)).all()


def test_the_difference_in_uses_goes_to_the_smallest_distance() -> None:
    """SHARDS-adj: ten uses too few in the sample are ten hits more at every size that has hits at all."""
    import numpy

    curve = Curve(SIZE, 16_000, Sample(numpy.array([5.0, 9.0]), 0.1, 10.0))
    assert [curve.hit_tokens(size) for size in (4, 5, 9)] == [0, 11 * SIZE / 0.1, 12 * SIZE / 0.1]
