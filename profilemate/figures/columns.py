"""Single numbers out of columns, 0 where a column has none."""

from __future__ import annotations

from typing import Any

import polars as pl


def least(values: pl.Series) -> float:
    """The lowest."""
    found: Any = values.min()
    return float(found or 0)


def most(values: pl.Series) -> float:
    """The highest."""
    found: Any = values.max()
    return float(found or 0)


def mean(values: pl.Series) -> float:
    """The arithmetic mean."""
    found: Any = values.mean()
    return float(found or 0)


def median(values: pl.Series) -> float:
    """The median; of an even number of values the mean of the two in the middle."""
    found: Any = values.median()
    return float(found or 0)


def total(values: pl.Series) -> int:
    """The sum of integers."""
    return int(values.sum())


def amount(values: pl.Series) -> float:
    """The sum of other numbers."""
    return float(values.sum())
