"""The queries on a local Spark session: the same answers as on DuckDB. `make fleet-spark` brings PySpark, not Java."""

from __future__ import annotations

import math
import os
import shutil
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from fleet_documents import PAGE, make_fleet, snippets

from profilemate.fleet.paths import NOTHING
from profilemate.fleet.queries import QUERIES, answer
from profilemate.fleet.readers import on_duckdb, on_spark

MISSING = [name for name, found in (("pyspark", find_spec("pyspark")), ("java", shutil.which("java"))) if not found]
WANTED = os.environ.get("FLEET_SPARK") == "wanted"

pytestmark = pytest.mark.skipif(
    bool(MISSING) and not WANTED,
    reason=f"{' and '.join(MISSING)} not at hand: the queries were not run on Spark (make fleet-spark)",
)
LOOPBACK = "127.0.0.1"
SETTINGS = {
    "spark.driver.bindAddress": LOOPBACK, "spark.driver.host": LOOPBACK, "spark.ui.enabled": "false",
    "spark.sql.session.timeZone": "UTC", "spark.sql.shuffle.partitions": "2", "spark.ui.showConsoleProgress": "false",
}  # fmt: skip


@pytest.fixture(scope="module")
def spark() -> Iterator[Any]:
    assert not MISSING, f"{MISSING} not at hand"
    os.environ |= {"SPARK_LOCAL_IP": LOOPBACK, "PYSPARK_PYTHON": sys.executable}
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.master("local[2]")
    for name, value in SETTINGS.items():
        builder = builder.config(name, value)
    session = builder.getOrCreate()
    yield session
    session.stop()


def same(mine: Any, theirs: Any) -> bool:
    """Equal, but for the last digits of sums of quotients, which depend on their order."""
    if isinstance(mine, float) and isinstance(theirs, float):
        return math.isclose(mine, theirs, rel_tol=1e-9, abs_tol=1e-12)
    return type(mine) is type(theirs) and bool(mine == theirs)


@pytest.mark.parametrize("query", [query.name for query in QUERIES])
def test_spark_answers_as_duckdb_does(query: str, spark: Any, golden_fleet: tuple[Path, Path, dict[str, Any]]) -> None:
    mine, theirs = answer(query, on_duckdb(golden_fleet[1])), answer(query, on_spark(spark, golden_fleet[1]))
    assert len(mine) == len(theirs) > 1
    for one, other in zip(mine, theirs, strict=True):
        assert one.keys() == other.keys()
        assert {name: (one[name], other[name]) for name in one if not same(one[name], other[name])} == {}
        exact = [name for name in one if name.startswith("p") and name.endswith("_pct") and name[1:3].isdigit()]
        assert [one[name] for name in exact] == [other[name] for name in exact]


def test_spark_takes_the_folders_for_what_they_mean(
    spark: Any, golden_fleet: tuple[Path, Path, dict[str, Any]]
) -> None:
    steps = spark.read.option("mergeSchema", "true").parquet(str(golden_fleet[1] / "engine_steps"))
    types = dict(steps.dtypes)
    assert (types["time"], types["time_ns"], types["model"], types["engine"]) == (
        "timestamp",
        "bigint",
        "string",
        "int",
    )
    named = steps.filter(steps.host == "server").select("model", "engine", "day").distinct().collect()
    assert [(row.model, row.engine, str(row.day)) for row in named] == [("models/tiny-llama", 0, "2026-11-28")]
    processes = spark.read.parquet(str(golden_fleet[1] / "processes"))
    front_ends = processes.filter(processes.role == "APIServer").select("engine").distinct().collect()
    assert [row.engine for row in front_ends] == [None] and NOTHING in str(
        list((golden_fleet[1] / "processes").rglob("*"))
    )


def test_the_page_s_snippet(spark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_fleet(tmp_path)
    monkeypatch.chdir(tmp_path)
    spark.sql("SET spark.sql.sources.partitionColumnTypeInference.enabled=false")
    space: dict[str, Any] = {}
    # Relative paths are of the JVM's own folder.
    text = snippets(PAGE.read_text())["pyspark"].replace('"fleet', f'"{tmp_path}/fleet')
    exec(compile(text, "docs/fleet.md, Spark", "exec"), space)
    assert [row[0] for row in space["by_limit"]] == sorted(row[0] for row in space["by_limit"])
    assert sum(row[2] for row in space["by_limit"]) == 568
    assert space["usage"] == answer("kv_usage", on_duckdb(tmp_path / "fleet"))
