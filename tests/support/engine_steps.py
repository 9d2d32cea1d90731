"""What the step oracle saw of a server, held against what lies in its session. Shares no code with ProfileMate."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import environment
import streams

STEP_ORACLE = environment.ROOT / "tests" / "support" / "step_oracle"
WAIT_SECONDS = 120
MOST_IN_FLIGHT = 2
"""Batches that may be at a worker when the engine dies: with async scheduling the next one is launched early."""


def watched(folder: Path, **more: str) -> dict[str, str]:
    """Environment of a profiled server on stand-in graphs: the oracle's `steps` and the graphs' `truth` lie in the folder."""
    return environment.profiled(
        folder / "sessions",
        environment.STANDIN,
        STEP_ORACLE,
        STANDIN_GRAPHS="1",
        STANDIN_GRAPHS_LOG=str(folder / "truth"),
        STEP_ORACLE=str(folder / "steps"),
        **more,
    )


def finished(path: Path) -> list[int]:
    """Tokens of every engine step that the oracle saw finish, in order."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [int(line.split()[1]) for line in lines]


def wait_for(path: Path, count: int, is_over: Callable[[], bool] = lambda: False) -> None:
    """Until the oracle has seen so many steps, or there is no point in waiting."""
    deadline = time.monotonic() + WAIT_SECONDS
    while len(finished(path)) < count and not is_over():
        assert time.monotonic() < deadline, f"the load made {len(finished(path))} steps, {count} were wanted"
        time.sleep(0.01)


def recorded(session: Path) -> list[int]:
    """Scheduled tokens of every recorded step, from the cumulative counter."""
    totals = [int(row["scheduled_tokens"]) for row in streams.all_rows(session, "engine_steps")]
    return [after - before for before, after in pairwise([0, *totals])]


def passes(session: Path) -> list[int]:
    """Scheduled tokens of every recorded forward pass."""
    return [int(row["unpadded_tokens"]) for row in streams.all_rows(session, "forward_passes")]


def missing_steps(session: Path, oracle: list[int]) -> str:
    """How the recording differs from the oracle; empty where it has every finished step and none that was not begun."""
    steps, forwards, busy = recorded(session), passes(session), [tokens for tokens in oracle if tokens]
    if steps[: len(oracle)] != oracle or len(steps) > len(oracle) + 1:
        return f"steps {steps[-5:]} ({len(steps)}), the oracle saw {oracle[-5:]} ({len(oracle)})"
    if forwards[: len(busy)] != busy or len(forwards) > len(busy) + MOST_IN_FLIGHT:
        return f"passes {forwards[-5:]} ({len(forwards)}), the oracle saw {busy[-5:]} ({len(busy)})"
    return ""
