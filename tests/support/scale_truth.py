"""What the sessions of `scale_sessions.py` hold, from arithmetic alone: no row is read, and nothing of ProfileMate is used."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

SECOND = 1_000_000_000
MILLISECOND = 1_000_000
STEP_NS = 10 * MILLISECOND
BEGIN_SECONDS = 60
TOTAL_BLOCKS = 20_000
PROMPT_TOKENS, HIT_TOKENS = 500, 100
PREEMPTED_EVERY = 10
RESUMED_STEPS, RECOVERED_STEPS = 30, 40
E2E_NS, TTFT_NS = 4_500 * MILLISECOND, 1_500 * MILLISECOND
DELIVERY_NS = MILLISECOND
"""From a request's arrival until the scheduler has it."""

LAST_TOKEN_NS = 2 * MILLISECOND
"""Before the row of its end."""

PREEMPTED_NS = 2_500 * MILLISECOND
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


@dataclass(frozen=True)
class Periodic:
    """A cell that depends on the number of the step, from 1, modulo `period`: `values[number % period]`."""

    values: tuple[Any, ...]

    @property
    def period(self) -> int:
        """After so many steps it comes again."""
        return len(self.values)

    @property
    def begun(self) -> list[int]:
        """Sum over the first steps of a period: of none, of one, ..."""
        return [0, *accumulate(self.values[1:])]

    def total(self, steps: int) -> int:
        """Sum over so many steps."""
        return int(sum(count * value for count, value in zip(self.counts(steps), self.values, strict=True)))

    def counts(self, steps: int) -> list[int]:
        """How many of so many steps have each of the values."""
        whole, more = divmod(steps, self.period)
        return [whole + (0 < residue <= more) for residue in range(self.period)]


@dataclass(frozen=True)
class Batches:
    """What the batch of a step holds."""

    requests: Periodic
    context_requests: Periodic
    context_tokens: Periodic
    tokens: Periodic


def _batches(period: int) -> Batches:
    requests = [2 + number * 37 % 250 for number in range(period)]
    context = [2 * (number % 11 == 0) for number in range(period)]
    tokens = [batch + 511 * some for batch, some in zip(requests, context, strict=True)]
    return Batches(*(Periodic(tuple(v)) for v in (requests, context, [512 * some for some in context], tokens)))


REQUESTS = _batches(11 * 250)
IN_USE = Periodic(tuple(2000 + number * 7 % 100 * 170 for number in range(100)))
PEAK = max(IN_USE.values)
PEAK_STEP = IN_USE.values.index(PEAK)
AGE_STEPS = 400
AGES_NS = Periodic(tuple((1 + number) * SECOND // 10 for number in range(AGE_STEPS)))
SCHEDULE_NS = Periodic(tuple(300_000 + number * 1000 for number in range(1000)))
LIMITS = Periodic(("token_budget", "no_work", "no_work", "no_work", "no_work"))
WAIT_NS = Periodic(tuple(100 * MILLISECOND + number * 10 * MILLISECOND for number in range(50)))
OUTPUT_TOKENS = Periodic(tuple(100 + number for number in range(60)))


def graph_of(requests: int, context_requests: int) -> int | None:
    """The graph in which a batch runs: the next larger size, if no request is in prefill."""
    return None if context_requests else next(size for size in SIZES if size >= requests)


@dataclass(frozen=True)
class Truth:
    """Of all engines, each of which ran so many steps."""

    steps: tuple[int, ...]

    def sum(self, cells: Periodic) -> int:
        """Over all steps."""
        return sum(cells.total(steps) for steps in self.steps)

    def count(self, cells: Iterable[Any]) -> int:
        """Steps for which one of these periodic cells is true."""
        return self.sum(Periodic(tuple(int(bool(cell)) for cell in cells)))

    @property
    def rows(self) -> int:
        """Of each table."""
        return sum(self.steps)

    @property
    def preemptions(self) -> int:
        """Requests that were preempted, once each."""
        return sum(steps // PREEMPTED_EVERY for steps in self.steps)

    @property
    def graphs(self) -> list[int | None]:
        """The graph of each step of a period."""
        return [
            graph_of(*cells) for cells in zip(REQUESTS.requests.values, REQUESTS.context_requests.values, strict=True)
        ]

    def replays(self) -> dict[int, int]:
        """By size of graph, those that ran."""
        found = {size: self.count(graph == size for graph in self.graphs) for size in SIZES}
        return {size: count for size, count in found.items() if count}

    def files(self) -> dict[str, int]:
        """Rows of the README's files."""
        return {
            "batch_utilization.csv": self.rows, "kv_cache_evictions.csv": self.rows,
            "kv_cache_usage.csv": self.rows + 2 * len(self.steps), "forward_pass_timing.csv": self.rows,
            "cuda_graph_timeline.csv": sum(self.replays().values()), "request_lifecycle.csv": self.rows,
            "preemption_events.csv": self.preemptions, "cuda_graph_usage.csv": len(SIZES),
            "cuda_graph_captures.csv": len(SIZES) * len(self.steps),
        }  # fmt: skip

    def summary(self) -> dict[str, Any]:
        """Numbers of the summary, by the path to each."""
        rows, tokens = self.rows, self.sum(REQUESTS.tokens)
        replayed = sum(self.replays().values())
        padded = sum(size * count for size, count in self.replays().items())
        plain = [size and batch for size, batch in zip(self.graphs, REQUESTS.requests.values, strict=True)]
        budget = self.count(limit == "token_budget" for limit in LIMITS.values)
        mixed = self.count(REQUESTS.context_requests.values)
        return {
            "kv_cache.steps": rows, "kv_cache.allocated": 3 * rows, "kv_cache.released": 3 * rows,
            "kv_cache.freed": 2 * rows, "kv_cache.evicted": rows, "kv_cache.timed_evictions": rows,
            "kv_cache.preemptions": self.preemptions, "kv_cache.query_tokens": PROMPT_TOKENS * rows,
            "kv_cache.hit_tokens": HIT_TOKENS * rows, "kv_cache.scheduled_tokens": tokens,
            "kv_cache.peak_blocks": PEAK * len(self.steps), "kv_cache.total_blocks": TOTAL_BLOCKS * len(self.steps),
            "kv_cache.blocks_in_use": sum(IN_USE.values[steps % IN_USE.period] for steps in self.steps),
            "kv_cache.mean_lifetime_sec": round(self.sum(AGES_NS) / rows / 1e9, 9),
            "engine_steps.total_samples": rows, "engine_steps.rows": rows, "engine_steps.scheduled_tokens": tokens,
            "engine_steps.prefill_tokens": self.sum(REQUESTS.context_tokens),
            "engine_steps.decode_requests": self.sum(REQUESTS.requests) - self.sum(REQUESTS.context_requests),
            "engine_steps.finished": rows, "engine_steps.steps_by_limit.token_budget": budget,
            "engine_steps.steps_by_limit.no_work": rows - budget,
            "engine_steps.seconds.scheduling": round(self.sum(SCHEDULE_NS) / 1e9, 6),
            "cuda_graphs.forward_passes.total": rows, "cuda_graphs.forward_passes.full_graph": replayed,
            "cuda_graphs.forward_passes.no_graph": rows - replayed, "cuda_graphs.replays": replayed,
            "cuda_graphs.padded_tokens": padded,
            "cuda_graphs.padding_tokens": padded - self.sum(Periodic(tuple(some or 0 for some in plain))),
            "forward_passes.passes": rows, "forward_passes.timed": rows, "forward_passes.phases.mixed.count": mixed,
            "forward_passes.phases.decode.count": rows - mixed,
            "requests.requests": rows, "requests.by_reason": {"length": rows}, "requests.unfinished": 0,
            "requests.without_front_end": 0, "requests.without_scheduler": 0,
            "requests.prompt_tokens": PROMPT_TOKENS * rows, "requests.cached_tokens": HIT_TOKENS * rows,
            "requests.output_tokens": self.sum(OUTPUT_TOKENS), "requests.latencies.e2e.mean_sec": E2E_NS / 1e9,
            "requests.latencies.queue.mean_sec": round(self.sum(WAIT_NS) / rows / 1e9, 6),
            "requests.preemptions.total_preemptions": self.preemptions, "requests.preemptions.rows": self.preemptions,
            "requests.preemptions.preempted_requests": self.preemptions,
            "requests.preemptions.recomputed_tokens": 200 * self.preemptions,
            "requests.preemptions.mean_resume_delay": RESUMED_STEPS * STEP_NS / 1e9,
        }  # fmt: skip


def differences(truth: dict[str, Any], record: dict[str, Any]) -> list[str]:
    """What a record, nested, has otherwise than the truth says, by path."""
    return [
        f"{path}: {found}, not {expected}"
        for path, expected in truth.items()
        if (found := _at(record, path.split("."))) != expected
    ]


def _at(record: Any, path: list[str]) -> Any:
    for name in path:
        record = record.get(name) if isinstance(record, dict) else None
    return record
