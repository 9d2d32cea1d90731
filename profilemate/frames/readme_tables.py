"""The README's CSV files of a session as lazy frames, also where its folder cannot be written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from profilemate.export import readme_files, retention
from profilemate.frames.readme_types import kind_of, schema_of
from profilemate.session.errors import SessionError
from profilemate.session.session import Session

if TYPE_CHECKING:
    import polars as pl

NOT_KNOWN = {"int": "None", "float": "nan"}
"""What stands for an unknown cell beside nothing: a descriptor's field that is None, an eviction without a known birth."""


class ReadmeTables:
    """Makes the files where they are older than the streams: in the session, or in a folder that goes with its frames."""

    def __init__(self, session: Session) -> None:
        """Nothing is made yet."""
        self._session = session
        self._made: tuple[str, TemporaryDirectory[str]] | None = None

    def scan(self, file: str) -> pl.LazyFrame:
        """One of the files, which is made now and read later. Raises SessionError where that cannot be done."""
        path = self._session.path / file
        if retention.is_trimmed(self._session.path):
            if not path.is_file():
                raise SessionError(f"{path} is not there, and the rows that it was made from were removed")
            return read(path)
        try:
            readme_files.make_current(self._session)
            return read(path)
        except OSError as error:
            return self._from_elsewhere(file, error)

    def _from_elsewhere(self, file: str, why: OSError) -> pl.LazyFrame:
        fingerprint = self._session.fingerprint()
        if self._made is None or self._made[0] != fingerprint:
            try:
                folder = TemporaryDirectory(prefix="profilemate-")
                readme_files.write(self._session, Path(folder.name))
            except OSError as error:
                raise SessionError(
                    f"the files of {self._session.path} can be written neither there ({why.strerror}) nor in a temporary "
                    f"folder ({error.strerror})"
                ) from error
            self._made = (fingerprint, folder)
        folder = self._made[1]
        return _keeping(folder, read(Path(folder.name) / file))


def read(path: Path) -> pl.LazyFrame:
    """A file with the types of its columns. Raises OSError."""
    import polars

    with open(path, encoding="utf-8") as file:
        header = file.readline().rstrip("\r\n").split(",")
    not_known = {name: NOT_KNOWN[kind_of(name)] for name in header if kind_of(name) in NOT_KNOWN}
    return polars.scan_csv(path, schema=schema_of(header), null_values=not_known, quote_char=None)


def _keeping(folder: TemporaryDirectory[str], frame: pl.LazyFrame) -> pl.LazyFrame:
    """The same frame; the folder is there for as long as it is."""
    from polars.io.plugins import register_io_source

    def source(
        with_columns: list[str] | None, predicate: Any, n_rows: int | None, batch_size: int | None
    ) -> Iterator[pl.DataFrame]:
        wanted = frame if with_columns is None else frame.select(with_columns)
        wanted = wanted if n_rows is None else wanted.head(n_rows)
        wanted = wanted if predicate is None else wanted.filter(predicate)
        if Path(folder.name).is_dir():
            yield wanted.collect(engine="in-memory")

    return register_io_source(source, schema=frame.collect_schema())
