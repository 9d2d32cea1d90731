"""The hit rate of other cache sizes, and which one to set."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from profilemate.advise.enough import Need, unmet
from profilemate.advise.finding import ACT, FINE, LOOK, THIN, Evidence, Finding, Gain
from profilemate.advise.kv.memory import Memory, command_lines, memory_text
from profilemate.advise.kv.prediction import (
    NAMED,
    NOW,
    TOLERANCE,
    UNLIMITED,
    Engine,
    Prediction,
    lru_points,
)
from profilemate.advise.kv.untold import unpredicted
from profilemate.advise.words import percent
from profilemate.trackers.prefix_lookups import events

if TYPE_CHECKING:
    from profilemate.frames.session import Session

TOPIC = "kv_cache_size"
NAME = f"{TOPIC}.hit_rate"
ABOUT = "the number of KV blocks"
HIT_RATE = "prefix-cache hit rate"
PERCENT = "%"
"""Of the looked-up tokens."""

LOOKUPS_NEEDED = 50
WORTH = 0.02
"""A gain in hit rate that is worth more memory."""
MUCH = 0.05
NOTHING_LOST = 0.01
MOST_OF_IT = 0.8
"""The smallest size is advised that brings so much of what twice the blocks bring."""

WORDS = {0.5: "half the blocks", 1.5: "one and a half times", 2.0: "twice", UNLIMITED: "unlimited blocks"}


def finding(session: Session, prediction: Prediction, memory: Memory) -> Finding:
    """One finding over all engines."""
    if not prediction.predicted:
        return unpredicted(session, prediction)
    needs = [
        Need(
            "look-ups", sum(len(engine.trace.asked) for engine in prediction.predicted if engine.trace), LOOKUPS_NEEDED
        )
    ]
    missing = unmet(needs)
    now = prediction.hit_rate(NOW)
    best = advised_factor(prediction)
    usable = prediction.blocks(NOW)
    blocks = prediction.blocks(best)
    sizes = {engine.outcomes[NOW].usable_blocks for engine in prediction.predicted}
    lines = command_lines(memory, blocks, usable) if best != NOW and not missing and len(sizes) == 1 else []
    return Finding(
        topic=TOPIC,
        name=NAME,
        level=THIN if missing else _level(prediction, best),
        title=f"Too few look-ups to advise on {ABOUT}" if missing else _title(prediction, best),
        says=" ".join(
            [
                *(f"There are only {need.words}." for need in missing),
                _table(prediction),
                _plain_lru(prediction),
                *([memory_text(memory, blocks, usable)] if lines else []),
                *_left_out(prediction),
            ]
        ),
        evidence=_evidence(prediction),
        flags=tuple(lines[:1]),
        alternatives=tuple(lines[1:]),
        gains=tuple(_gain(prediction, factor, now) for factor in NAMED if factor in prediction.factors),
        to_be_sure=(
            "Run the same load with the other number of blocks and compare: profilemate advise --verify BEFORE AFTER. An "
            "8-bit cache may change answers; check them."
        ),
        numbers=_numbers(prediction, best, memory),
    )


def advised_factor(prediction: Prediction) -> float:
    """The smallest larger size that brings most of what twice the blocks bring; half where that loses nothing; else NOW."""
    now = prediction.hit_rate(NOW)
    if 2.0 in prediction.factors and prediction.hit_rate(2.0) - now >= WORTH:
        wanted = MOST_OF_IT * (prediction.hit_rate(2.0) - now)
        return next(one for one in prediction.factors if NOW < one <= 2.0 and prediction.hit_rate(one) - now >= wanted)
    if _half_will_do(prediction):
        return 0.5
    return NOW


def _half_will_do(prediction: Prediction) -> bool:
    if 0.5 not in prediction.factors or any(engine.outcomes[0.5].is_too_small for engine in prediction.predicted):
        return False
    lost = prediction.hit_rate(NOW) - prediction.hit_rate(0.5)
    return lost < NOTHING_LOST and prediction.total(0.5, "preemptions") <= prediction.total(NOW, "preemptions")


def _level(prediction: Prediction, best: float) -> str:
    if best > NOW:
        return ACT if prediction.hit_rate(best) - prediction.hit_rate(NOW) >= MUCH else LOOK
    return LOOK if best < NOW else FINE


def _title(prediction: Prediction, best: float) -> str:
    now, then = prediction.hit_rate(NOW), prediction.hit_rate(best)
    if best > NOW:
        return f"{best:g} times the KV blocks would find {percent(then)} of the prompt tokens instead of {percent(now)}"
    if best < NOW:
        return f"Half the KV blocks would find {percent(then)} of the prompt tokens instead of {percent(now)}"
    return f"Another number of KV blocks would change the hit rate of {percent(now)} little"


def _table(prediction: Prediction) -> str:
    parts = []
    for factor in NAMED:
        if factor not in prediction.factors:
            continue
        parts.append(
            f"{WORDS[factor]} ({prediction.blocks(factor):,}) {percent(prediction.hit_rate(factor))} with "
            f"{prediction.total(factor, 'evictions'):,} evictions"
        )
    return (
        f"Replayed with the {prediction.blocks(NOW):,} blocks that it had, the session finds "
        f"{percent(prediction.hit_rate(NOW))} of the looked-up tokens, with "
        f"{prediction.total(NOW, 'evictions'):,} evictions; vLLM counted "
        f"{percent(_counted(prediction))}. Other sizes: {'; '.join(parts)}."
    )


def _counted(prediction: Prediction) -> float:
    """Hit rate of the replayed requests as vLLM counted it."""
    traces = [engine.trace for engine in prediction.predicted if engine.trace]
    asked = sum(trace.asked_tokens for trace in traces)
    return sum(trace.hit_tokens for trace in traces) / asked if asked else 0.0


def _plain_lru(prediction: Prediction) -> str:
    curves = [engine.curve for engine in prediction.predicted if engine.curve]
    needed = [curve.blocks_for(0.9) for curve in curves]
    if not any(needed):
        return "No block of a prompt came twice."
    errors = [curve.error(needed[place]) for place, curve in enumerate(curves) if not curve.is_exact]
    sampled = f" (from a sample of the blocks, standard error {percent(max(errors))} of the tokens)" if errors else ""
    return (
        f"A plain LRU cache of nothing but prompts would find 90 % of all that comes again with {max(needed):,} "
        f"blocks{' of an engine' if len(curves) > 1 else ''}{sampled}; running requests need theirs besides."
    )


def _left_out(prediction: Prediction) -> list[str]:
    """Sentences about what the prediction is not over."""
    found = list(prediction.why_not)
    traces = [engine.trace for engine in prediction.predicted if engine.trace]
    lookups = sum(trace.left.lookups for trace in traces)
    unknown = sum(trace.left.unknown_tokens for trace in traces)
    if lookups:
        found.append(
            f"{lookups:,} look-ups are not in it: their rows are not there, or it is over the first ones only."
        )
    beheaded = sum(trace.left.beheaded for trace in traces)
    if beheaded:
        found.append(
            f"Of {beheaded:,} prompts the rows of the first blocks were removed: what these have in common with others is "
            "known where the block after them is the same."
        )
    if unknown:
        found.append(
            f"Of {unknown:,} missed tokens it is not known whether they were evicted before: where they are the output of an "
            "earlier request, a larger cache finds more than is said here."
        )
    if len({engine.outcomes[NOW].usable_blocks for engine in prediction.predicted}) > 1:
        found.append(
            "Engines had different numbers of blocks: those said here are the first one's, each has its own multiplied."
        )
    if any(engine.outcomes[0.5].is_too_small for engine in prediction.predicted if 0.5 in engine.outcomes):
        found.append("With half the blocks single requests do not fit; they are left out there.")
    return found


def _gain(prediction: Prediction, factor: float, now: float) -> Gain:
    rate, counted = prediction.hit_rate(factor), _counted(prediction)
    return Gain(
        quantity=f"{HIT_RATE}, {WORDS[factor]}",
        unit=PERCENT,
        now=100 * counted,
        expected=100 * rate,
        low=100 * max(0.0, rate - TOLERANCE),
        high=100 * min(1.0, rate + TOLERANCE),
        how=f"a replay, {100 * abs(now - counted):.1f} points off at its own size; within two at others in tests",
    )


def _evidence(prediction: Prediction) -> tuple[Evidence, ...]:
    asked = sum(len(engine.trace.asked) for engine in prediction.predicted if engine.trace)
    uses = sum(engine.trace.uses for engine in prediction.predicted if engine.trace)
    return (
        Evidence(events.LOOKUPS.name, asked, "requests that were admitted for the first time"),
        Evidence(events.BLOCKS.name, uses, "blocks of their prompts, in order"),
        Evidence("engine_requests", asked, "when they were queued, how many tokens they generated"),
    )


def _numbers(prediction: Prediction, best: float, memory: Memory) -> dict[str, Any]:
    return {
        "advised_factor": best,
        "counted_hit_rate": _counted(prediction),
        "bytes_per_block": memory.bytes_per_block,
        "sizes": [size_record(prediction, factor) for factor in prediction.factors],
        "engines": [engine_record(engine) for engine in prediction.predicted],
    }


def size_record(prediction: Prediction, factor: float) -> dict[str, Any]:
    """All engines at a size. `factor` is None for unlimited blocks."""
    names = ("asked_tokens", "hit_tokens", "evictions", "preemptions", "recomputed_tokens")
    return {
        "factor": None if factor == UNLIMITED else factor,
        "usable_blocks": prediction.blocks(factor),
        "hit_rate": prediction.hit_rate(factor),
        **{name: prediction.total(factor, name) for name in names},
    }


def engine_record(engine: Engine) -> dict[str, Any]:
    """One engine: its sizes for `verify`, and the points of the plain LRU curve."""
    assert engine.limits is not None and engine.curve is not None
    return {
        "engine": engine.span.engine,
        "usable_blocks": engine.limits.usable_blocks,
        "block_size": engine.limits.block_size,
        "asked_tokens": engine.outcomes[NOW].asked_tokens,
        "replayed": sorted(
            [one.most_filled if factor == UNLIMITED else one.usable_blocks, one.hit_rate, one.preemptions]
            for factor, one in engine.outcomes.items()
        ),
        "lru": lru_points(engine.curve, engine.limits.usable_blocks),
        "lru_is_exact": engine.curve.is_exact,
        "lru_error": engine.curve.error(engine.limits.usable_blocks),
    }
