"""The session once more with a cache of another size: vLLM's scheduler and block pool in small.

The requests come in the order and at the steps at which they came (`Clock`), with their prompts and as many output tokens.
A step is made as vLLM 0.32 does (`v1/core/sched/scheduler.py`, first come first served): first the running requests, in the
order of their admission, one token each or the next part of a prompt; who finds no block preempts the request that was
admitted last; then, where nobody was preempted, waiting requests while there are tokens, places and blocks for the whole
prompt. Blocks are cached when they are given out, also those of the output. What a replay leaves out is in
docs/advice-kv-cache.md.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from profilemate.advise.kv.outcome import Outcome, Request
from profilemate.advise.kv.pool import Pool

if TYPE_CHECKING:
    from profilemate.advise.kv.outputs import Continued
    from profilemate.advise.kv.trace import Trace


class Replay:
    """One run of a trace."""

    def __init__(self, trace: Trace, continued: Continued, usable_blocks: int) -> None:
        """Nothing has run."""
        self.trace = trace
        self.limits = trace.limits
        self.continued = continued
        self.pool = Pool(usable_blocks)
        self.outcome = Outcome(usable_blocks)
        self.waiting: deque[Request] = deque()
        self.running: dict[int, Request] = {}
        self.prefilling: list[Request] = []
        self.num_decoding = 0
        self.num_starting = 0
        self.step = 0
        self.needs: dict[int, list[tuple[Request, int]]] = {}
        self.ends: dict[int, list[tuple[Request, int]]] = {}
        self.leaving: list[Request] = []
        self.admitted = 0
        self.blocked_at = -1
        self.is_preempting = False

    def run(self) -> Outcome:
        """Until every request has ended."""
        trace, clock, outcome = self.trace, self.trace.clock, self.outcome
        arrivals = [clock.moment(one.queued_ns) for one in trace.asked]
        resets = deque(clock.resets)
        now, place = 0.0, 0
        while True:
            if not (self.waiting or self.running or self.leaving):
                if place == len(arrivals):
                    break
                now = max(now, arrivals[place])
            while place < len(arrivals) and arrivals[place] <= now:
                self._arrive(place)
                place += 1
            while resets and resets[0] <= now:
                resets.popleft()
                self.pool.reset()
            tokens = self._schedule()
            if not tokens and not self.leaving:
                continue  # the only one that ran preempted itself, and begins again
            in_use = self.pool.in_use
            outcome.peak_blocks = max(outcome.peak_blocks, in_use)
            if tokens:
                seconds = clock.step_seconds(tokens)
                now += seconds
                outcome.seconds += seconds
                outcome.block_seconds += seconds * in_use
                outcome.steps += 1
            self._update()
        outcome.evictions, outcome.taken = self.pool.evictions, self.pool.taken
        outcome.most_filled = self.pool.size - self.pool.fewest_empty
        return outcome

    def _arrive(self, place: int) -> None:
        """A request waits, unless it would not fit even alone."""
        one = self.trace.asked[place]
        request = Request(
            place, self.trace.tree.path(one.end), self.continued.get(place, ()), one.prompt_tokens,
            one.prompt_tokens + max(1, one.output_tokens or 1), is_looked_up=one.is_looked_up,
        )  # fmt: skip
        if -(-request.target_tokens // self.limits.block_size) > self.pool.size:
            self.outcome.is_too_small = True
        elif request.tokens:
            self.waiting.append(request)

    # -- one step ---------------------------------------------------------------------------------------------------

    def _schedule(self) -> int:
        """Tokens of the step."""
        self.is_preempting = False
        due = self.needs.pop(self.step, None)
        if due:
            self._grow(due)
        tokens = self.num_decoding
        for request in list(self.prefilling):
            if request.number in self.running:
                tokens += self._advance(request, self.limits.max_step_tokens - tokens)
        if not self.is_preempting:
            tokens += self._admit(self.limits.max_step_tokens - tokens)
        return tokens

    def _grow(self, due: list[tuple[Request, int]]) -> None:
        """The next block of requests that decode and whose last block is full."""
        size = self.limits.block_size
        for request, since in sorted(due, key=lambda pair: pair[0].number):
            if request.decodes_since != since or request.number not in self.running:
                continue
            if not self._make_room(request, 1):
                continue
            self._fill(request, self._computed(request))
            self.pool.take(1)
            request.unfilled = 1
            if self.step + size <= request.last_step:
                self.needs.setdefault(self.step + size, []).append((request, since))

    def _advance(self, request: Request, budget: int) -> int:
        """The next part of a prompt, of a request that runs; its tokens."""
        count = min(request.tokens - request.computed, budget)
        if count <= 0:
            return 0
        needed = -(-(request.computed + count) // self.limits.block_size) - len(request.held) - request.unfilled
        if needed > 0 and not self._make_room(request, needed):
            return 0
        self._compute(request, count)
        return count

    def _admit(self, budget: int) -> int:
        """Waiting requests, in their order; tokens that they begin with."""
        tokens = 0
        while self.waiting and tokens < budget and len(self.running) < self.limits.max_requests:
            if self.blocked_at == self.pool.frees:
                break
            request = self.waiting[0]
            hits = self._look_up(request)
            size = self.limits.block_size
            needed = -(-request.tokens // size) - len(hits) + self.pool.num_idle(hits)
            if needed > self.pool.free:
                self.blocked_at = self.pool.frees
                break
            self.waiting.popleft()
            self._begin(request, hits)
            count = min(request.tokens - request.computed, budget - tokens)
            self._compute(request, count)
            tokens += count
        return tokens

    def _look_up(self, request: Request) -> list[int]:
        """Cached blocks at its beginning. The last token is always computed."""
        if not request.is_looked_up:
            return []
        most = (request.tokens - 1) // self.limits.block_size
        return self.pool.find(request.contents(0, most), most)

    def _begin(self, request: Request, hits: list[int]) -> None:
        tokens = len(hits) * self.limits.block_size
        if request.num_preemptions:
            self.outcome.recomputed_tokens += max(0, request.lost_tokens - tokens)
        elif request.is_looked_up:
            self.outcome.asked_tokens += request.tokens
            self.outcome.hit_tokens += tokens
        self.pool.hold(hits)
        request.held = hits
        request.unfilled = 0
        request.computed = tokens
        request.decodes_since = -1
        self.admitted += 1
        request.number = self.admitted
        self.running[request.number] = request
        self.prefilling.append(request)

    def _compute(self, request: Request, count: int) -> None:
        """So many tokens get keys and values; there are blocks for them."""
        size = self.limits.block_size
        request.computed += count
        needed = -(-request.computed // size) - len(request.held) - request.unfilled
        if needed > 0:
            self.pool.take(needed)
            request.unfilled += needed
        self._fill(request, request.computed)
        if request.computed == request.tokens:
            self._decode(request)

    def _fill(self, request: Request, computed: int) -> None:
        """Blocks that are full with so many tokens can be found from now on."""
        first, end = len(request.held), computed // self.limits.block_size
        if end > first:
            request.held += self.pool.keep(request.contents(first, end))
            request.unfilled -= end - first

    def _decode(self, request: Request) -> None:
        """A token comes with this step and with each after it; so it is known when it needs a block and when it ends."""
        self.prefilling.remove(request)
        since = request.decodes_since = self.step
        last = request.last_step = since + request.target_tokens - request.tokens - 1
        self.num_starting += last > since
        self.ends.setdefault(last, []).append((request, since))
        first = since + 1 + -request.tokens % self.limits.block_size
        if first <= last:
            self.needs.setdefault(first, []).append((request, since))

    def _update(self) -> None:
        """Tokens were sampled: requests that have all of theirs end. Asynchronous scheduling frees a step later."""
        for request in self.leaving:
            self._leave(request)
        self.leaving.clear()
        done = [request for request, since in self.ends.pop(self.step, ()) if self._decodes(request, since)]
        for request in sorted(done, key=lambda one: one.number):
            self.num_decoding -= request.decodes_since < self.step
            self._fill(request, request.target_tokens - 1)
            if self.limits.is_async:
                self.leaving.append(request)
            else:
                self._leave(request)
        self.num_decoding += self.num_starting
        self.num_starting = 0
        self.step += 1

    def _leave(self, request: Request) -> None:
        if self.running.pop(request.number, None) is not None:
            self.pool.give_back(request.held, request.unfilled)
            self.outcome.finished += 1

    # -- preemption -------------------------------------------------------------------------------------------------

    def _decodes(self, request: Request, since: int) -> bool:
        return request.decodes_since == since and request.number in self.running

    def _computed(self, request: Request) -> int:
        """Tokens with keys and values before this step."""
        if request.decodes_since < 0:
            return request.computed
        return request.tokens + self.step - request.decodes_since - 1

    def _make_room(self, request: Request, count: int) -> bool:
        """Preempt the last admitted ones until there are so many free blocks; False where it is itself one of them."""
        while self.pool.free < count:
            victim = self.running[next(reversed(self.running))]
            if victim in self.leaving:
                self.leaving.remove(victim)
                self._leave(victim)
                continue
            self._preempt(victim)
            if victim is request:
                return False
        return True

    def _preempt(self, victim: Request) -> None:
        """It waits in front of all others, with the tokens that it has so far."""
        del self.running[victim.number]
        computed = self._computed(victim)
        is_in_flight = self.limits.is_async and victim.decodes_since >= 0
        self._fill(victim, computed - is_in_flight)  # a block is cached when the token that fills it is known
        self.pool.give_back(victim.held, victim.unfilled)
        if victim.decodes_since < 0:
            self.prefilling.remove(victim)
        else:
            self.num_decoding -= 1
            victim.tokens = computed + 1
        victim.held, victim.unfilled = [], 0
        victim.computed, victim.lost_tokens, victim.decodes_since = 0, computed, -1
        victim.num_preemptions += 1
        self.waiting.appendleft(victim)
        self.outcome.preemptions += 1
        self.is_preempting = True
        self.blocked_at = -1


def replay(trace: Trace, continued: Continued, usable_blocks: int) -> Outcome:
    """What a cache of so many blocks, without the null block, gives for the same requests."""
    return Replay(trace, continued, usable_blocks).run()


def unlimited_blocks(trace: Trace) -> int:
    """So many blocks that nothing is ever evicted: one for each token block of every request."""
    size = trace.limits.block_size
    return sum(-(-(one.prompt_tokens + max(1, one.output_tokens or 1)) // size) for one in trace.asked) + 1
