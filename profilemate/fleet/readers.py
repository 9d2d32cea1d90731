"""The data set as Ibis tables: on DuckDB by default, or on a Spark session that the user has."""

from __future__ import annotations

import glob
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from profilemate.fleet.dataset import Dataset
from profilemate.fleet.packages import load
from profilemate.fleet.tables import fleet_tables

HIVE_TYPES = "{'day': DATE, 'model': VARCHAR, 'host': VARCHAR, 'engine': BIGINT}"
"""Without them a host that is called 0123 would be the number 123."""

MEMORY_BYTES = 700 << 20
"""For DuckDB, so that the process stays below 1 GiB: by itself it takes most of the machine, where servers may run."""


class Fleet(Mapping[str, Any]):
    """Tables of a data set by name, each opened when it is first asked for."""

    def __init__(self, open_table: Callable[[str], Any]) -> None:
        """`open_table` gives an Ibis table."""
        self._open_table = open_table
        self._opened: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        """An Ibis table."""
        if name not in fleet_tables():
            raise KeyError(name)
        if name not in self._opened:
            self._opened[name] = self._open_table(name)
        return self._opened[name]

    def __iter__(self) -> Iterator[str]:
        """Names."""
        return iter(fleet_tables())

    def __len__(self) -> int:
        """How many."""
        return len(fleet_tables())


def on_duckdb(dataset: Path, memory_bytes: int = MEMORY_BYTES) -> Fleet:
    """Read with DuckDB in this process; what needs more memory than that goes to the folder of temporary files.

    Raises SessionError where it is no data set, or a package is missing.
    """
    load("duckdb")
    path = Dataset(dataset).path
    connection = load("ibis").duckdb.connect()
    connection.raw_sql("SET enable_progress_bar = false")
    connection.raw_sql(f"SET memory_limit = '{memory_bytes // 1024} KiB'")
    connection.raw_sql(f"SET temp_directory = '{_quoted(f'{tempfile.gettempdir()}/profilemate-duckdb-{os.getpid()}')}'")

    def open_table(name: str) -> Any:
        files = _quoted(f"{glob.escape(str(path))}/{name}/**/*.parquet")
        connection.raw_sql(
            f"CREATE VIEW {name} AS SELECT * FROM read_parquet('{files}', union_by_name=true, hive_partitioning=true, "
            f"hive_types={HIVE_TYPES})"
        )
        return connection.table(name)

    return Fleet(open_table)


def _quoted(text: str) -> str:
    return text.replace("'", "''")


def on_spark(spark: Any, dataset: str | Path) -> Fleet:
    """Read with a Spark session, from wherever that reads: a path or an address such as s3a://...

    Raises SessionError where a package is missing.
    """
    connection = load("ibis").pyspark.connect(spark)

    def open_table(name: str) -> Any:
        frame = spark.read.option("mergeSchema", "true").parquet(f"{dataset}/{name}")
        frame.createOrReplaceTempView(f"profilemate_{name}")
        return connection.table(f"profilemate_{name}")

    return Fleet(open_table)
