"""The folder of a data set: what it holds, and putting a session's files in or in the place of earlier ones.

    <data set>/_profilemate.json                       format and tables
    <data set>/_profilemate/<session>/manifest.json    what was exported of a session
    <data set>/<table>/day=/model=/host=/engine=/<session>-<n>.parquet

Readers pass over what begins with `_`. Files are made there and then renamed, each as a whole.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from profilemate import __version__
from profilemate.export.atomic import replacing
from profilemate.fleet.packages import load
from profilemate.fleet.paths import PARTITIONS, Place
from profilemate.fleet.tables import FORMAT, fingerprint, fleet_tables
from profilemate.fleet.write import COMPRESSION, Staged
from profilemate.session.errors import SessionError
from profilemate.session.records import items_of, read_json

ABOUT = "_profilemate.json"
RECORDS = "_profilemate"
MANIFEST = "manifest.json"
STAGING = "staging"
EMPTY_FILE = "columns.parquet"
"""A file without rows in each table: a table that no session has rows of can be read too, with all its columns."""
MODE = 0o700
"""Of the data set's folder: sessions are their user's alone, and who shares them opens this one folder."""


class Dataset:
    """A data set that is there."""

    def __init__(self, path: Path) -> None:
        """Raises SessionError where it is none, or one of another format."""
        self.path = path
        try:
            self.about = read_json(path / ABOUT)
        except FileNotFoundError as error:
            raise SessionError(f"{path} is not a data set of profilemate fleet export: it has no {ABOUT}") from error
        except (NotADirectoryError, ValueError) as error:
            raise SessionError(f"{path} is not a data set of profilemate fleet export: {error}") from error
        if self.about.get("format") != FORMAT:
            raise SessionError(
                f"{path} has format {self.about.get('format')}, this ProfileMate reads and writes format {FORMAT}: "
                "export into another folder"
            )

    @classmethod
    def make(cls, path: Path) -> Dataset:
        """Open it, or make it where there is nothing. Raises SessionError for a folder that holds something else."""
        if not (path / ABOUT).is_file():
            if path.exists() and (not path.is_dir() or any(path.iterdir())):
                raise SessionError(f"{path} is not empty and not a data set: name another folder")
            path.mkdir(mode=MODE, parents=True, exist_ok=True)
            _write_about(path)
        dataset = cls(path)
        if dataset.about.get("columns") != fingerprint():
            _write_empty_files(path)
            _write_about(path)
        return dataset

    @contextmanager
    def taken(self, key: str) -> Iterator[Path]:
        """The folder of a session's record, which no other export has meanwhile. Raises SessionError where one has."""
        folder = self.path / RECORDS / key
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(descriptor)
            raise SessionError("another export writes this session now") from error
        try:
            yield folder
        finally:
            shutil.rmtree(folder / STAGING, ignore_errors=True)
            os.close(descriptor)

    def manifest(self, key: str) -> dict[str, Any]:
        """Of an exported session, empty where there is none."""
        try:
            return read_json(self.path / RECORDS / key / MANIFEST)
        except (OSError, ValueError):
            return {}

    def publish(self, staged: Staged, manifest: dict[str, Any]) -> None:
        """Put a session's files in place, those of `sessions` last, then remove what it had before.

        A reader sees each file whole, the old or the new one. Killed in between, the next export of this session goes on:
        the manifest names the files of both from before the first rename.
        """
        before = [str(file) for file in items_of(self.manifest(staged.key).get("files"))]
        old = sorted({file for file in before if _is_ours(file, staged.key)} - set(staged.files))
        unfinished = {**manifest, "files": [*staged.files, *old], "fingerprint": None}
        self._write_manifest(staged.key, unfinished)
        for file in staged.files:
            target = self.path / file
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(staged.root / file, target)
        for file in old:
            (self.path / file).unlink(missing_ok=True)
        self._write_manifest(staged.key, {**manifest, "files": staged.files})

    def _write_manifest(self, key: str, manifest: dict[str, Any]) -> None:
        with replacing(self.path / RECORDS / key / MANIFEST) as file:
            file.write(json.dumps(manifest, indent=1) + "\n")


def _is_ours(file: str, key: str) -> bool:
    """Whether a manifest may have a file removed: one of this session, below a table."""
    path = Path(file)
    plain = not path.is_absolute() and ".." not in path.parts and len(path.parts) == len(PARTITIONS) + 2
    return plain and path.parts[0] in fleet_tables() and path.name.startswith(f"{key}-") and path.suffix == ".parquet"


def _write_about(path: Path) -> None:
    tables = {table.name: {column.name: column.kind for column in table.columns} for table in fleet_tables().values()}
    about = {"format": FORMAT, "profilemate": __version__, "columns": None, "partitions": PARTITIONS, "tables": tables}
    about["columns"] = fingerprint() if (path / "sessions").is_dir() else None
    with replacing(path / ABOUT) as file:
        file.write(json.dumps(about, indent=1) + "\n")


def _write_empty_files(path: Path) -> None:
    parquet = load("pyarrow.parquet")
    for table in fleet_tables().values():
        folder = path / table.name / Place(None, None, None, None).folder
        folder.mkdir(parents=True, exist_ok=True)
        new = path / RECORDS / f"{table.name}.{os.getpid()}.new"
        new.parent.mkdir(exist_ok=True)
        parquet.write_table(table.schema.empty_table(), new, compression=COMPRESSION)
        os.replace(new, folder / EMPTY_FILE)
