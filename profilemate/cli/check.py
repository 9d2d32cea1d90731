"""What a check of `profilemate doctor` finds."""

from __future__ import annotations

from typing import NamedTuple

OK, WARNING, FAILURE = "ok", "warning", "failure"


class Check(NamedTuple):
    """One finding: a failure would make a session empty; a remedy says what to do."""

    name: str
    status: str
    text: str
    remedy: str = ""
