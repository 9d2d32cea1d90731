"""What several figures read: the columns they need of a long stream, read once and kept beside the session while it is open.

They lie in a temporary Parquet file, so that memory stays bounded; it goes with the session object.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import polars as pl

if TYPE_CHECKING:
    from profilemate.frames.session import Session

_files: weakref.WeakKeyDictionary[Any, dict[str, pl.LazyFrame]] = weakref.WeakKeyDictionary()


def kept(session: Session, name: str, rows: Callable[[], pl.LazyFrame]) -> pl.LazyFrame:
    """`rows()` as they were at the first call for this session and name; read anew each time where no file can be written."""
    known = _files.setdefault(session, {})
    if name not in known:
        known[name] = _written(session, name, rows)
    return known[name]


def _written(session: Session, name: str, rows: Callable[[], pl.LazyFrame]) -> pl.LazyFrame:
    try:
        folder = TemporaryDirectory(prefix="profilemate-figures-")
    except OSError:
        return rows()
    weakref.finalize(session, folder.cleanup)
    path = Path(folder.name) / f"{name}.parquet"
    try:
        rows().sink_parquet(path, compression="lz4")
    except (OSError, pl.exceptions.ComputeError):
        path.unlink(missing_ok=True)
        return rows()
    return pl.scan_parquet(path)
