"""Requests that arrive at fixed steps, and the loop that drives an engine in this process with them."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

from gpu_check.places import helper

Answers = dict[str, list[int]]


class Arrival(NamedTuple):
    """One request: before which step it comes, its prompt, and how many tokens it gets."""

    step: int
    request_id: str
    prompt: list[int]
    output_tokens: int


WINDOW = (
    # step, prompt tokens, output tokens, seed of the prompt
    (0, 24, 48, 1), (4, 9, 40, 2), (4, 17, 36, 3), (4, 33, 32, 4), (4, 12, 40, 5), (4, 37, 28, 6), (4, 21, 36, 7),
    (4, 30, 40, 8), (12, 600, 24, 9), (20, 20, 24, 10), (20, 26, 20, 11), (30, 600, 12, 9), (34, 15, 16, 12),
)  # fmt: skip
"""Decode at several batch sizes, short prefills beside it, a long one, and its prompt again for a prefix hit."""


def window_arrivals(vocabulary: int) -> list[Arrival]:
    """The load of the traced window: some fifty steps of all three graph modes."""
    return [
        Arrival(step, f"window{number}", _prompt(seed, length, vocabulary), output)
        for number, (step, length, output, seed) in enumerate(WINDOW)
    ]


def kv_arrivals(requests: int, most_tokens: int, block_size: int, vocabulary: int) -> list[Arrival]:
    """The load for the KV oracle: shared prefixes and more content than the pool holds (the drivers' synthetic trace)."""
    trace = helper("trace").synthetic_trace(7, requests, tokens_per_chunk=block_size, mean_gap_steps=1.0)
    return [
        Arrival(
            entry.arrival_step, entry.request_id, [token % vocabulary for token in entry.prompt], entry.output_length
        )
        for entry in trace
        if len(entry.prompt) + entry.output_length < most_tokens
    ]


def batch_arrivals(requests: int, output_tokens: int, vocabulary: int, seed: int) -> list[Arrival]:
    """Requests that all come at once, for throughput; another seed gives other prompts."""
    return [
        Arrival(0, f"batch{seed}.{number}", _prompt(1000 * seed + number, 32, vocabulary), output_tokens)
        for number in range(requests)
    ]


def _prompt(seed: int, length: int, vocabulary: int) -> list[int]:
    dice = random.Random(seed)
    return [dice.randrange(3, vocabulary) for _ in range(length)]


class Drive(NamedTuple):
    """What came of a load."""

    answers: Answers
    calls: int
    """Calls of `LLMEngine.step`."""


def drive(llm: Any, arrivals: Sequence[Arrival]) -> Drive:
    """Add each request before its step and step until all have finished. Greedy, so that answers can be compared."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    engine = llm.llm_engine
    waiting = deque(sorted(arrivals))
    answers: Answers = {}
    calls = 0
    while waiting or engine.has_unfinished_requests():
        while waiting and (waiting[0].step <= calls or not engine.has_unfinished_requests()):
            arrival = waiting.popleft()
            params = SamplingParams(
                max_tokens=arrival.output_tokens, ignore_eos=True, temperature=0.0, detokenize=False,
                output_kind=RequestOutputKind.FINAL_ONLY,
            )  # fmt: skip
            engine.add_request(arrival.request_id, {"prompt_token_ids": arrival.prompt}, params)
        for output in engine.step():
            if output.finished:
                answers[output.request_id] = list(output.outputs[0].token_ids)
        calls += 1
    return Drive(answers, calls)
