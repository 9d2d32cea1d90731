"""Made-up sessions for comparisons, as material that the statistics work on.

They have what real ones have: neighbours in time alike (a slow wave of load with seconds of memory), heavy tails, a warm-up.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from profilemate.compare.change import BEYOND
from profilemate.compare.comparison import Comparison, compared_sides, side_of
from profilemate.compare.material import Material
from profilemate.compare.steady import steady_window
from profilemate.trackers.engine_steps.events import LIMITS

GRID_SECONDS = 0.25
STEP_SECONDS, REQUESTS_PER_SECOND = 0.02, 8.0


class MadeUp:
    """A session: `slower` makes steps, passes and so requests so much longer; `memory` is that of the load, in seconds."""

    def __init__(
        self, seed: int, seconds: float, slower: float = 1.0, memory: float = 2.0, swing: float = 0.15,
        arrivals: float = 1.0, prompts: float = 1.0, hits: float = 0.4,
    ) -> None:  # fmt: skip
        self.dice = np.random.default_rng(seed)
        self.seconds = seconds
        points = int(seconds / GRID_SECONDS) + 2
        keep = np.exp(-GRID_SECONDS / memory)
        wave = np.empty(points)
        wave[0] = self.dice.standard_normal()
        for n, shock in enumerate(self.dice.standard_normal(points - 1) * np.sqrt(1 - keep**2), 1):
            wave[n] = keep * wave[n - 1] + shock
        warm_up = 1 + 1.5 * np.exp(-np.arange(points) * GRID_SECONDS / (0.02 * seconds))
        self.load = np.exp(swing * wave)
        self.pace = slower * np.exp(0.5 * swing * wave) * warm_up
        self.arrivals, self.prompts, self.hits = arrivals, prompts, hits

    def at(self, series: Any, times: Any) -> Any:
        return series[(times / GRID_SECONDS).astype(int)]

    def tail(self, count: int, often: float) -> Any:
        """Mostly 1, seldom much more, without a finite third moment."""
        return np.where(self.dice.random(count) < often, 1 + self.dice.pareto(2.5, count), 1.0)

    def requests(self) -> pl.DataFrame:
        count = self.dice.poisson(REQUESTS_PER_SECOND * self.arrivals * self.seconds)
        arrival = np.sort(self.dice.uniform(0, self.seconds, count))
        pace, load = self.at(self.pace, arrival), self.at(self.load, arrival)
        queue = 0.05 * load**2 * self.dice.exponential(1, count) * pace
        ttft = queue + 0.1 * pace * np.exp(0.3 * self.dice.standard_normal(count)) * self.tail(count, 0.02)
        tpot = 0.02 * pace * np.exp(0.1 * self.dice.standard_normal(count))
        output = self.dice.integers(16, 128, count)
        e2e = ttft + tpot * (output - 1)
        prompt = (self.prompts * np.exp(5 + 0.8 * self.dice.standard_normal(count))).astype(int) + 1
        return pl.DataFrame({
            "arrival": arrival, "end": arrival + e2e, "stay": e2e, "ttft": ttft, "tpot": tpot, "e2e": e2e, "queue": queue,
            "prompt_tokens": prompt, "output_tokens": output,
        })  # fmt: skip

    def steps(self) -> pl.DataFrame:
        count = int(self.seconds / STEP_SECONDS)
        t = np.sort(self.dice.uniform(0, self.seconds, count))
        pace, load = self.at(self.pace, t), self.at(self.load, t)
        is_prefill = self.dice.random(count) < 0.15
        wall = 0.015 * pace * np.where(is_prefill, 4, 1) * np.exp(0.1 * self.dice.standard_normal(count))
        wall *= self.tail(count, 0.002)
        requests = 1 + self.dice.poisson(np.minimum(20 * load, 60))
        limit = self.dice.choice(len(LIMITS), count, p=(0.6, 0.15, 0.15, 0.1, 0, 0))
        in_use = np.clip(50 * load * np.exp(0.05 * self.dice.standard_normal(count)), 1, 200).astype(int)
        seconds = np.diff(t, append=t[-1])
        query = np.where(is_prefill, self.dice.poisson(300, count), 0)
        return pl.DataFrame({
            "t": t, "is_busy": np.full(count, True), "wall": wall, "schedule": 0.0003 * load * self.tail(count, 0.01),
            "update": 0.0002 * load * self.tail(count, 0.01), "requests": requests, "running": requests,
            "tokens": requests + np.where(is_prefill, 200, 0), "waiting": self.dice.poisson(2 * load**2),
            **{f"limit_{name}": limit == n for n, name in enumerate(LIMITS)},
            "drafted": np.zeros(count), "accepted": np.zeros(count), "seconds": seconds, "in_use": in_use,
            "total_blocks": np.full(count, 200), "kv_usage": in_use / 200, "used_block_seconds": in_use * seconds,
            "block_seconds": 200 * seconds, "query_tokens": query, "hit_tokens": self.dice.binomial(query, self.hits),
            "evicted": self.dice.poisson(np.where(is_prefill, 3 * load, 0)),
            "preempted": self.dice.poisson(0.005 * load**3),
        })  # fmt: skip

    def passes(self, steps: pl.DataFrame) -> pl.DataFrame:
        size = (2 ** np.ceil(np.log2(steps["requests"].to_numpy()))).astype(int)
        is_decode = (steps["tokens"] == steps["requests"]).to_numpy()
        is_none = pl.Series([None] * steps.height, dtype=pl.Int64)
        return pl.DataFrame({
            "t": steps["t"], "seconds": 0.9 * steps["wall"], "is_prefill": np.full(steps.height, False), "is_decode": is_decode,
            "is_mixed": ~is_decode, "tokens": steps["tokens"], "has_graph_cells": np.full(steps.height, True),
            "is_full": is_decode, "is_piecewise": np.full(steps.height, False), "is_uncovered": ~is_decode,
            "is_replayed": is_decode, "padding": size - steps["requests"], "padded": size, "size": size,
            "mode": np.where(is_decode, "FULL", "NONE"),
        }).with_columns(
            pl.when("is_replayed").then(name).otherwise(is_none).alias(name) for name in ("padding", "padded")
        )  # fmt: skip

    def material(self) -> Material:
        steps = self.steps()
        lost = steps.filter(pl.col("preempted") > 0).select("t", pl.lit(300).alias("lost_tokens"))
        frames = {"requests": self.requests(), "steps": steps, "passes": self.passes(steps), "preemptions": lost}
        return Material("made up", frames, {}, steady_window(frames))


def comparison(before: MadeUp, after: MadeUp) -> Comparison:
    sides = [side_of("A", before.material()), side_of("B", after.material())]
    return compared_sides(sides, (), 0.05)


def found(result: Comparison) -> set[str]:
    return {change.number.name for change in result.changes[0] if change.verdict in BEYOND}
