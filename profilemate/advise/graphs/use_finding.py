"""The form of the findings of graph_use."""

from __future__ import annotations

from typing import Any

from profilemate.advise.finding import Finding

TOPIC = "graph_use"
MIN_PASSES = 200
"""Serving forward passes below which nothing is said about graphs that were not used."""
MOST_NAMED = 5


def use_finding(name: str, level: str, title: str, says: str, **more: Any) -> Finding:
    """A finding of the topic."""
    return Finding(topic=TOPIC, name=f"{TOPIC}.{name}", level=level, title=title, says=says, **more)
