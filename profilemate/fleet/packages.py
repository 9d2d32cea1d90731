"""The packages of the `fleet` extra, imported where they are needed."""

from __future__ import annotations

from typing import Any

from profilemate.frames import packages

PIP_LINE = "pip install 'profilemate[fleet]'"


def load(module: str) -> Any:
    """A module of the extra. Raises SessionError, with the one pip line it needs, where it is missing."""
    return packages.load(module, PIP_LINE)
