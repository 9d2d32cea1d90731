"""Cumulative totals: blocks of rows that stand for older rows, which may be gone."""

from __future__ import annotations

from typing import NamedTuple

from profilemate.schema.table import Table
from profilemate.session.records import ProcessInfo
from profilemate.session.segments import TORN_TAIL
from profilemate.session.session import Session
from profilemate.session.stream import Row


class TotalsBlock(NamedTuple):
    """The newest cumulative block: it stands for forward passes up to `through_forward`."""

    time_ns: int
    through_forward: int
    rows: list[Row]


def newest_block(session: Session, process: ProcessInfo, table: Table) -> TotalsBlock | None:
    """The last whole block of a table that begins with time_ns and through_forward.

    A block whose end is torn is none: no rows were removed after it.
    """
    block: list[Row] = []
    before: list[Row] = []
    for row in session.rows(process, table):
        if block and row[0] != block[0][0]:
            before, block = block, []
        block.append(row)
    if session.faults.has(f"{process.name}/{table.name}.csv", TORN_TAIL):
        block = before
    return TotalsBlock(block[0][0], block[0][1], block) if block else None
