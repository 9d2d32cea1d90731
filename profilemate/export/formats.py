"""The table of output formats. A new one is a module with `export` and one entry here."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from profilemate.session.session import Session


class Format(NamedTuple):
    """`module.export(session, output)` writes to `output` or, without one, where the format belongs.

    It returns the text for standard output. Third-party packages are imported inside it, so an absent one costs nobody
    else anything.
    """

    name: str
    module: str
    help: str

    def load(self) -> Callable[[Session, Path | None], str]:
        """The module's `export`."""
        function: Callable[[Session, Path | None], str] = import_module(self.module).export
        return function


FORMATS = (
    Format("csv", "profilemate.export.readme_files", "the README's files, in the session folder or in --output"),
    Format("prometheus", "profilemate.export.prometheus", "samples with timestamps as Prometheus text"),
)
"""The first one is the default."""


def by_name(name: str) -> Format:
    """Raises KeyError for a format that there is not."""
    return {known.name: known for known in FORMATS}[name]
