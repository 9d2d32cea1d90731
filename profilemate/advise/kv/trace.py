"""What one engine was asked, as far as the session tells: the input of the curve and of the replay."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from profilemate.advise.kv.prompts import NO_BLOCK, BlockTree, Prompts, read_prompts
from profilemate.advise.kv.steps import Clock, engine_steps, read_clock
from profilemate.session.records import whole
from profilemate.trackers.prefix_lookups import events as lookups
from profilemate.trackers.requests import events as requests

if TYPE_CHECKING:
    from profilemate.frames.session import Session
    from profilemate.session.views import EngineSpan


@dataclass(frozen=True, slots=True)
class Asked:
    """One admitted request. Tokens; `end` is the last whole block of its prompt, -1 for none.

    `in_cache_tokens` at its beginning had been in the cache at some time before, whether or not they still were.
    `output_tokens` is None where the request's end is not in the session.
    """

    queued_ns: int
    prompt_tokens: int
    output_tokens: int | None
    end: int
    is_looked_up: bool
    hit_tokens: int
    in_cache_tokens: int


@dataclass
class Left:
    """What is not in the trace, or not as it was; look-ups are those of requests that were admitted for the first time."""

    lookups: int = 0
    """Without a row, as when old rows were removed or could not be written; or after the tree of blocks was full."""
    unwritten: int = 0
    """Whose blocks were not all written."""
    beheaded: int = 0
    """Whose first blocks' rows are gone, so that they are taken for one prefix for each block that is known after them."""
    without_request: int = 0
    """Without a row of the request tracker: when they were queued and how long they ran is not known."""
    unknown_tokens: int = 0
    """New, or evicted so long before that the tracker could not tell."""
    external_tokens: int = 0
    """Brought by a KV connector."""
    with_priority: int = 0
    other_blocks: int = 0
    """Whose number of whole blocks is not that of the configured block size."""


@dataclass(frozen=True)
class Limits:
    """What bounds an engine: usable blocks (without the null block), tokens of a block, requests and tokens of a step."""

    usable_blocks: int
    block_size: int
    max_requests: int
    max_step_tokens: int
    is_async: bool = False


@dataclass(frozen=True)
class Trace:
    """One engine's requests in the order in which they were queued, its blocks, its limits and its clock."""

    limits: Limits
    tree: BlockTree
    asked: tuple[Asked, ...]
    clock: Clock
    left: Left = field(default_factory=Left)

    @property
    def uses(self) -> int:
        """Blocks of all prompts, each as often as it is in one."""
        return sum(self.tree.depth(one.end) for one in self.asked)

    @property
    def asked_tokens(self) -> int:
        """Tokens that were looked up."""
        return sum(one.prompt_tokens for one in self.asked if one.is_looked_up)

    @property
    def hit_tokens(self) -> int:
        """Of these, found by vLLM."""
        return sum(one.hit_tokens for one in self.asked if one.is_looked_up)


LOOKUP_COLUMNS = (
    "engine", "lookup", "request", "time_ns", "resumed", "cache_off", "prompt_tokens", "blocks", "hit_tokens",
    "external_tokens", "evicted_tokens", "reset_tokens", "untaken_tokens", "unknown_tokens", "unwritten_blocks",
)  # fmt: skip
SERVED_COLUMNS = ("engine", "request", "queued_ns", "output_tokens", "priority")


@dataclass(slots=True)
class _Served:
    """Of a request from its rows of engine_requests."""

    queued_ns: int | None = None
    output_tokens: int | None = None
    priority: int = 0


def read_limits(session: Session, span: EngineSpan) -> Limits | None:
    """The limits of one engine; None where the session does not tell them."""
    config = span.process.engine_config
    steps = engine_steps(session, span, "total_blocks", "usable_blocks").tail(1)
    told = [int(value) for name in ("total_blocks", "usable_blocks") for value in steps[name].to_list() if value]
    usable = told[0] if told else whole(config.get("num_gpu_blocks")) - 1
    names = ("block_size", "max_num_seqs", "max_num_batched_tokens")
    block_size, max_requests, max_step_tokens = (whole(config.get(name)) for name in names)
    if min(usable, block_size, max_requests, max_step_tokens) <= 0:
        return None
    return Limits(usable, block_size, max_requests, max_step_tokens, bool(config.get("async_scheduling")))


def read_trace(session: Session, span: EngineSpan, limits: Limits) -> Trace | None:
    """One engine's trace; None where it has no look-ups with the blocks of their prompts."""
    prompts = read_prompts(session, span.process, span.local_engine)
    if not prompts.ends:
        return None
    left = Left()
    served = _served(session, span)
    asked: list[Asked] = []
    seen = latest = 0
    for row in session.rows(span.process, lookups.LOOKUPS, *LOOKUP_COLUMNS):
        cells = dict(zip(LOOKUP_COLUMNS, row, strict=True))
        if cells["engine"] != span.local_engine:
            continue
        seen, latest = seen + 1, max(latest, cells["lookup"] or 0)
        if cells["resumed"]:
            continue
        if prompts.is_full and cells["blocks"] and cells["lookup"] not in prompts.ends:
            left.lookups += 1
            continue
        asked.append(_asked(cells, prompts, served.get(cells["request"]) or _Served(), left, limits.block_size))
    left.lookups += max(0, latest - seen)
    asked.sort(key=lambda one: one.queued_ns)
    return Trace(limits, prompts.tree, tuple(asked), read_clock(session, span), left)


def _served(session: Session, span: EngineSpan) -> dict[str, _Served]:
    found: dict[str, _Served] = {}
    for engine, name, queued_ns, output_tokens, priority in session.rows(
        span.process, requests.IN_ENGINE, *SERVED_COLUMNS
    ):
        if engine != span.local_engine:
            continue
        one = found.setdefault(name, _Served())
        one.queued_ns = one.queued_ns or queued_ns
        one.output_tokens = output_tokens or one.output_tokens
        one.priority = priority or one.priority
    return found


def _asked(cells: dict[str, Any], prompts: Prompts, served: _Served, left: Left, block_size: int) -> Asked:
    """One request; what is not known of it is noted in `left`. Blocks that were not written are taken for nobody else's."""
    prompt, blocks = cells["prompt_tokens"] or 0, cells["blocks"] or 0
    end = prompts.ends.get(cells["lookup"], NO_BLOCK)
    missing = blocks - prompts.tree.depth(end)
    left.other_blocks += blocks != prompt // block_size
    left.unwritten += missing != 0
    left.beheaded += end >= 0 and bool(prompts.tree.made_up[end])
    left.without_request += served.queued_ns is None
    left.unknown_tokens += cells["unknown_tokens"] or 0
    left.external_tokens += cells["external_tokens"] or 0
    left.with_priority += bool(served.priority)
    known = ("hit_tokens", "external_tokens", "evicted_tokens", "reset_tokens", "untaken_tokens")
    return Asked(
        queued_ns=cells["time_ns"] if served.queued_ns is None else served.queued_ns,
        prompt_tokens=prompt,
        output_tokens=served.output_tokens,
        end=prompts.tree.add_chain(end, missing) if missing > 0 else end,
        is_looked_up=not cells["cache_off"],
        hit_tokens=cells["hit_tokens"] or 0,
        in_cache_tokens=sum(cells[name] or 0 for name in known),
    )


def first_part(trace: Trace, most_uses: int) -> Trace:
    """The first requests, as many as use so many blocks; the others are counted in `left`."""
    uses = 0
    for place, one in enumerate(trace.asked):
        uses += trace.tree.depth(one.end)
        if uses > most_uses:
            left = replace(trace.left, lookups=trace.left.lookups + len(trace.asked) - place)
            return replace(trace, asked=trace.asked[:place], left=left)
    return trace
