"""What a file of a stream may hold, and what its header says of it: the rules of `session.stream`, for whole blocks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from profilemate.schema.table import Field, Table
from profilemate.session.cell_values import REQUIRED, boolean, integer, required_integer

CellReader = Callable[[str], Any]


def filled_text(cell: str) -> str | None:
    """A text cell; an empty one is "not known", as it is in the other kinds."""
    return cell or None


@dataclass(frozen=True)
class Shape:
    """The tables that lie in one file of a name, seen as one frame: the columns of all, each once.

    A file with one table has the rows that `session.stream` gives of it. Of a shared file every whole row is given; a
    tracker that has no part in it left its cells empty, so that of all required columns only the common ones stay so.
    """

    tables: tuple[Table, ...]

    @property
    def name(self) -> str:
        """Of the stream."""
        return self.tables[0].name

    @cached_property
    def fields(self) -> dict[str, Field]:
        """Columns by name, in order."""
        return {field.name: field for table in self.tables for field in table.fields}

    @property
    def present(self) -> str:
        """A column that must not be empty in a row, where only one of the tables of a shared file is read."""
        return self.tables[0].present if len(self.tables) == 1 else ""

    @cached_property
    def required(self) -> frozenset[str]:
        """Integer columns that must not be empty in a row."""
        common = set.intersection(*(set(table.columns) for table in self.tables))
        return frozenset(name for name in common & REQUIRED if self.fields[name].kind == "int")

    def dtypes(self) -> dict[str, Any]:
        """Columns as polars types."""
        import polars

        kinds = {"int": polars.Int64, "str": polars.String, "bool": polars.Boolean}
        return {name: kinds[field.kind] for name, field in self.fields.items()}

    def reader(self, column: str) -> CellReader:
        """How one cell is read where a block is gone through row by row. It raises ValueError for a wrong one."""
        kind = self.fields[column].kind
        if kind == "int":
            return required_integer if column in self.required else integer
        return boolean if kind == "bool" else filled_text

    def fits(self, header: list[str]) -> bool | None:
        """Whether a file with this header holds some of the tables; None where it holds none, and nothing is wrong."""
        verdicts = [_fits(table, header) for table in self.tables]
        return True if True in verdicts else False if False in verdicts else None

    def lacks(self, header: list[str]) -> list[str]:
        """Columns that a file with this header should have, going by the tables that it holds."""
        held = [table for table in self.tables if _fits(table, header)]
        return [name for table in held for name in table.columns if name not in header]


def _fits(table: Table, header: list[str]) -> bool | None:
    if header == [""] or (table.present and table.present not in header and table.columns[0] in header):
        return None
    absent = {column for column in table.columns if column not in header}
    return not (absent & REQUIRED or 2 * len(absent) >= len(table.columns) or table.present in absent)
