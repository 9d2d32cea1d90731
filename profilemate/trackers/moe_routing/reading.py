"""The way of a table from the device to the host: an asynchronous copy that is asked for later, never waited for."""

from __future__ import annotations

import sys
from typing import Any


class Copy:
    """A table, and the place on the host that its copy goes to."""

    def __init__(self, table: Any) -> None:
        """Page-locked memory for a table on a device."""
        self._table = table
        self._host: Any = None
        self._event: Any = None
        self.is_under_way = False
        if table.device.type != "cpu":
            torch: Any = sys.modules["torch"]
            self._host = torch.empty(table.shape, dtype=table.dtype, pin_memory=True)
            self._event = getattr(torch, table.device.type).Event()

    def start(self) -> None:
        """Ask for a copy of the table as it will be when the device comes to this point."""
        self.is_under_way = True
        if self._event is None:
            self._host = self._table.clone()
        else:
            self._host.copy_(self._table, non_blocking=True)
            self._event.record()

    def take(self) -> Any:
        """The copy that was asked for, valid until the next start; None if it is not there yet."""
        if self._event is not None and not self._event.query():
            return None
        self.is_under_way = False
        return self._host
