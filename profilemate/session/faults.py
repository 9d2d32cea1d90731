"""What could not be read: by file and kind, counted, so that no loss is silent."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    """One kind of damage in one file of a session."""

    where: str
    what: str
    count: int

    def __str__(self) -> str:
        """A line for people."""
        times = f" ({self.count} times)" if self.count > 1 else ""
        return f"{self.where}: {self.what}{times}"


class Faults:
    """Collects faults. Reading a file again replaces what was noted about it."""

    def __init__(self) -> None:
        """Nothing is wrong yet."""
        self._found: dict[str, Counter[str]] = {}

    def note(self, where: str, what: str) -> None:
        """Note one fault that is not found by going through a stream."""
        self._found.setdefault(where, Counter())[what] = 1

    def replace(self, where: str, found: Counter[str], at_least: tuple[str, ...] = ()) -> None:
        """Set all faults of one file. Kinds in `at_least` do not become fewer: not all was looked at this time."""
        before = self._found.get(where, Counter())
        found = found | Counter({what: before[what] for what in at_least})
        if found:
            self._found[where] = found
        else:
            self._found.pop(where, None)

    def list(self) -> tuple[Fault, ...]:
        """All faults in a fixed order."""
        return tuple(
            Fault(where, what, count)
            for where, found in sorted(self._found.items())
            for what, count in sorted(found.items())
        )

    def has(self, where: str, what: str) -> bool:
        """Whether this kind was found in this file."""
        return self._found.get(where, Counter())[what] > 0
