"""What other cache sizes would have given, for every engine of a session."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from profilemate.advise.kv.curve import Curve, miss_ratio_curve
from profilemate.advise.kv.engines import stepping_engines
from profilemate.advise.kv.outcome import Outcome
from profilemate.advise.kv.outputs import continued_prompts
from profilemate.advise.kv.replay import replay, unlimited_blocks
from profilemate.advise.kv.steps import engine_steps
from profilemate.advise.kv.trace import Limits, Trace, first_part, read_limits, read_trace
from profilemate.advise.words import percent
from profilemate.session.views import EngineSpan

if TYPE_CHECKING:
    from profilemate.frames.session import Session

NOW, UNLIMITED = 1.0, float("inf")
NAMED = (0.5, 1.5, 2.0, UNLIMITED)
"""Sizes that are always told, as multiples of the present one."""
FEW = (0.5, NOW, 1.5, 2.0, UNLIMITED)
MANY = (0.25, 0.5, 0.75, NOW, 1.25, 1.5, 2.0, 3.0, UNLIMITED)
USES_FOR_MANY = 300_000
MOST_REPLAYED_USES = 1_500_000
"""Of a longer trace the first part is replayed, a few seconds for each size."""

TOLERANCE = 0.02
"""Points of hit rate by which the replay may miss what vLLM counts: at the recorded size it is checked here, at others by
the tests against vLLM's own scheduler."""

ONE_GROUP = 1.25
"""A model with one KV cache group has taken at most so many times the blocks that the replay takes."""

MOST_INCOMPLETE = 0.05
LRU_POINTS = 24

COUNTERS = ("query_tokens", "hit_tokens", "evicted", "preemptions", "allocated")


@dataclass(frozen=True)
class Recorded:
    """vLLM's and ProfileMate's own counts of one engine, exact over its whole life."""

    query_tokens: int = 0
    hit_tokens: int = 0
    evicted: int = 0
    preemptions: int = 0
    allocated: int = 0
    drafted_tokens: int = 0


@dataclass(frozen=True)
class Engine:
    """One engine, what it was asked, and what other sizes give; `why_not` says why there is no prediction."""

    span: EngineSpan
    recorded: Recorded
    limits: Limits | None = None
    trace: Trace | None = None
    curve: Curve | None = None
    outcomes: dict[float, Outcome] = field(default_factory=dict)
    why_not: str = ""

    @property
    def is_predicted(self) -> bool:
        """Whether other sizes are told."""
        return bool(self.outcomes) and not self.why_not

    @property
    def replayed_rate(self) -> float:
        """Hit rate of the requests that were replayed, as vLLM counted it."""
        assert self.trace is not None
        return self.trace.hit_tokens / self.trace.asked_tokens if self.trace.asked_tokens else 0.0


@dataclass(frozen=True)
class Prediction:
    """All engines. They run with the same flags, so their tokens are added up."""

    engines: tuple[Engine, ...]

    @cached_property
    def predicted(self) -> tuple[Engine, ...]:
        """Engines with a prediction."""
        return tuple(engine for engine in self.engines if engine.is_predicted)

    @property
    def factors(self) -> tuple[float, ...]:
        """Sizes that every engine has, as multiples of its own, ascending."""
        common = set.intersection(*(set(engine.outcomes) for engine in self.predicted)) if self.predicted else set()
        return tuple(sorted(common))

    def total(self, factor: float, name: str) -> int:
        """A count of all engines at a size."""
        return sum(int(getattr(engine.outcomes[factor], name)) for engine in self.predicted)

    def hit_rate(self, factor: float) -> float:
        """Of all engines at a size."""
        asked = self.total(factor, "asked_tokens")
        return self.total(factor, "hit_tokens") / asked if asked else 0.0

    def blocks(self, factor: float) -> int:
        """Usable blocks of an engine at that size, of the first; unlimited: so many that nothing is evicted."""
        outcome = self.predicted[0].outcomes[factor]
        return outcome.most_filled if factor == UNLIMITED else outcome.usable_blocks

    @property
    def why_not(self) -> tuple[str, ...]:
        """Sentences about engines without a prediction."""
        return tuple(dict.fromkeys(engine.why_not for engine in self.engines if engine.why_not))


_last: dict[str, Prediction] = {}
"""The newest prediction by the session's path and fingerprint: two topics ask for the same."""


def predict(session: Session) -> Prediction:
    """What other sizes give. Raises SessionError where a package is missing."""
    key = f"{session.path}:{session.fingerprint()}"
    if key not in _last:
        engines = tuple(_engine(session, span) for span in stepping_engines(session))
        _last.clear()
        _last[key] = Prediction(engines)
    return _last[key]


def _engine(session: Session, span: EngineSpan) -> Engine:
    recorded = read_counters(session, span)
    if span.process.engine_config.get("enable_prefix_caching") is False:
        return Engine(span, recorded, why_not="Prefix caching is off.")
    limits = read_limits(session, span)
    if limits is None:
        return Engine(span, recorded, why_not="The session does not record the engine's blocks and limits.")
    trace = read_trace(session, span, limits)
    if trace is None or not trace.asked_tokens:
        why = "The blocks of prompts were not recorded (tracker prefix_lookups)."
        return Engine(span, recorded, limits, why_not=why)
    curve = miss_ratio_curve(trace)
    trace = first_part(trace, MOST_REPLAYED_USES)
    why = _unfit(trace, recorded)
    if why:
        return Engine(span, recorded, limits, trace, curve, why_not=why)
    outcomes = _outcomes(trace)
    engine = Engine(span, recorded, limits, trace, curve, outcomes)
    return Engine(span, recorded, limits, trace, curve, outcomes, _unlike(engine))


def _outcomes(trace: Trace) -> dict[float, Outcome]:
    continued = continued_prompts(trace)
    factors = MANY if trace.uses <= USES_FOR_MANY else FEW
    sizes = {
        factor: unlimited_blocks(trace) if factor == UNLIMITED else int(trace.limits.usable_blocks * factor)
        for factor in factors
    }
    return {factor: replay(trace, continued, blocks) for factor, blocks in sizes.items() if blocks > 0}


def _unfit(trace: Trace, recorded: Recorded) -> str:
    """Why a replay would not be this server."""
    left, count = trace.left, len(trace.asked)
    if left.other_blocks:
        return (
            "The model's blocks are not those of one KV cache group with the configured block size (a hybrid model?)."
        )
    if left.without_request > MOST_INCOMPLETE * count:
        return "When requests were queued and how long they ran is not known (tracker requests)."
    if left.unwritten > MOST_INCOMPLETE * count:
        return f"Of {left.unwritten:,} of {count:,} prompts the blocks were not all recorded."
    if left.with_priority:
        return "Requests have priorities, by which the replay does not schedule."
    if left.external_tokens:
        return "A KV connector brings blocks, which the replay does not model."
    if recorded.drafted_tokens:
        return "The server drafts tokens (speculative decoding), which the replay does not model."
    if not trace.clock.starts_ns:
        return "The engine's steps were not recorded (tracker engine_steps)."
    return ""


def _unlike(engine: Engine) -> str:
    """Why the replay at the recorded size is not what vLLM counted."""
    outcome, trace, recorded = engine.outcomes[NOW], engine.trace, engine.recorded
    assert trace is not None
    is_whole = not trace.left.lookups
    if is_whole and recorded.allocated > ONE_GROUP * outcome.taken:
        return (
            f"vLLM gave out {recorded.allocated:,} blocks where one KV cache group needs {outcome.taken:,}: the model has "
            "several groups, which the replay does not model."
        )
    if abs(outcome.hit_rate - engine.replayed_rate) > TOLERANCE:
        return (
            f"A replay of the session at its own size finds {percent(outcome.hit_rate)} of the tokens and vLLM found "
            f"{percent(engine.replayed_rate)}: the replay is not this server, so it predicts nothing for it."
        )
    return ""


def read_counters(session: Session, span: EngineSpan) -> Recorded:
    """The last row of the cumulative columns, and a sum; 0 where their tracker was off."""
    rows = engine_steps(session, span, *COUNTERS, "drafted_tokens")
    found: dict[str, Any] = {name: rows[name].max() or 0 for name in COUNTERS}
    return Recorded(**found, drafted_tokens=int(rows["drafted_tokens"].sum()))


def hit_rate_between(sizes: list[tuple[int, float]], blocks: int) -> tuple[float, float, float]:
    """Hit rate, and the least and the most that it can be, at a size between replayed ones: (blocks, rate) ascending.

    More blocks find more, but for a little that the other order of requests may change; between two sizes it is interpolated.
    """
    if blocks <= sizes[0][0]:
        return (sizes[0][1], sizes[0][1] if blocks == sizes[0][0] else 0.0, sizes[0][1])
    for (fewer, low), (more, high) in pairwise(sizes):
        if blocks == fewer:
            return low, low, low
        if fewer < blocks < more:
            rate = low + (high - low) * (blocks - fewer) / (more - fewer)
            return rate, min(low, high), max(low, high)
    return sizes[-1][1], sizes[-1][1], sizes[-1][1]


def lru_points(curve: Curve, usable_blocks: int) -> list[list[float]]:
    """Points of the plain LRU curve as [blocks, hit rate], up to where it ends, evenly over the tokens that are found."""
    most = max(curve.blocks_for(1.0), 1)
    wanted = {curve.blocks_for(place / LRU_POINTS) for place in range(1, LRU_POINTS + 1)}
    wanted |= {1, usable_blocks // 2, usable_blocks, 2 * usable_blocks, most}
    return [[blocks, curve.hit_rate(blocks)] for blocks in sorted(wanted) if blocks > 0]
