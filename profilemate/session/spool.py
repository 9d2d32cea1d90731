"""Many things in order, of which only some are in memory: the rest waits, sorted, in temporary files of this process."""

from __future__ import annotations

import heapq
import pickle
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Generic, TypeVar

MOST_IN_MEMORY = 20_000

T = TypeVar("T")


class SortedSpool(Generic[T]):
    """Gives what was added in order of `key`, things of one key as they came, as often as it is gone through.

    The files are in a folder that only this user may open, and go when the object does. Raises OSError where there is no room.
    """

    def __init__(self, key: Callable[[T], Any]) -> None:
        """Nothing added yet, and no file."""
        self._key = key
        self._waiting: list[T] = []
        self._runs: list[Path] = []
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._count = 0

    def extend(self, items: Iterable[T]) -> None:
        """Add some."""
        for item in items:
            self._count += 1
            self._waiting.append(item)
            if len(self._waiting) >= MOST_IN_MEMORY:
                self._set_aside()

    def _set_aside(self) -> None:
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="profilemate-")
        path = Path(self._folder.name) / str(len(self._runs))
        self._waiting.sort(key=self._key)
        with open(path, "xb") as file:
            for item in self._waiting:
                file.write(pickle.dumps(item, pickle.HIGHEST_PROTOCOL))
        self._runs.append(path)
        self._waiting = []

    def __len__(self) -> int:
        """How many were added."""
        return self._count

    def __iter__(self) -> Iterator[T]:
        """All, in order."""
        runs: list[Iterable[T]] = [_read(path) for path in self._runs]
        return heapq.merge(*runs, sorted(self._waiting, key=self._key), key=self._key)


def _read(path: Path) -> Iterator[Any]:
    with open(path, "rb") as file:
        while file.peek(1):
            yield pickle.load(file)
