"""What a stream holds: a table of named fields, each with its unit and meaning written once."""

from __future__ import annotations

from typing import NamedTuple


class Field(NamedTuple):
    """One column. `kind` is int, str or bool; an empty cell means "not known" in every kind."""

    name: str
    kind: str
    doc: str


class Table(NamedTuple):
    """A stream of rows, one CSV file per process. Rows are tuples in the order of `fields`.

    Several tables may lie in one file of that name, each with columns of its own: then `present` is a column that is empty
    in the rows that are not this table's.
    """

    name: str
    doc: str
    fields: tuple[Field, ...]
    present: str = ""

    @property
    def header(self) -> str:
        """The first line of the CSV file, with its line end."""
        return ",".join(field.name for field in self.fields) + "\n"

    @property
    def columns(self) -> tuple[str, ...]:
        """The column names in order."""
        return tuple(field.name for field in self.fields)


def fields(*rows: tuple[str, str, str]) -> tuple[Field, ...]:
    """Build fields from (name, kind, doc) triples."""
    return tuple(Field(*row) for row in rows)
