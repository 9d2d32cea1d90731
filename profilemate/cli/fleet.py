"""Many sessions as one Parquet data set, and questions about all of them.

`export` writes every session below the given folders into a data set, split by day, model, host and engine, which DuckDB,
Spark, Ray Data and polars read as it is. Exporting again takes what is new or changed and replaces that session's files; a
session that runs is left out, one that cannot be read is named and stops none of the others (exit code 1). `query` asks the
data set with DuckDB; docs/fleet.md shows the same questions on Spark.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from profilemate.cli.fleet_export import run_export, since_of
from profilemate.cli.fleet_query import run_query
from profilemate.sessions.words import size_of

EPILOG = """examples:
  profilemate fleet export /data/profiles/host-a /data/profiles/host-b -o /data/fleet
  profilemate fleet export /data/profiles -o /data/fleet --since 2d --json
  profilemate fleet query kv_usage /data/fleet
  profilemate fleet query /data/fleet --json | jq .graph_ladder
  profilemate fleet query --list"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of both."""
    commands = parser.add_subparsers(dest="action", metavar="export|query", required=True)
    plain = argparse.RawDescriptionHelpFormatter
    export = commands.add_parser("export", help="write sessions into a data set", epilog=EPILOG, formatter_class=plain)
    export.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="sessions, or folders of sessions")
    export.add_argument(
        "-o", "--output", type=Path, required=True, metavar="DATASET", help="made where it is not there"
    )
    export.add_argument(
        "--since",
        type=since_of,
        metavar="AGE|DAY",
        help="only sessions with a row since then: 2d, 12h or 2026-11-28 (UTC)",
    )
    export.add_argument("--running", action="store_true", help="also sessions that run, as far as they are")
    export.add_argument(
        "--again", action="store_true", help="also sessions that did not change since they were exported"
    )
    export.add_argument("--dry-run", action="store_true", help="say what would be done, and write nothing")
    export.add_argument("--json", action="store_true", help="what became of each session")
    query = commands.add_parser("query", help="ask a data set with DuckDB", epilog=EPILOG, formatter_class=plain)
    query.add_argument("words", nargs="*", metavar="[NAME] DATASET", help="without a name all are asked")
    query.add_argument(
        "--memory",
        type=size_of,
        default="700MiB",
        metavar="SIZE",
        help="what DuckDB may take before it uses temporary files",
    )
    query.add_argument("--list", action="store_true", help="the questions that there are")
    query.add_argument(
        "--json", action="store_true", help="the rows of the answer; without a name, of each by its name"
    )


def run(arguments: argparse.Namespace) -> int:
    """Exit code 1 where a session could not be exported."""
    return run_export(arguments) if arguments.action == "export" else run_query(arguments)
