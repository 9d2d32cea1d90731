"""Rounds, in which variants take their turns, and what is switched on for a turn."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

TELL_EVERY_S = 5.0
FEWEST = 12


def say(text: str) -> None:
    """One line of progress."""
    print(f"[bench {time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


def rounds(name: str, count: int, seconds: float = math.inf, fewest: int = FEWEST) -> Iterator[int]:
    """Count from 0, telling now and then how far it is; on a slow machine not to the end, but at least to `fewest`."""
    began = told = time.monotonic()
    for number in range(count):
        now = time.monotonic()
        if now - began > seconds and number >= fewest:
            say(f"{name}: time is up after {number} of {count} rounds")
            return
        if now - told > TELL_EVERY_S:
            say(f"{name}: round {number + 1} of {count}")
            told = now
        yield number


def turn_about(number: int) -> tuple[bool, bool]:
    """Order of one round, as whether ProfileMate is on: off on, on off, and so on, so that drifts cancel."""
    return (False, True) if number % 2 == 0 else (True, False)


@contextmanager
def recording(trackers: str = "") -> Iterator[None]:
    """Every hook in, as a server has them, and out again. `trackers` are others than those of the environment."""
    from profilemate.probe import install
    from profilemate.probe.settings import TRACKERS_VARIABLE

    with mock.patch.dict(os.environ, {TRACKERS_VARIABLE: trackers} if trackers else {}):
        install.begin()
    try:
        yield
    finally:
        install.last_words()  # a turn may be shorter than the pause between two rows of health
        install.remove_all()


@contextmanager
def patched(owner: Any, name: str, value: Any) -> Iterator[Any]:
    """An attribute replaced for a while."""
    had, before = name in vars(owner), getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield value
    finally:
        if had:
            setattr(owner, name, before)
        else:
            delattr(owner, name)
