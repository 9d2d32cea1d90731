"""The corpus: every maker of a session that somebody prepared, by name. Its docstring says what it plants."""

from __future__ import annotations

import hostile_files
import hostile_records
from hostile_values import BASES, MAKERS

__all__ = ["BASES", "MAKERS"]

assert {maker.__module__ for maker in MAKERS.values()} == {hostile_files.__name__, hostile_records.__name__}
