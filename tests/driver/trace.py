"""Request traces for the scheduler driver: a seeded synthetic one, and the public Mooncake format.

A request is described by *chunk ids*; equal ids mean equal tokens, so requests that start with the
same ids share a prefix. Nothing in here imports vLLM.
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

VOCABULARY = 32_000
MOONCAKE_CHUNK = 512
"""Tokens that one hash id stands for in the published Mooncake traces."""


@dataclass(frozen=True)
class TraceRequest:
    """One request: when it arrives (a scheduler step), its prompt and how many tokens it generates."""

    request_id: str
    arrival_step: int
    prompt: list[int]
    output_length: int


def chunk_tokens(chunk_id: int, count: int) -> list[int]:
    """Tokens of one chunk; the first two tokens spell the id, so different ids never look alike."""
    head = [chunk_id % VOCABULARY, chunk_id // VOCABULARY % VOCABULARY]
    tail = [(chunk_id * 31 + offset * 7919) % VOCABULARY for offset in range(2, count)]
    return (head + tail)[:count]


def expand(chunk_ids: Sequence[int], tokens_per_chunk: int, length: int | None = None) -> list[int]:
    """Concatenate the chunks' tokens and cut to `length` tokens."""
    tokens = [token for chunk in chunk_ids for token in chunk_tokens(chunk, tokens_per_chunk)]
    return tokens if length is None else tokens[:length]


SHAPES: dict[str, dict[str, Any]] = {
    "mixed": {},
    "prefill": {"mean_gap_steps": 4.0, "output_length": (16, 128), "prefix_chunks": (10, 60), "tail_chunks": (10, 120)},
    "decode": {"mean_gap_steps": 1.5, "output_length": (16, 256), "prefix_chunks": (2, 8), "tail_chunks": (1, 24)},
}
"""Kinds of synthetic trace by name: arguments of `synthetic_trace` that differ from its defaults."""


def synthetic_trace(
    seed: int,
    requests: int,
    *,
    tokens_per_chunk: int = 16,
    prefixes: int = 12,
    prefix_chunks: tuple[int, int] = (4, 20),
    tail_chunks: tuple[int, int] = (1, 24),
    output_length: tuple[int, int] = (4, 96),
    shared: float = 0.6,
    follow_up: float = 0.15,
    mean_gap_steps: float = 3.0,
) -> list[TraceRequest]:
    """Make a reproducible trace.

    A share `shared` of the requests begins with one of `prefixes` common prefixes, `follow_up` of them
    repeats a whole earlier prompt (a next turn), the rest shares nothing. Ranges are inclusive.
    """
    rng = random.Random(seed)
    fresh = itertools.count(1)

    def new_chunks(bounds: tuple[int, int]) -> list[int]:
        return [next(fresh) for _ in range(rng.randint(*bounds))]

    common = [new_chunks(prefix_chunks) for _ in range(prefixes)]
    earlier: list[list[int]] = []
    trace: list[TraceRequest] = []
    arrival = 0.0
    for number in range(requests):
        chunks = _first_chunks(rng, common, earlier, shared, follow_up) + new_chunks(tail_chunks)
        earlier.append(chunks)
        length = len(chunks) * tokens_per_chunk - rng.randrange(tokens_per_chunk)
        prompt = expand(chunks, tokens_per_chunk, length)
        trace.append(TraceRequest(f"r{number}", int(arrival), prompt, rng.randint(*output_length)))
        arrival += rng.expovariate(1.0 / mean_gap_steps) if mean_gap_steps > 0 else 0.0
    return trace


def _first_chunks(
    rng: random.Random, common: list[list[int]], earlier: list[list[int]], shared: float, follow_up: float
) -> list[int]:
    """Choose what a new request begins with; of the common prefixes the first ones are the popular ones."""
    draw = rng.random()
    if draw < follow_up and earlier:
        return rng.choice(earlier[-32:])
    if draw < follow_up + shared and common:
        weights = [1.0 / (rank + 1) for rank in range(len(common))]
        return rng.choices(common, weights)[0]
    return []


def mooncake_trace(
    path: str | Path,
    limit: int | None = None,
    *,
    tokens_per_chunk: int = 16,
    output_divisor: int = 8,
    ms_per_step: float = 50.0,
) -> list[TraceRequest]:
    """Read a Mooncake JSONL trace, scaled down so that one 512-token hash id becomes `tokens_per_chunk` tokens."""
    trace: list[TraceRequest] = []
    with open(path, encoding="utf-8") as lines:
        for number, line in enumerate(itertools.islice(lines, limit)):
            row = json.loads(line)
            length = max(1, row["input_length"] * tokens_per_chunk // MOONCAKE_CHUNK)
            prompt = expand(row["hash_ids"], tokens_per_chunk, length)
            output = max(1, row["output_length"] // output_divisor)
            trace.append(TraceRequest(f"m{number}", int(row["timestamp"] / ms_per_step), prompt, output))
    return trace
