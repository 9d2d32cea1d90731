"""The way of tables from the device to the host: an asynchronous copy that is asked for later, never waited for."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any


class Copies:
    """Some tables of one device, and the places on the host that their copies go to."""

    def __init__(self, tables: Sequence[Any]) -> None:
        """Page-locked memory for tables on a device; those on the CPU are read where they are."""
        torch: Any = sys.modules["torch"]
        self._tables = self._hosts = list(tables)
        self._event: Any = None
        self._asked: list[int] = []
        device = tables[0].device
        if device.type != "cpu":
            self._hosts = [torch.empty(table.shape, dtype=table.dtype, pin_memory=True) for table in tables]
            self._event = getattr(torch, device.type).Event()

    @property
    def is_under_way(self) -> bool:
        """Whether copies were asked for and not taken."""
        return bool(self._asked)

    def start(self, numbers: Sequence[int]) -> None:
        """Ask for copies of these tables as they will be when the device comes to this point."""
        self._asked = list(numbers)
        if self._event is not None:
            for number in numbers:
                self._hosts[number].copy_(self._tables[number], non_blocking=True)
            self._event.record()

    def take(self) -> dict[int, list[Any]]:
        """The copies that were asked for, as lists by their number; nothing if they are not there yet."""
        if self._event is not None and not self._event.query():
            return {}
        asked, self._asked = self._asked, []
        return {number: self._hosts[number].tolist() for number in asked}
