"""A row to which several trackers contribute cells.

A row and a file for each would cost a write(2) each: 0.7 microseconds in a loop, but 6 to 9 in a server, where the model has
emptied the processor's caches (measured with vLLM 0.32 on a CPU).
"""

from __future__ import annotations

from profilemate.probe.stream import Stream
from profilemate.schema.table import Table


class Part:
    """The cells of one tracker. `text` holds them, separated by commas, until the row is made; then it is empty again."""

    __slots__ = ("empty", "text")

    def __init__(self, num_cells: int) -> None:
        """Empty cells."""
        self.empty = self.text = "," * (num_cells - 1)


class SharedRow:
    """The columns of `base`, then those of every part in the order in which they were asked for."""

    def __init__(self, stream: Stream) -> None:
        """`stream` has the table that holds the common columns."""
        self._base = stream.table
        self.stream = stream
        stream.comes_last = True
        self.parts: list[Part] = []
        self.streams: tuple[Stream, ...] = (stream,)
        """What to write when the row is made; the row comes after what happened before it."""

    def part(self, table: Table) -> Part:
        """Take a tracker's columns in: those of its table that come after the common ones. Before any row is made."""
        own = table.fields[len(self._base.fields) :]
        self.stream.widen(own)
        self.parts.append(Part(len(own)))
        return self.parts[-1]

    def write_with(self, *streams: Stream) -> None:
        """Write these as well when the row is."""
        self.streams = (*(stream for stream in streams if stream not in self.streams), *self.streams)

    def add(self, common: str) -> None:
        """Make the row, beginning with the text of the common cells."""
        for part in self.parts:
            common += "," + part.text
            part.text = part.empty
        self.stream.add(common + "\n")

    def forget(self) -> None:
        """For a forked child: nothing was contributed yet."""
        for part in self.parts:
            part.text = part.empty
