"""The third-party packages of the offline half, imported where they are needed and named where they are missing."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from profilemate.session.errors import SessionError

PIP_LINE = "pip install 'profilemate[report]'"


def load(module: str, pip_line: str = PIP_LINE) -> Any:
    """A module, of the `report` extra by default. Raises SessionError, with the one pip line it needs, where it is missing."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != module.split(".")[0]:
            raise
        raise SessionError(f"this needs the package {error.name}: {pip_line}") from error
