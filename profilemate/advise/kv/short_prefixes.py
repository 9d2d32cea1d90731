"""Prefixes that end within a block: tokens that smaller blocks would find."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from profilemate.advise.finding import FINE, LOOK, THIN, Evidence, Finding, Gain
from profilemate.advise.kv.hits import LOOKUPS_NEEDED
from profilemate.advise.words import percent
from profilemate.trackers.prefix_lookups import events

if TYPE_CHECKING:
    from profilemate.advise.kv.prediction import Prediction
    from profilemate.advise.kv.trace import Trace
    from profilemate.frames.session import Session
    from profilemate.trackers.prefix_lookups.analyze import LookupSummary

TOPIC = "prefix_caching"
SMALLEST = 16
"""Attention backends on GPUs take multiples of it."""
SURELY, PERHAPS = 0.02, 0.05
"""Shares of the looked-up tokens from which on smaller blocks are advised: of what they surely find, of what they may find."""


@dataclass
class Ends:
    """Tokens behind what was found in whole blocks, if blocks had `smaller` tokens; none of them was ever in the cache.

    A prompt that has all its blocks in the cache, the last one included, is computed from the last one's begin: of these
    tokens `sure` are found. Where a prompt leaves the known blocks, or ends, within a block, nobody recorded at which token:
    between none and `at_most` are found. `shorter` prompts have no whole block at all.
    """

    smaller: int
    sure: int = 0
    at_most: int = 0
    requests: int = 0
    shorter: int = 0
    shorter_tokens: int = 0

    def add(self, trace: Trace) -> None:
        """Every request that found all that was ever there."""
        size, smaller = trace.limits.block_size, self.smaller
        seen = bytearray(len(trace.tree.parents))
        for one in trace.asked:
            if one.prompt_tokens < size:
                self.shorter += 1
                self.shorter_tokens += one.prompt_tokens
            is_whole = one.end >= 0 and seen[one.end] and one.prompt_tokens % size == 0
            if one.is_looked_up and one.hit_tokens == one.in_cache_tokens:
                most = (
                    min((one.prompt_tokens - 1) // smaller * smaller, one.hit_tokens + size - smaller) - one.hit_tokens
                )
                if is_whole and one.hit_tokens + size == one.prompt_tokens:
                    self.sure += size - smaller
                    self.at_most += size - smaller
                elif most > 0:
                    self.at_most += most
                self.requests += most > 0
            for block in trace.tree.path(one.end):
                seen[block] = 1


def findings(session: Session, summary: LookupSummary, prediction: Prediction) -> list[Finding]:
    """One finding, or none where no prompt's blocks were recorded."""
    traces = [engine.trace for engine in prediction.engines if engine.trace]
    sizes = {trace.limits.block_size for trace in traces}
    if len(sizes) != 1:
        return []
    size = sizes.pop()
    ends = Ends(SMALLEST if size > SMALLEST and size % SMALLEST == 0 else size)
    for trace in traces:
        ends.add(trace)
    asked = sum(trace.asked_tokens for trace in traces)
    tokens = summary.first.tokens
    is_smaller = ends.smaller < size
    is_thin = summary.first.lookups < LOOKUPS_NEEDED
    is_worth = is_smaller and not is_thin and (ends.sure >= SURELY * asked or ends.at_most >= PERHAPS * asked)
    expected = (ends.sure + ends.at_most) / 2
    shorter = f" {ends.shorter:,} prompts are shorter than a block and can never be found." if ends.shorter else ""
    return [
        Finding(
            topic=TOPIC,
            name=f"{TOPIC}.block_size",
            level=THIN if is_thin else LOOK if is_worth else FINE,
            title=_title(size, ends, asked, is_thin, is_worth),
            says=(
                f"Only whole blocks of {size} tokens are found, and never a prompt's last token: {tokens['short_tokens']:,} "
                f"tokens were behind the last whole block, {tokens['last_tokens']:,} in a last block that is always computed."
                f"{shorter}{_smaller_text(size, ends, asked) if is_smaller else ' Smaller blocks are not advised.'}"
            ),
            evidence=(Evidence(events.LOOKUPS.name, ends.requests, "requests that found every block that was ever there"),),
            flags=(f"--block-size {ends.smaller}",) if is_worth else (),
            gains=(
                Gain(
                    "tokens found besides", "tokens", 0, expected, ends.sure, ends.at_most,
                    "which token of a block prompts differ in is not recorded: the bounds are none and all, the middle is "
                    "expected where it may be any",
                ),
            ) if is_smaller else (),
            to_be_sure=f"Run with --block-size {ends.smaller} and compare the hit rates." if is_worth else "",
            numbers={
                "block_size": size, "smaller_block_size": ends.smaller, "sure_tokens": ends.sure,
                "at_most_tokens": ends.at_most, "asked_tokens": asked, "short_tokens": tokens["short_tokens"],
                "last_tokens": tokens["last_tokens"], "shorter_prompts": ends.shorter,
                "shorter_prompt_tokens": ends.shorter_tokens,
            },
        )
    ]  # fmt: skip


def _title(size: int, ends: Ends, asked: int, is_thin: bool, is_worth: bool) -> str:
    if is_thin:
        return "Too few look-ups to advise on the size of a block"
    if is_worth:
        return (
            f"Blocks of {ends.smaller} tokens instead of {size} would find up to {percent(ends.at_most / asked)} more"
        )
    return f"Blocks of {size} tokens cut off little that could be found"


def _smaller_text(size: int, ends: Ends, asked: int) -> str:
    share = f", up to {percent(ends.at_most / asked)} of those looked up" if asked else ""
    return (
        f" Blocks of {ends.smaller} would find between {ends.sure:,} and {ends.at_most:,} tokens more{share}; they make "
        f"{size // ends.smaller} times as many blocks to hash, allocate and look up."
    )
