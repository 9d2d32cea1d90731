"""Session -> the blocks of every prompt in order, put together from the rows of prefix_blocks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from profilemate.session.records import ProcessInfo
from profilemate.session.session import Session
from profilemate.trackers.prefix_lookups import events


class BlockOrder(NamedTuple):
    """The blocks of one admitted request. Equal numbers are equal blocks after equal prefixes, over the whole session.

    `numbers` are the last ones of `blocks`; fewer where earlier rows were removed or later ones never written.
    """

    process: ProcessInfo
    engine: int
    lookup: int
    request: str
    blocks: int
    numbers: tuple[int, ...]

    @property
    def is_complete(self) -> bool:
        """Whether every block is there."""
        return len(self.numbers) == self.blocks


def block_orders(session: Session) -> Iterator[BlockOrder]:
    """Every request with at least one whole block, in order of admission within a process."""
    for process in session.with_role("EngineCore"):
        yield from _orders_of(session, process)


def _orders_of(session: Session, process: ProcessInfo) -> Iterator[BlockOrder]:
    before: dict[int, int | None] = {}
    last: dict[tuple[int, int], tuple[str, int, int | None]] = {}
    for row in session.rows(process, events.BLOCKS):
        _, engine, lookup, request, blocks, _, parent, numbers = row
        end = int(parent, 16) if parent else None
        for text in numbers.split():
            number = int(text, 16)
            before.setdefault(number, end)
            end = number
        last[engine, lookup or 0] = (request, blocks or 0, end)
    for (engine, lookup), (request, blocks, end) in last.items():
        yield BlockOrder(process, engine, lookup, request, blocks, _chain(before, end))


def _chain(before: dict[int, int | None], end: int | None) -> tuple[int, ...]:
    """Back from the last number to the first that is known."""
    numbers: list[int] = []
    while end is not None:
        numbers.append(end)
        end = before.get(end)
    return tuple(reversed(numbers))
