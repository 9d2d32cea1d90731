"""Why a forward pass did not run in the best graph that its configuration has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from profilemate.advise.graphs.rules import FULL, PIECEWISE, at_least

if TYPE_CHECKING:
    from profilemate.advise.graphs.batches import Batch
    from profilemate.advise.graphs.reading import GraphData
    from profilemate.advise.graphs.setup import Setup

PREFILL, DECODE = "prefill", "decode"


@dataclass(frozen=True)
class Cause:
    """`is_normal`: nothing to be mended, as with a prefill larger than any graph."""

    name: str
    says: str
    is_normal: bool = False


OFF = Cause("graphs_off", "the server was run without graphs (cudagraph_mode NONE or enforce_eager)")
DECODE_ABOVE = Cause("decode_above_largest", "decode batch larger than the largest decode graph")
DECODE_RESERVED = Cause("decode_outside_rules", "decode batch that a decode graph fits, but vLLM did not take it")
PREFILL_ABOVE = Cause("prefill_above_largest", "prefill larger than the largest size", is_normal=True)
MIXED_ABOVE = Cause("mixed_above_largest", "mixed batch larger than the largest size", is_normal=True)
UNEVEN_ABOVE = Cause(
    "uneven_above_largest", "decode batch with unequal tokens per request, larger than the largest size", is_normal=True
)
PREFILL_DECODE_ONLY = Cause(
    "prefill_under_decode_only", "prefill, where only decode batches have graphs (FULL_DECODE_ONLY)", is_normal=True
)
MIXED_DECODE_ONLY = Cause(
    "mixed_under_decode_only", "mixed batch, where only decode batches have graphs (FULL_DECODE_ONLY)"
)
UNEVEN = Cause("not_uniform", "decode batch with unequal tokens per request (missing drafts)")
AGAIN = Cause("computed_again", "a preempted request computed again beside decoding ones", is_normal=True)
LORA = Cause("lora", "a size fits, but no graph of it was captured for the adapters of the batch")
RANKS = Cause(
    "ranks_step_together", "a size fits, but data-parallel ranks agree on the lowest mode and the largest size"
)
ENCODER = Cause("encoder_input", "a size fits, but the step had encoder input (encoder-decoder model)")
OTHER = Cause("not_explained", "a size fits, and nothing recorded says why vLLM did not take it")

BY_PHASE_ABOVE = {PREFILL: PREFILL_ABOVE, DECODE: UNEVEN_ABOVE}


@dataclass(frozen=True)
class Fallback:
    """Passes that ran in a lower mode than there is, by cause and size."""

    mode: str
    cause: Cause
    passes: int
    tokens: int
    sizes: tuple[tuple[int, int], ...]
    """Unpadded tokens and passes, most passes first."""


def fallbacks(data: GraphData) -> list[Fallback]:
    """Passes in NONE, and decode passes in PIECEWISE where decode graphs exist; most passes first."""
    found: dict[tuple[str, Cause], Counter[int]] = {}
    for batch in data.batches.groups:
        cause = cause_of(batch, data.setup)
        if cause is not None:
            found.setdefault((batch.mode, cause), Counter())[batch.tokens] += batch.passes
    rows = [
        Fallback(
            mode, cause, sum(sizes.values()), sum(size * count for size, count in sizes.items()),
            tuple(sorted(sizes.items(), key=lambda pair: (-pair[1], pair[0]))),
        )
        for (mode, cause), sizes in found.items()
    ]  # fmt: skip
    return sorted(rows, key=lambda row: (-row.passes, row.mode, row.cause.name))


def cause_of(batch: Batch, setup: Setup) -> Cause | None:
    """The cause of one pass, or None where it ran as well as it could."""
    if batch.mode == FULL:
        return None
    if batch.mode == PIECEWISE:
        return _piecewise(batch, setup)
    if not setup.captures:
        return OFF
    return _by_size(batch, setup) if batch.by_rule else _beside_the_rules(setup)


def _piecewise(batch: Batch, setup: Setup) -> Cause | None:
    if not setup.rules.full_decode:
        return None
    if batch.uniform:
        return DECODE_RESERVED if at_least(setup.present.decode, batch.tokens) else DECODE_ABOVE
    return _uneven(setup) if batch.phase == DECODE else None


def _uneven(setup: Setup) -> Cause:
    """Unequal tokens, and nobody in prefill: without speculative decoding only a request that is computed again does that."""
    return UNEVEN if setup.rules.query_len > 1 else AGAIN


def _by_size(batch: Batch, setup: Setup) -> Cause:
    if batch.uniform:
        return DECODE_ABOVE
    if not setup.present.mixed:
        if batch.phase == DECODE:
            return _uneven(setup)
        return PREFILL_DECODE_ONLY if batch.phase == PREFILL else MIXED_DECODE_ONLY
    if not setup.rules.full_decode and batch.phase == DECODE and batch.tokens <= setup.rules.decode_cap:
        return DECODE_ABOVE
    return BY_PHASE_ABOVE.get(batch.phase, MIXED_ABOVE)


def _beside_the_rules(setup: Setup) -> Cause:
    """A size fits, but the pass has no graph: what in this session can do that."""
    has_lora = any(one.descriptor.uses_lora for one in setup.captures)
    can_do_it: tuple[tuple[Cause, Callable[[], bool]], ...] = (
        (LORA, lambda: has_lora),
        (RANKS, lambda: (setup.config.get("data_parallel_size") or 1) != 1 or setup.engines > 1),
        (ENCODER, lambda: bool(setup.config.get("is_encoder_decoder"))),
    )
    possible = [cause for cause, applies in can_do_it if applies()]
    return possible[0] if len(possible) == 1 else OTHER
