"""Streams of a user's own trackers: what their columns hold is told by their cells, since nothing else tells it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl


def with_types(frame: pl.LazyFrame, columns: tuple[str, ...]) -> pl.LazyFrame:
    """The text columns as integers, numbers or booleans where all their cells are such, as of now; one with zeros in front
    stays a text. A cell that comes later and is of another kind is null.
    """
    if not columns:
        return frame
    facts = frame.select(*(_fact(name, kind) for name in columns for kind in ("int", "float", "bool", "any")))
    holds = facts.collect(engine="streaming").row(0, named=True)
    return frame.with_columns(_typed(name, holds) for name in columns if holds[f"{name} any"])


def _fact(name: str, kind: str) -> pl.Expr:
    import polars

    cell = polars.col(name)
    if kind == "any":
        return cell.is_not_null().any().alias(f"{name} any")
    fits = {
        "int": cell.cast(polars.Int64, strict=False).cast(polars.String) == cell,
        "float": cell.str.contains(r"^-?(0|[1-9]\d*)(\.\d+)?(e[+-]?\d+)?$"),
        "bool": cell.is_in(["True", "False"]),
    }[kind]
    return (cell.is_null() | fits.fill_null(False)).all().alias(f"{name} {kind}")


def _typed(name: str, holds: dict[str, bool]) -> pl.Expr:
    import polars

    cell = polars.col(name)
    if holds[f"{name} int"]:
        return cell.cast(polars.Int64, strict=False)
    if holds[f"{name} float"]:
        return cell.cast(polars.Float64, strict=False)
    return cell == "True" if holds[f"{name} bool"] else cell
