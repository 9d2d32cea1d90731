"""How often a process reports about itself: ever more rarely, so that a day of it stays small."""

from __future__ import annotations

GROWTH = 50
"""Reports are 1/50 of the process's age apart, within the bounds below: a day has some 1,600 of them."""

SHORTEST_PAUSE_NS = 1_000_000_000
LONGEST_PAUSE_NS = 60_000_000_000


def pause_ns(age_ns: int) -> int:
    """Time until the next report of a process of this age."""
    return max(SHORTEST_PAUSE_NS, min(LONGEST_PAUSE_NS, age_ns // GROWTH))
