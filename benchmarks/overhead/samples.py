"""What a benchmark hands back: figures, each with its samples round by round, and facts that a reader needs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from overhead.reference import Yardstick


class Target(NamedTuple):
    """What a figure is held to. `rule` is a key of verdict.RULES.

    `held_at` is where the gate closes instead of where the rule says: further out for a figure that is known to miss its
    target, so that it does not get worse unseen, and closer for one without noise. The documents say so.
    """

    limit: float
    rule: str = "at_most"
    held_at: float | None = None


class Figure(NamedTuple):
    """One number, measured in rounds.

    `bare[i]` was measured beside `profiled[i]`; it is empty where there is nothing to compare with. `effect` is a key of
    summary.EFFECTS and says what is made of the two. A figure without a target is for information. A target in units of time
    is held against the effect at the speed of the targets' machine, which the yardstick tells. `groups[i]` names what sample
    i shares with others beside its round, as the servers of one start; chance that a group shares is then in the interval.
    """

    name: str
    unit: str
    effect: str
    profiled: list[float]
    bare: list[float] = []  # noqa: RUF012 - a named tuple's default, never changed
    target: Target | None = None
    sides: tuple[str, str] = ("with", "without")
    yardstick: Yardstick | None = None
    groups: list[int] = []  # noqa: RUF012 - a named tuple's default, never changed

    @property
    def slowness(self) -> float:
        """How many times as long as the targets' machine this one takes, where that was measured."""
        return self.yardstick.slowness if self.yardstick else 1.0


class Measurement(NamedTuple):
    """Result of one benchmark."""

    figures: list[Figure]
    facts: dict[str, str]


class Benchmark(NamedTuple):
    """One module of this folder. `measure` gets the name of a size: full, quick (for the gate) or tiny (for tests)."""

    name: str
    title: str
    measure: Callable[[str], Measurement]
    environment: dict[str, str] = {}  # noqa: RUF012 - a named tuple's default, never changed
    for_gate: bool = True
    """Whether some figure of it has a target."""


def write(path: Path, measurement: Measurement) -> None:
    """Keep a measurement for the process that asked for it."""
    figures = [figure._asdict() for figure in measurement.figures]
    path.write_text(json.dumps({"figures": figures, "facts": measurement.facts}))


def read(path: Path) -> Measurement:
    """What `write` kept."""
    kept = json.loads(path.read_text())
    figures = [_figure(**fields) for fields in kept["figures"]]
    return Measurement(figures, kept["facts"])


def _figure(target: list[object] | None, sides: list[str], yardstick: list[object] | None, **fields: object) -> Figure:
    return Figure(
        **fields,  # type: ignore[arg-type]
        target=Target(*target) if target else None,  # type: ignore[arg-type]
        sides=(sides[0], sides[1]),
        yardstick=Yardstick(*yardstick) if yardstick else None,  # type: ignore[arg-type]
    )
