"""The pool and the scheduler in small: by hand, and against a pool that is a list of blocks."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profilemate.advise.kv.outcome import OWN_CONTENT, Outcome
from profilemate.advise.kv.outputs import continued_prompts
from profilemate.advise.kv.pool import Pool
from profilemate.advise.kv.prompts import BlockTree
from profilemate.advise.kv.replay import Replay, replay, unlimited_blocks
from profilemate.advise.kv.steps import Clock, fit
from profilemate.advise.kv.trace import Asked, Limits, Trace, first_part

SIZE = 4


class ListedPool:
    """Blocks in a list, the next to be given out first, each with a content or None; as vLLM keeps them."""

    def __init__(self, size: int) -> None:
        self.queue = list(range(size))
        self.content: dict[int, int | None] = dict.fromkeys(self.queue)
        self.users = dict.fromkeys(self.queue, 0)
        self.born: dict[int, int] = {}
        self.evictions = 0

    def find(self, contents: list[int]) -> list[int]:
        found = []
        for content in contents:
            having = [block for block, held in self.content.items() if held == content]
            if not having:
                break
            found.append(min(having, key=lambda block: self.born[block]))
        return found

    def hold(self, blocks: list[int]) -> None:
        for block in blocks:
            if not self.users[block]:
                self.queue.remove(block)
            self.users[block] += 1

    def take(self) -> int:
        block = self.queue.pop(0)
        self.evictions += self.content[block] is not None
        self.content[block] = None
        self.users[block] = 1
        return block

    def fill(self, block: int, content: int) -> None:
        self.content[block] = content
        self.born[block] = max(self.born.values(), default=0) + 1

    def give_back(self, blocks: list[int]) -> None:
        free = []
        for block in reversed(blocks):
            self.users[block] -= 1
            if not self.users[block]:
                free.append(block)
        self.queue[:0] = [block for block in free if self.content[block] is None]
        self.queue += [block for block in free if self.content[block] is not None]


requests = st.lists(
    st.tuples(st.lists(st.integers(0, 2), max_size=5), st.booleans(), st.integers(0, 3)), min_size=1, max_size=30
)


@settings(max_examples=150, deadline=None)
@given(requests, st.integers(6, 14))
def test_the_pool_is_a_list_of_blocks(asked: list[tuple[list[int], bool, int]], size: int) -> None:
    """Requests hold blocks, one perhaps without content, until so many others have come; who finds no room is left out.

    Contents after a prefix are told apart by the whole prefix, as in a prompt.
    """
    names: dict[tuple[int, ...], int] = {}
    mine, listed = Pool(size), ListedPool(size)
    running: list[tuple[int, list[int], int, list[int]]] = []
    for place, (path, has_unfilled, stays) in enumerate(asked):
        for ended in [one for one in running if one[0] <= place]:
            running.remove(ended)
            mine.give_back(ended[1], ended[2])
            listed.give_back(ended[3])
        contents = [names.setdefault(tuple(path[:end]), len(names)) for end in range(1, len(path) + 1)]
        hits, theirs = mine.find(contents, len(contents)), listed.find(contents)
        assert len(hits) == len(theirs)
        assert mine.num_idle(hits) == sum(not listed.users[block] for block in theirs)
        need = len(contents) - len(hits) + has_unfilled
        assert mine.free == len(listed.queue)
        if need + mine.num_idle(hits) > mine.free:
            continue
        mine.hold(hits)
        listed.hold(theirs)
        mine.take(need)
        blocks = theirs + [listed.take() for _ in range(need)]
        for block, content in zip(blocks[len(hits) :], contents[len(hits) :], strict=False):
            listed.fill(block, content)
        held = hits + mine.keep(contents[len(hits) :])
        running.append((place + 1 + stays, held, int(has_unfilled), blocks))
        assert (mine.evictions, mine.free, mine.in_use) == (
            listed.evictions,
            len(listed.queue),
            size - len(listed.queue),
        )


def test_two_blocks_of_the_same_content_are_both_kept() -> None:
    """Two requests computed the same at once: one is evicted, and the other is still found."""
    pool = Pool(3)
    pool.take(2)
    (first,), (second,) = pool.keep([7]), pool.keep([7])
    assert first == 7 and second != 7
    pool.give_back([first], 0)
    pool.give_back([second], 0)
    pool.take(2)
    assert pool.evictions == 1 and pool.find([7], 1) == [second]
    pool.take(1)
    assert pool.evictions == 2 and pool.find([7], 1) == []


# -- the scheduler ------------------------------------------------------------------------------------------------------


def trace_of(
    *asked: tuple[str, int, int, int], blocks: int = 100, requests: int = 8, tokens: int = 64, is_async: bool = False
) -> Trace:
    """Requests as (blocks of the prompt as letters, tokens behind them, tokens of output, step at which they come)."""
    tree = BlockTree()
    known = {"": -1}
    found = []
    for letters, tail, output, step in asked:
        for end in range(1, len(letters) + 1):
            if letters[:end] not in known:
                known[letters[:end]] = tree.add(known[letters[: end - 1]])
        found.append(Asked(step, len(letters) * SIZE + tail, output, known[letters], True, 0, 0))
    clock = Clock(1.0, 0.0, tuple(range(1000)), tuple(map(float, range(1000))))
    return Trace(Limits(blocks, SIZE, requests, tokens, is_async), tree, tuple(found), clock)


def run(trace: Trace, blocks: int | None = None) -> Outcome:
    return replay(trace, continued_prompts(trace), blocks or trace.limits.usable_blocks)


def test_the_last_token_is_always_computed() -> None:
    outcome = run(trace_of(("ab", 0, 1, 0), ("ab", 0, 1, 5), ("ab", 1, 1, 9), ("x", 3, 1, 12)))
    assert outcome.hit_tokens == 4 + 8
    assert (outcome.asked_tokens, outcome.finished, outcome.evictions) == (8 + 8 + 9 + 7, 4, 0)


def test_what_is_freed_first_is_evicted_first_and_of_a_prompt_its_end() -> None:
    """Four blocks: `abc` and `d` fill them, `ef` evicts c and b; then a is still found, and b is not."""
    asked = [("abc", 0, 1, 0), ("d", 0, 1, 2), ("ef", 0, 1, 4)]
    outcome = run(trace_of(*asked, ("abx", 0, 1, 6), blocks=4))
    assert (outcome.hit_tokens, outcome.evictions) == (4, 2 + 2)


def test_a_block_that_is_not_full_goes_first_and_is_no_eviction() -> None:
    outcome = run(trace_of(("a", 2, 1, 0), ("b", 2, 1, 2), ("a", 2, 1, 4), blocks=4))
    assert (outcome.hit_tokens, outcome.evictions) == (4, 0)
    assert outcome.most_filled == 3


def test_a_running_request_holds_its_blocks() -> None:
    """`ab` generates for 40 steps and holds ever more of the 13 blocks, so that it evicts `zzz` before `zzz` comes again."""
    slow = [("zzz", 0, 1, 0), ("ab", 0, 40, 2), ("zzz", 1, 1, 45)]
    assert run(trace_of(*slow, blocks=12)).hit_tokens == 0
    assert run(trace_of(*slow, blocks=15)).hit_tokens == 12
    assert run(trace_of(*slow, blocks=12)).peak_blocks == 12


def test_a_prompt_is_cached_as_far_as_it_was_scheduled() -> None:
    """Eight tokens a step: who comes beside it finds what it has got blocks for, not what is still to be computed."""
    trace = trace_of(("abcd", 0, 1, 0), ("abcd", 1, 1, 1), tokens=12)
    assert run(trace).hit_tokens == 16
    together = trace_of(("abcd", 0, 1, 0), ("abcd", 1, 1, 0), tokens=20)
    assert run(together).hit_tokens == 16


def test_the_last_admitted_is_preempted_and_finds_its_blocks_again() -> None:
    """Both grow to 5 blocks, 8 are there: the second loses its blocks once, waits, and is not counted in the hit rate."""
    outcome = run(trace_of(("aa", 0, 12, 0), ("bb", 0, 12, 0), blocks=8))
    assert outcome.preemptions == 1
    assert outcome.asked_tokens == 16 and outcome.hit_tokens == 0
    assert outcome.finished == 2
    assert run(trace_of(("aa", 0, 12, 0), ("bb", 0, 12, 0), blocks=10)).preemptions == 0


def test_who_is_preempted_waits_before_all_others() -> None:
    class Watched(Replay):
        def _preempt(self, victim: Any) -> None:
            super()._preempt(victim)
            orders.append([request.place for request in self.waiting])

    orders: list[list[int]] = []
    trace = trace_of(("aa", 0, 12, 0), ("bb", 0, 12, 0), ("cc", 0, 1, 1), blocks=8, requests=2)
    assert Watched(trace, {}, 8).run().finished == 3
    assert orders == [[1, 2]]


def test_a_last_token_fills_no_block() -> None:
    """Twelve tokens, of which eleven are computed: two blocks can be evicted, and three are empty when `xyz` comes."""
    assert run(trace_of(("ab", 0, 4, 0), ("xyz", 0, 1, 10), blocks=5)).evictions == 0
    assert run(trace_of(("ab", 0, 5, 0), ("xyz", 0, 1, 10), blocks=5)).evictions == 1


def test_no_more_requests_run_than_may() -> None:
    one_after_other = run(trace_of(("a", 0, 10, 0), ("b", 0, 10, 0), requests=1))
    assert one_after_other.steps == 20
    assert run(trace_of(("a", 0, 10, 0), ("b", 0, 10, 0), requests=2)).steps == 10


def test_asynchronous_scheduling_frees_a_step_later() -> None:
    """The second request needs the blocks of the first, which a step that is already scheduled still holds."""
    asked = [("aaa", 0, 2, 0), ("bbb", 0, 2, 0)]
    assert run(trace_of(*asked, blocks=4)).seconds == 4
    assert run(trace_of(*asked, blocks=4, is_async=True)).finished == 2


def test_asynchronous_scheduling_caches_a_block_when_its_last_token_is_known() -> None:
    """The second one is preempted with 16 tokens computed, the last of them in flight: its fourth block has no content yet,
    so that the first one takes it without evicting anything."""
    asked = [("aa", 0, 12, 0), ("bb", 0, 12, 0)]
    assert run(trace_of(*asked, blocks=8)).evictions == 1 + run(trace_of(*asked, blocks=8, is_async=True)).evictions


def test_a_request_that_fits_nowhere_is_left_out_and_said() -> None:
    outcome = run(trace_of(("abcdef", 0, 4, 0), ("a", 1, 1, 3), blocks=5))
    assert outcome.is_too_small and outcome.finished == 1 and outcome.asked_tokens == 5


def test_requests_that_are_not_looked_up_are_cached_for_others() -> None:
    trace = trace_of(("ab", 1, 1, 0), ("ab", 1, 1, 3), ("ab", 1, 1, 6))
    skipped = replace(trace, asked=(trace.asked[0], replace(trace.asked[1], is_looked_up=False), trace.asked[2]))
    outcome = run(skipped)
    assert (outcome.asked_tokens, outcome.hit_tokens) == (18, 8)


def test_a_reset_forgets_what_nobody_holds() -> None:
    trace = trace_of(("ab", 1, 1, 0), ("ab", 1, 1, 6))
    reset = replace(trace, clock=replace(trace.clock, resets=(3.0,)))
    assert (run(trace).hit_tokens, run(reset).hit_tokens) == (8, 0)


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 1 << 30), st.integers(9, 40), st.booleans())
def test_every_run_ends_and_gives_all_blocks_back(seed: int, blocks: int, is_async: bool) -> None:
    rng = random.Random(seed)
    asked = []
    for _ in range(rng.randint(1, 25)):
        path = "".join(rng.choice("ab") for _ in range(rng.randint(0, 5)))
        asked.append((path, rng.randint(0, 3), rng.randint(1, 12), rng.randint(0, 20)))
    asked = [one for one in asked if one[0] or one[1]] or [("a", 0, 1, 0)]
    trace = trace_of(
        *sorted(asked, key=lambda one: one[3]), blocks=blocks, requests=rng.randint(1, 6), is_async=is_async
    )
    one = Replay(trace, {}, blocks)
    outcome = one.run()
    assert outcome.finished == len(asked)
    assert one.pool.in_use == 0 and one.pool.free == blocks
    assert not one.running and not one.prefilling and one.num_decoding == 0
    unlimited = run(trace, unlimited_blocks(trace))
    assert (unlimited.evictions, unlimited.preemptions) == (0, 0)
    assert outcome.peak_blocks <= blocks


def test_more_blocks_find_nearly_as_much_or_more() -> None:
    rng = random.Random(1)
    asked = [("".join(rng.choice("abc") for _ in range(rng.randint(1, 8))), 1, 4, step) for step in range(200)]
    trace = trace_of(*asked)
    rates = [run(trace, blocks).hit_rate for blocks in (12, 16, 24, 48, 96, 400)]
    assert all(more >= fewer - 0.005 for fewer, more in pairwise(rates))
    assert rates[-1] > rates[0] + 0.1


# -- outputs that prompts begin with ------------------------------------------------------------------------------------


def asked_again(in_cache: int, output: int) -> Trace:
    """A prompt `ab` with an answer, then `abcd` of whose blocks so many had been in the cache."""
    trace = trace_of(("ab", 0, output, 0), ("abcd", 1, 1, 30))
    later = replace(trace.asked[1], in_cache_tokens=in_cache * SIZE, hit_tokens=in_cache * SIZE)
    return replace(trace, asked=(trace.asked[0], later))


@pytest.mark.parametrize(("in_cache", "output", "found"), [(4, 9, 16), (3, 9, 12), (2, 9, 8), (4, 4, 8), (4, 8, 8)])
def test_the_next_turn_finds_the_answer(in_cache: int, output: int, found: int) -> None:
    """Eight tokens of prompt: nine of answer fill two blocks more, since the last token is never computed; eight do not."""
    assert run(asked_again(in_cache, output)).hit_tokens == found


def test_a_third_turn_continues_the_second() -> None:
    trace = trace_of(("a", 0, 9, 0), ("abc", 0, 9, 30), ("abcde", 1, 1, 60))
    second = replace(trace.asked[1], in_cache_tokens=8)
    third = replace(trace.asked[2], in_cache_tokens=20)
    trace = replace(trace, asked=(trace.asked[0], second, third))
    continued = continued_prompts(trace)
    assert {place: len(blocks) for place, blocks in continued.items()} == {0: 1, 1: 2}
    assert replay(trace, continued, 100).hit_tokens == 8 + 20


def test_own_outputs_have_contents_of_their_own() -> None:
    trace = trace_of(("a", 0, 40, 0))
    one = Replay(trace, {0: (77,)}, 100)
    one._arrive(0)
    contents = one.waiting[0].contents(0, 4)
    assert contents[:2] == [0, 77] and all(content >= OWN_CONTENT for content in contents[2:])
    assert one.waiting[0].contents(3, 4) == contents[3:]


# -- the clock ----------------------------------------------------------------------------------------------------------


def test_steps_take_what_their_tokens_say() -> None:
    tokens = [1 + n % 40 for n in range(200)]
    base, per_token = fit(tokens, [0.004 + 0.0002 * count for count in tokens])
    assert (base, per_token) == (pytest.approx(0.004), pytest.approx(0.0002))


def test_few_steps_or_falling_times_give_the_mean() -> None:
    assert fit([5, 10], [0.1, 0.3]) == (pytest.approx(0.1), 0)
    assert fit([], []) == (1.0, 0.0)
    tokens = [1 + n % 40 for n in range(200)]
    base, per_token = fit(tokens, [0.01 - 0.0001 * count for count in tokens])
    assert per_token == 0 and base > 0


def test_who_came_between_two_steps_is_seen_by_the_second() -> None:
    clock = Clock(1.0, 0.0, (100, 200, 300), (0.0, 1.0, 5.0))
    assert [clock.moment(time) for time in (50, 100, 101, 200, 250)] == [0.0, 0.0, 1.0, 1.0, 5.0]
    assert clock.moment(301) == 6.0


def test_the_first_part_of_a_long_trace() -> None:
    trace = trace_of(("abc", 0, 1, 0), ("abc", 0, 1, 1), ("d", 0, 1, 2))
    part = first_part(trace, 6)
    assert len(part.asked) == 2 and part.left.lookups == 1
    assert first_part(trace, 7) is trace
