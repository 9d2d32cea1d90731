"""The blocks of every prompt as a tree, put together from the rows of prefix_blocks, in bounded memory."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from profilemate.trackers.prefix_lookups import events

if TYPE_CHECKING:
    from profilemate.session.records import ProcessInfo
    from profilemate.session.session import Session

MOST_BLOCKS = 2_000_000
"""So many different blocks are kept, some 250 MB; of the look-ups after that none."""

NO_BLOCK = -1


@dataclass
class BlockTree:
    """Blocks by small numbers from 0: equal blocks after equal prefixes are one.

    `parents[b]` is the one before b, or -1; `depths[b]` how many there are up to b, itself included; `made_up[b]` whether the
    first of them is made up.
    """

    parents: array[int] = field(default_factory=lambda: array("q"))
    depths: array[int] = field(default_factory=lambda: array("q"))
    made_up: bytearray = field(default_factory=bytearray)

    def add(self, parent: int, is_made_up: bool = False) -> int:
        """One more block after `parent`."""
        self.made_up.append(self.made_up[parent] if parent >= 0 else is_made_up)
        self.parents.append(parent)
        self.depths.append(self.depths[parent] + 1 if parent >= 0 else 1)
        return len(self.parents) - 1

    def add_chain(self, parent: int, count: int) -> int:
        """So many more blocks in a row, made up where they begin a prompt; the last one."""
        for _ in range(count):
            parent = self.add(parent, is_made_up=True)
        return parent

    def depth(self, end: int) -> int:
        """How many blocks a prompt has that ends with `end`."""
        return self.depths[end] if end >= 0 else 0

    def path(self, end: int) -> list[int]:
        """All blocks from the first of a prompt to `end`; none for -1."""
        parents = self.parents
        found = []
        while end >= 0:
            found.append(end)
            end = parents[end]
        found.reverse()
        return found


@dataclass
class Prompts:
    """One engine's prompts: the last block of each look-up.

    Blocks whose rows are gone are made up: one prefix for each block that is known to have come after. `is_full` says that
    MOST_BLOCKS was reached.
    """

    tree: BlockTree = field(default_factory=BlockTree)
    ends: dict[int, int] = field(default_factory=dict)
    is_full: bool = False


def read_prompts(session: Session, process: ProcessInfo, local_engine: int) -> Prompts:
    """Read the rows of one engine. A prompt of which only the first rows were written ends where they do."""
    prompts = Prompts()
    known: dict[int, int] = {}
    for row in session.rows(process, events.BLOCKS):
        _, engine, lookup, _, _, first, parent, numbers = row
        if engine != local_engine:
            continue
        if len(known) >= MOST_BLOCKS:
            prompts.is_full = True
            break
        end = _end_of(prompts.tree, known, parent, first or 0)
        for text in numbers.split():
            number = int(text, 16)
            block = known.get(number)
            if block is None:
                block = known[number] = prompts.tree.add(end)
            end = block
        prompts.ends[lookup or 0] = end
    return prompts


def _end_of(tree: BlockTree, known: dict[int, int], parent: str, first: int) -> int:
    """The block before a row's first one; made up with those before it where their rows are gone."""
    if not parent:
        return NO_BLOCK
    number = int(parent, 16)
    if number not in known:
        known[number] = tree.add_chain(NO_BLOCK, first)
    return known[number]
