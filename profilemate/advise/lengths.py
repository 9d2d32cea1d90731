"""max_model_len against the lengths that were seen, and max_num_seqs against the requests that ran at once."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from profilemate.advise.engine import concurrency
from profilemate.advise.enough import Need, absent, lost_rows, thin, unmet
from profilemate.advise.finding import ACT, FINE, LOOK, Evidence, Finding, Gain, Verdict
from profilemate.advise.requests.longest import REQUESTS_NEEDED, most_longer, round_up
from profilemate.advise.requests.seen import Lengths, read_lengths
from profilemate.advise.words import counted

if TYPE_CHECKING:
    from profilemate.frames.session import Session

TOPIC = "lengths"
NAME = "lengths.max_model_len"
ABOUT = "max_model_len"

MARGIN = 1.25
"""A limit that is advised lies so far above the longest request seen."""
WORTH_IT = 0.75
"""Only a limit of at most so much of the present one is advised."""
PERCENTILE_NEEDED = 100
"""Of fewer requests the 99th percentile is the longest."""
CUT_NEEDED, CUT_SHARE = 5, 0.01
"""So many requests must end at the limit, and such a share of all, before a higher one is advised."""

CUT, RESERVED = "requests that end at max_model_len", "KV cache that one request may take"


def advise(session: Session) -> list[Finding]:
    """One finding about max_model_len, one about max_num_seqs."""
    return [_about_limit(session), *concurrency.advise(session)]


def verify(finding: Finding, after: Session) -> list[Verdict]:
    """Whether requests end at the new limit, and what one of them may take."""
    return _verify_limit(finding, after) if finding.name == NAME else concurrency.verify(finding, after)


# -- max_model_len ------------------------------------------------------------------------------------------------------


def _about_limit(session: Session) -> Finding:
    seen = read_lengths(session)
    if not seen.limit:
        return absent(
            TOPIC, NAME, ABOUT, "The session does not record max_model_len: no engine wrote its configuration."
        )
    evidence = (Evidence(seen.table, seen.requests + seen.broken_off, "requests that ended, with both lengths"),)
    need = Need("requests that ended by themselves", seen.requests, REQUESTS_NEEDED)
    says = f"{_lengths_text(seen)}{_cut_text(seen)}{lost_rows(session, seen.table)}" if seen.requests else ""
    if seen.cut >= CUT_NEEDED and seen.cut >= CUT_SHARE * seen.requests:
        return _too_low(seen, says, evidence)
    if unmet([need]):
        return thin(TOPIC, NAME, ABOUT, [need], says, evidence)
    advised = round_up(MARGIN * max(seen.longest, 1))
    if seen.cut or advised > WORTH_IT * seen.limit:
        return Finding(
            TOPIC, NAME, FINE, f"max_model_len {seen.limit:,} fits the requests",
            f"{says} {_bound_text(seen)}", evidence, numbers=_numbers(seen),
        )  # fmt: skip
    return _roomy(seen, advised, says, evidence)


def _too_low(seen: Lengths, says: str, evidence: tuple[Evidence, ...]) -> Finding:
    fits = seen.block_size * seen.usable_blocks
    advised = min(2 * seen.limit, fits) if fits else 2 * seen.limit
    can_grow = advised >= MARGIN * seen.limit
    rest = (
        f" Twice the limit, as far as the KV cache can hold one such request ({fits:,} tokens), is the value to try."
        if can_grow and fits
        else f" The KV cache holds {fits:,} tokens: a longer limit would not start without more blocks."
        if not can_grow
        else ""
    )
    return Finding(
        TOPIC, NAME, ACT, f"max_model_len {seen.limit:,} cuts {seen.cut:,} of {seen.requests:,} requests",
        f"{says}{rest} How long they would have become is not recorded, so nothing is predicted. {_bound_text(seen)}",
        evidence,
        flags=(f"--max-model-len {advised}",) if can_grow else (),
        to_be_sure=(
            "Look at these answers: a model that repeats itself ends at any limit, and a smaller max_tokens is then the "
            "remedy. The model's own longest context is not recorded; the limit may not lie above it."
        ),
        numbers={**_numbers(seen), "advised": advised if can_grow else None},
    )  # fmt: skip


def _roomy(seen: Lengths, advised: int, says: str, evidence: tuple[Evidence, ...]) -> Finding:
    table, tokens = seen.buffer_bytes(seen.limit)
    table_after, tokens_after = seen.buffer_bytes(advised)
    frees = (
        f" What it frees: {_kib(table - table_after)} of block table on the device for each KV cache group and "
        f"{_kib(tokens - tokens_after)} of token ids on the host; on a GPU the memory profile at start may leave a "
        "little more for the KV cache, which this session cannot tell."
        if seen.block_size and seen.max_num_seqs
        else ""
    )
    return Finding(
        TOPIC, NAME, LOOK, f"max_model_len {seen.limit:,} is {seen.limit / max(seen.longest, 1):.1f} times the longest request",
        f"{says} {_bound_text(seen)}{frees}", evidence,
        flags=(f"--max-model-len {advised}",),
        gains=_gains(seen, advised),
        to_be_sure=(
            "Ask what clients may send: vLLM refuses a prompt above the limit and a max_tokens above it, some versions "
            "also a sum of both above it; refused requests have no row here, and the max_tokens asked for is not recorded."
        ),
        numbers={**_numbers(seen), "advised": advised},
    )  # fmt: skip


def _gains(seen: Lengths, advised: int) -> tuple[Gain, ...]:
    gains = [
        Gain(
            CUT, "%", 100 * seen.cut / seen.requests, 0.0, 0.0, 100 * most_longer(seen.requests, seen.requests) / seen.requests,
            "as many requests of the same kind; so many of them may be longer than the longest seen, at 95 %",
        )
    ]  # fmt: skip
    now, then = seen.share_of_cache(seen.limit), seen.share_of_cache(advised)
    if now is not None and then is not None:
        gains.append(
            Gain(
                RESERVED, "%", 100 * now, 100 * then, 100 * then, 100 * then,
                "blocks of a request of full length over all, where every layer keeps the whole context",
            )
        )  # fmt: skip
    return tuple(gains)


def _verify_limit(finding: Finding, after: Session) -> list[Verdict]:
    seen = read_lengths(after)
    verdicts = []
    for gain in finding.gains:
        if gain.quantity == CUT and seen.requests:
            most = most_longer(int(finding.numbers["requests"]), seen.requests)
            verdicts.append(
                Verdict(
                    finding.name, gain.quantity, gain.unit, gain.expected, gain.low, 100 * most / seen.requests,
                    100 * seen.cut / seen.requests,
                    f"{seen.cut:,} of {seen.requests:,} requests; requests that were refused have no row",
                )
            )  # fmt: skip
        share = seen.share_of_cache(seen.limit)
        if gain.quantity == RESERVED and share is not None:
            blocks = math.ceil(seen.limit / seen.block_size)
            verdicts.append(
                Verdict(
                    finding.name, gain.quantity, gain.unit, gain.expected, gain.low - 1e-9, gain.high + 1e-9, 100 * share,
                    f"{blocks:,} of {seen.usable_blocks:,} blocks",
                )
            )  # fmt: skip
    return verdicts


# -- words --------------------------------------------------------------------------------------------------------------


def _lengths_text(seen: Lengths) -> str:
    broken = f", {seen.broken_off:,} were broken off" if seen.broken_off else ""
    rare = f", {seen.whole['p99']:,} at the 99th percentile" if seen.requests >= PERCENTILE_NEEDED else ""
    text = (
        f"{seen.requests:,} requests ended by themselves{broken}: prompt plus output had {seen.whole['p50']:,} tokens in "
        f"the median{rare} and {seen.longest:,} at most, against max_model_len {seen.limit:,}."
    )
    share = seen.share_of_cache(seen.limit)
    if not seen.blocks:
        return text
    text += (
        f" A request ended with {counted(seen.blocks['p50'], 'block')} of {seen.block_size:,} tokens in the median, "
        f"{seen.blocks['max']:,} at most"
    )
    if share is None:
        return f"{text}."
    full = math.ceil(seen.limit / seen.block_size)
    return f"{text}; one of full length takes {full:,} of {seen.usable_blocks:,} blocks ({100 * share:.3g} %)."


def _cut_text(seen: Lengths) -> str:
    if not seen.cut:
        return " None was cut by the limit."
    return f" {seen.cut:,} of them were cut by the limit: they ended by length at prompt plus output {seen.limit:,}."


def _bound_text(seen: Lengths) -> str:
    fits = ""
    if seen.block_size and seen.usable_blocks:
        count = seen.usable_blocks / math.ceil(seen.limit / seen.block_size)
        fits = f" (here {count:.2f})"
    return (
        "Blocks are allocated on demand: a lower limit frees none, makes no room for more requests and changes nothing for "
        "those below it. What it does: it bounds what one request may take, refuses or cuts longer ones, and divides the "
        f"length that vLLM needs room for at start and logs as maximum concurrency{fits}."
    )


def _numbers(seen: Lengths) -> dict[str, Any]:
    return {
        "requests": seen.requests, "broken_off": seen.broken_off, "cut": seen.cut, "max_model_len": seen.limit,
        "prompt_tokens": seen.prompt, "output_tokens": seen.output, "prompt_plus_output_tokens": seen.whole,
        "blocks_per_request": seen.blocks, "block_size": seen.block_size, "usable_blocks": seen.usable_blocks,
    }  # fmt: skip


def _kib(count: int) -> str:
    return f"{count / 1024:,.0f} KiB"
