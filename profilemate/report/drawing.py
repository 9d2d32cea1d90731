"""A figure as the page has it: its Vega-Lite specification as compact JSON, and its data as tables."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from profilemate.figures.figure import Figure, NoFigure
from profilemate.report.inline import json_for_script
from profilemate.report.model import Column, DataTable, Drawing, NoDrawing
from profilemate.report.numbers import is_number

STATIC_ROWS = 24
"""So many rows of a figure's data are on the page without a script; a button shows the others."""
DIGITS = 9
OWN_FAULT = "fault of ProfileMate"
"""In the reason of a figure whose drawing failed."""

Rows = list[dict[str, Any]]


def drawing_of(figure: Figure | NoFigure) -> Drawing | NoDrawing:
    """What the page needs of a figure."""
    if isinstance(figure, NoFigure):
        return NoDrawing(figure.name, figure.title, figure.reason, OWN_FAULT in figure.reason)
    spec: dict[str, Any] = figure.chart.to_dict()
    titles = dict(field_titles(spec))
    datasets = {name: rows for name, rows in spec.get("datasets", {}).items() if isinstance(rows, list)}
    packed = {name: packed_rows(rows) for name, rows in datasets.items()}
    shown = {**printable({**spec, "description": figure.says, "datasets": {}}), "datasets": packed}
    tables = tuple(data_table(name, packed[name], titles) for name, rows in datasets.items() if rows)
    return Drawing(figure.name, figure.title, figure.says, figure.note, json_for_script(shown), tables)


def packed_rows(rows: Rows) -> dict[str, list[Any]]:
    """Rows of a dataset without the repeated names: half the size of the page is data."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    return {"columns": columns, "rows": [[short(row.get(name)) for name in columns] for row in rows]}


def short(value: Any) -> Any:
    """A number with nine significant digits; what JSON cannot say (infinity, not a number) is null."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    return value


def printable(part: Any) -> Any:
    """A specification without line separators in its texts: they may stand in JSON, but not in Vega's expressions."""
    if isinstance(part, str):
        return " ".join(part.splitlines())
    if isinstance(part, Mapping):
        return {key: printable(value) for key, value in part.items()}
    return [printable(value) for value in part] if isinstance(part, (list, tuple)) else part


def field_titles(spec: Any) -> Iterator[tuple[str, str]]:
    """Names of fields and the titles under which the figure shows them, wherever in the specification."""
    if isinstance(spec, Mapping):
        field, title = spec.get("field"), spec.get("title")
        if isinstance(field, str) and isinstance(title, str) and title:
            yield field, title
        for key, value in spec.items():
            if key != "datasets":
                yield from field_titles(value)
    elif isinstance(spec, Sequence) and not isinstance(spec, str):
        for value in spec:
            yield from field_titles(value)


def data_table(name: str, packed: dict[str, list[Any]], titles: Mapping[str, str]) -> DataTable:
    """The table view of one dataset."""
    rows = packed["rows"]
    numeric = [
        all(is_number(row[place]) or row[place] is None for row in rows) for place in range(len(packed["columns"]))
    ]
    columns = tuple(
        Column(titles.get(column, column.replace("_", " ")), is_numeric)
        for column, is_numeric in zip(packed["columns"], numeric, strict=True)
    )
    shown = tuple(tuple(data_cell(value) for value in rows[place]) for place in spread(len(rows), STATIC_ROWS))
    return DataTable(name, columns, shown, len(rows))


def data_cell(value: Any) -> str:
    """A value of the data, unrounded but for nine digits."""
    if value is None:
        return ""
    return f"{value:.{DIGITS}g}" if isinstance(value, float) else str(value)


def spread(num_rows: int, wanted: int) -> list[int]:
    """Places of at most so many rows, the first and the last among them, evenly far apart."""
    if num_rows <= wanted:
        return list(range(num_rows))
    return [round(index * (num_rows - 1) / (wanted - 1)) for index in range(wanted)]
