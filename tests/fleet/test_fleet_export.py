"""The data set: whole files only, the same types for all sessions, each session once, and no loss that is not named."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import golden
import polars as pl
import pyarrow.dataset as arrow_dataset
import pyarrow.parquet as parquet
import pytest
from fleet_sessions import SESSIONS, csv_rows, one_host, quiet
from sample_rows import add_server, step
from session_builder import SessionBuilder

from profilemate.cli.main import main
from profilemate.fleet.dataset import ABOUT, RECORDS, Dataset
from profilemate.fleet.export import (
    EXPORTED,
    FAILED,
    LEFT_OUT,
    REPLACED,
    UNCHANGED,
    Done,
    Wanted,
    export_all,
    sessions_below,
)
from profilemate.fleet.paths import NOTHING, Place, value_of
from profilemate.fleet.queries import answer
from profilemate.fleet.readers import on_duckdb
from profilemate.fleet.tables import fleet_tables
from profilemate.fleet.write import Staged
from profilemate.session.errors import SessionError
from profilemate.trackers.kv_cache import events as kv

Fleet = tuple[Path, Path, dict[str, Done]]


def export(dataset: Path, *paths: Path, **wanted: Any) -> list[Done]:
    return list(export_all(Dataset.make(dataset), sessions_below(paths), Wanted(**wanted), quiet))


def files_of(dataset: Path) -> list[Path]:
    return [path for table in fleet_tables() for path in (dataset / table).rglob("*.parquet")]


def sizes(dataset: Path) -> dict[Path, tuple[int, int]]:
    return {path: (path.stat().st_ino, path.stat().st_size) for path in files_of(dataset)}


@pytest.fixture
def server(tmp_path: Path) -> SessionBuilder:
    return add_server(SessionBuilder(tmp_path / "sessions"))


def test_every_session_but_the_refused_one_is_there(golden_fleet: Fleet) -> None:
    _, dataset, done = golden_fleet
    assert {name for name, one in done.items() if one.outcome != EXPORTED} == {"old_format"}
    assert done["old_format"].outcome == FAILED and "format 1" in done["old_format"].why
    assert len(answer("sessions", on_duckdb(dataset))) == len(done) - 1


@pytest.mark.parametrize("session", ["server", "everything", "cap_reached"])
def test_every_row_is_there_once(session: str, golden_fleet: Fleet) -> None:
    sessions, dataset, _ = golden_fleet
    for table in fleet_tables().values():
        if table.is_stream and table.name != "graph_totals":
            rows = Counter(process for process, _ in csv_rows(sessions / session, table.name))
            files = pl.scan_parquet(dataset / table.name, hive_partitioning=False)
            found = files.filter(pl.col("session").str.starts_with(f"{session}-")).group_by("process").len().collect()
            assert dict(found.iter_rows()) == rows, table.name


def test_cells_are_those_of_the_stream(golden_fleet: Fleet) -> None:
    sessions, dataset, done = golden_fleet
    wanted = {
        (process, int(row["time_ns"])): (int(row["in_use"]), int(row["engine"]), row["limit"] or None)
        for process, row in csv_rows(sessions / "two_engines", "engine_steps")
    }
    frame = pl.read_parquet(dataset / "engine_steps", hive_partitioning=False)
    mine = frame.filter(pl.col("session") == done["two_engines"].key)
    columns = ("process", "time_ns", "in_use", "local_engine", "limit")
    assert {row[:2]: row[2:] for row in mine.select(columns).iter_rows()} == wanted
    assert sorted(mine["engine_number"].unique()) == [0, 1]
    processes = pl.read_parquet(dataset / "processes", hive_partitioning=False).select(
        "process", "session", "to_unix_ns"
    )
    timed = mine.join(processes, on=["session", "process"])
    unix_us = (timed["time_ns"] + timed["to_unix_ns"]) // 1000
    assert unix_us.to_list() == timed["time"].cast(pl.Int64).to_list()


def test_all_files_of_a_table_have_its_types(golden_fleet: Fleet) -> None:
    _, dataset, _ = golden_fleet
    files = files_of(dataset)
    assert len(files) > 300
    for path in files:
        table = fleet_tables()[path.relative_to(dataset).parts[0]]
        assert parquet.read_schema(path).equals(table.schema), path
    assert str(fleet_tables()["engine_steps"].schema.field("time").type) == "timestamp[us, tz=UTC]"


def test_a_column_that_an_older_session_lacks_is_null(golden_fleet: Fleet) -> None:
    _, dataset, done = golden_fleet
    rows = pl.read_parquet(dataset / "health", hive_partitioning=False)
    old = rows.filter(pl.col("session") == done["old_columns"].key)["sampled_ns"]
    assert old.dtype == pl.Int64 and old.null_count() == old.len() > 0


def test_exporting_again_changes_nothing(tmp_path: Path, server: SessionBuilder) -> None:
    dataset = tmp_path / "dataset"
    assert [one.outcome for one in export(dataset, server.path)] == [EXPORTED]
    before = sizes(dataset)
    assert [one.outcome for one in export(dataset, server.path)] == [UNCHANGED]
    assert sizes(dataset) == before
    moved = Path(shutil.copytree(server.path, tmp_path / "elsewhere" / "copy"))
    assert [one.outcome for one in export(dataset, moved)] == [UNCHANGED]


def test_a_session_that_grew_takes_its_own_place(tmp_path: Path, server: SessionBuilder) -> None:
    dataset = tmp_path / "dataset"
    other = add_server(SessionBuilder(tmp_path / "sessions", "session_20251124_170000"))
    export(dataset, server.path, other.path)
    engine = next(server.path.glob("processes/EngineCore*/engine_steps.csv"))
    engine.write_text(engine.read_text() + engine.read_text().splitlines(True)[-1].replace(",2,", ",3,", 1))
    done = {one.path.name: one.outcome for one in export(dataset, server.path.parent)}
    assert done == {server.path.name: REPLACED, other.path.name: UNCHANGED}
    frame = pl.read_parquet(dataset / "engine_steps", hive_partitioning=False)
    assert sorted(frame.group_by("session").len()["len"]) == [2, 3]
    assert len(answer("sessions", on_duckdb(dataset))) == 2


def test_a_file_that_is_no_longer_needed_goes(tmp_path: Path, server: SessionBuilder) -> None:
    dataset = tmp_path / "dataset"
    export(dataset, server.path)
    for stream in server.path.glob("processes/*/kv_evictions.csv"):
        stream.unlink()
    export(dataset, server.path)
    assert pl.read_parquet(dataset / "kv_evictions", hive_partitioning=False).height == 0


@pytest.mark.parametrize("renames", [0, 1, 5])
def test_an_export_that_was_killed_is_made_good(
    tmp_path: Path, server: SessionBuilder, monkeypatch: pytest.MonkeyPatch, renames: int
) -> None:
    dataset = tmp_path / "dataset"
    export(dataset, server.path)
    for stream in server.path.glob("processes/*/kv_evictions.csv"):
        stream.unlink()
    left = [renames]
    replace = os.replace

    def failing(source: Any, target: Any) -> None:
        if str(target).endswith(".parquet"):
            assert parquet.read_metadata(source).num_rows > 0, "what is put in place is whole"
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
        replace(source, target)

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(KeyboardInterrupt):
        export(dataset, server.path)
    monkeypatch.undo()
    for path in files_of(dataset):
        parquet.read_table(path)
    assert [one.outcome for one in export(dataset, server.path)] == [REPLACED]
    manifest = json.loads(next((dataset / RECORDS).glob("*/manifest.json")).read_text())
    own = {str(path.relative_to(dataset)) for path in files_of(dataset) if path.name != "columns.parquet"}
    assert own == set(manifest["files"])
    assert pl.read_parquet(dataset / "kv_evictions", hive_partitioning=False).height == 0
    assert pl.read_parquet(dataset / "engine_steps", hive_partitioning=False).height == 2
    assert not list((dataset / RECORDS).glob("*/staging"))


def test_one_export_of_a_session_at_a_time(tmp_path: Path, server: SessionBuilder) -> None:
    dataset = Dataset.make(tmp_path / "dataset")
    (done,) = export(dataset.path, server.path)
    with dataset.taken(done.key):
        (again,) = export(dataset.path, server.path, again=True)
    assert again.outcome == FAILED and "another export" in again.why


def test_a_bad_session_is_named_and_stops_no_other(
    tmp_path: Path, server: SessionBuilder, capsys: pytest.CaptureFixture[str]
) -> None:
    sessions = server.path.parent
    shutil.copytree(SESSIONS / "old_format", sessions / "a_bad_one")
    shutil.copytree(server.path, sessions / "z_copy")
    assert main(["fleet", "export", str(sessions), "-o", str(tmp_path / "dataset"), "--json"]) == 1
    done = {Path(one["path"]).name: one for one in json.loads(capsys.readouterr().out)}
    assert {name: one["outcome"] for name, one in done.items()} == {
        "a_bad_one": FAILED, server.path.name: EXPORTED, "z_copy": FAILED,
    }  # fmt: skip
    assert "format 1" in done["a_bad_one"]["why"] and "the same session" in done["z_copy"]["why"]


def test_what_a_library_raises_concerns_one_session(
    tmp_path: Path, server: SessionBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = add_server(SessionBuilder(tmp_path / "sessions", "session_20251124_170000"))
    add = Staged.add

    def failing(self: Staged, table: Any, place: Any, frame: pl.DataFrame) -> None:
        if table.name == "kv_evictions" and self.key.startswith(server.path.name):
            raise pl.exceptions.ComputeError("no room\nfor it")
        add(self, table, place, frame)

    monkeypatch.setattr(Staged, "add", failing)
    done = {one.path.name: one for one in export(tmp_path / "dataset", server.path.parent)}
    assert done[server.path.name].outcome == FAILED and done[server.path.name].why == "ComputeError: no room"
    assert done[other.path.name].outcome == EXPORTED
    frame = pl.read_parquet(tmp_path / "dataset" / "engine_steps", hive_partitioning=False)
    assert set(frame["session"]) == {done[other.path.name].key}


def test_a_running_session_waits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    session = golden.alive_in(golden.copy("running", tmp_path))
    words = ["fleet", "export", str(session), "-o", str(tmp_path / "dataset")]
    assert main(words) == 0
    assert f"running: {LEFT_OUT}: it is running" in capsys.readouterr().out
    assert main([*words, "--running"]) == 0
    assert "running: exported" in capsys.readouterr().out
    (row,) = answer("sessions", on_duckdb(tmp_path / "dataset"))
    assert row["state"] == "running" and row["engine_steps"] > 0


def test_a_dry_run_writes_nothing(tmp_path: Path, server: SessionBuilder, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["fleet", "export", str(server.path), "-o", str(tmp_path / "dataset")]
    assert main([*words, "--dry-run"]) == 0
    assert "would be exported" in capsys.readouterr().out and not (tmp_path / "dataset").exists()
    assert main(words) == 0
    before = sizes(tmp_path / "dataset")
    assert main([*words, "--dry-run", "--again"]) == 0
    assert "would be replaced" in capsys.readouterr().out and sizes(tmp_path / "dataset") == before


def test_since(tmp_path: Path, server: SessionBuilder, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["fleet", "export", str(server.path), "-o", str(tmp_path / "dataset"), "--since"]
    assert main([*words, "2025-11-25"]) == 0
    assert "no session has a row since then" in capsys.readouterr().out
    assert main([*words, "2025-11-24"]) == 0
    assert "1 exported" in capsys.readouterr().out


def test_folders_that_are_no_data_set_are_refused(tmp_path: Path, server: SessionBuilder) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("mine")
    with pytest.raises(SessionError, match="not empty"):
        Dataset.make(tmp_path / "full")
    with pytest.raises(SessionError, match="is not a data set"):
        on_duckdb(tmp_path / "full")
    dataset = Dataset.make(tmp_path / "dataset").path
    assert dataset.stat().st_mode & 0o777 == 0o700
    about = json.loads((dataset / ABOUT).read_text())
    (dataset / ABOUT).write_text(json.dumps({**about, "format": 99}))
    with pytest.raises(SessionError, match="format 99"):
        Dataset.make(dataset)


def test_a_manifest_removes_nothing_but_its_own_files(tmp_path: Path, server: SessionBuilder) -> None:
    dataset = tmp_path / "dataset"
    (done,) = export(dataset, server.path)
    (tmp_path / "mine.parquet").write_text("mine")
    manifest = dataset / RECORDS / done.key / "manifest.json"
    record = json.loads(manifest.read_text())
    planted = ["../mine.parquet", str(tmp_path / "mine.parquet"), f"sessions/../../{done.key}-1/../mine.parquet", ABOUT]
    manifest.write_text(json.dumps({**record, "files": planted}))
    export(dataset, server.path, again=True)
    assert (tmp_path / "mine.parquet").read_text() == "mine" and (dataset / ABOUT).is_file()


def test_lost_rows_and_damage_are_in_the_manifest(golden_fleet: Fleet) -> None:
    _, dataset, done = golden_fleet
    capped = Dataset(dataset).manifest(done["cap_reached"].key)
    assert capped["lost_rows"]["engine_steps: size_cap"] == 507 and done["cap_reached"].lost_rows == 1469
    damaged = Dataset(dataset).manifest(done["damaged"].key)
    assert any("left out" in fault for fault in damaged["faults"])
    script = Dataset(dataset).manifest(done["script_names"].key)
    assert "own" in script["not_exported"][0]


HOSTILE = (
    "",
    "0123",
    "1e5",
    "a/b",
    "/models/x",
    "a b",
    "a=b",
    "100%",
    "%41",
    "q'*?[1]",
    'say "hi"',
    "{x}",
    "..",
    ".",
    "~",
)
NOT_ASCII = ("模型", "ä", "x\n", "l" * 300, "%" * 100)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set in a folder with a name that globs; each model has a session."""
    made = tmp_path_factory.mktemp("a [b] 'c' *")
    for number, model in enumerate((*HOSTILE, *NOT_ASCII)):
        session = SessionBuilder(made / "sessions", f"session_20251124_16{number:04}", host="0123")
        engine = session.process("EngineCore", host="0123", engine_config={"model": model})
        engine.rows(kv.STEPS, step(number, 1.0, 3))
    done = export(made / "dataset", made / "sessions")
    assert {one.outcome for one in done} == {EXPORTED}
    return made / "dataset"


def by_reader(dataset: Path) -> Iterator[tuple[str, dict[int, tuple[str | None, str | None]]]]:
    """What readers take the folder's model and host for, by the step's number."""
    table = on_duckdb(dataset)["engine_steps"].select("step", "model", "host").to_pyarrow().to_pylist()
    yield "DuckDB", {row["step"]: (row["model"], row["host"]) for row in table}
    types = {"day": pl.Date, "model": pl.String, "host": pl.String, "engine": pl.Int64}
    folder = Path(os.fsdecode(dataset)) / "engine_steps"
    frame = pl.scan_parquet(folder, hive_schema=types, glob=False).select("step", "model", "host").collect()
    yield "polars", {number: (model, host) for number, model, host in frame.iter_rows()}
    import pyarrow

    schema = pyarrow.schema([("day", "date32"), ("model", "string"), ("host", "string"), ("engine", "int64")])
    partitioning = arrow_dataset.partitioning(schema, flavor="hive")
    read = arrow_dataset.dataset(folder, partitioning=partitioning).to_table(["step", "model", "host"]).to_pylist()
    yield "Arrow", {row["step"]: (row["model"], row["host"]) for row in read}


def test_readers_agree_about_the_folders_names(hostile: Path) -> None:
    wanted = {number: (model or None, "0123") for number, model in enumerate(HOSTILE)}
    for reader, found in by_reader(hostile):
        assert {number: found[number] for number in wanted} == wanted, reader
        others = {number: found[number] for number in found if number not in wanted}
        assert len({model for model, _ in others.values()}) == len(NOT_ASCII), reader
        assert all(model and model.isascii() for model, _ in others.values()), reader


def test_the_exact_names_are_columns(hostile: Path) -> None:
    models = [row["model"] for row in answer("sessions", on_duckdb(hostile))]
    assert Counter(models) == Counter(
        (*(name or "(unknown)" for name in HOSTILE), "模型", "ä", "x?", "l" * 300, "%" * 100)
    )


def test_folders_have_names_that_every_file_system_takes() -> None:
    for name in (*HOSTILE, *NOT_ASCII):
        folder = Place("2026-01-02", name, name, 3).folder
        assert len(folder.parts) == 4 and str(folder).isascii()
        assert all(
            (len(part) < 200 and part.partition("=")[2] not in ("", ".", "..")) or name in (".", "..")
            for part in folder.parts
        )
    assert value_of(None) == value_of("") == NOTHING
    alike = ("ä", "ö", "_", "\n", "l" * 300, "l" * 301)
    assert len({value_of(name) for name in alike}) == len(alike)
    assert value_of("%" * 100).count("%25") * 3 + 9 == len(value_of("%" * 100))


def test_sessions_of_hosts_that_began_in_the_same_second_are_two(tmp_path: Path) -> None:
    paths = []
    for host in ("a", "b"):
        session = SessionBuilder(tmp_path / host, host=host)
        session.process("EngineCore", host=host).rows(kv.STEPS, step(1, 1.0, 3))
        paths.append(session.path)
    assert [one.outcome for one in export(tmp_path / "dataset", *paths)] == [EXPORTED, EXPORTED]
    assert pl.read_parquet(tmp_path / "dataset" / "engine_steps", hive_partitioning=False)["session"].n_unique() == 2


def test_an_engine_that_is_one_of_several_in_a_process_has_a_folder_of_its_own(tmp_path: Path) -> None:
    session = SessionBuilder(tmp_path)
    rows = [step(number, number / 10, 3) | {"engine": number % 2} for number in range(1, 9)]
    session.process("LLM").rows(kv.STEPS, *rows)
    export(tmp_path / "dataset", session.path)
    folders = {
        path.parent.name: parquet.read_metadata(path).num_rows
        for path in files_of(tmp_path / "dataset")
        if "engine_steps" in str(path)
    }
    assert folders == {"engine=0": 4, "engine=1": 4, f"engine={NOTHING}": 0}


def test_a_golden_session_is_named_by_its_record_not_its_folder(tmp_path: Path) -> None:
    session = one_host(golden.copy("server", tmp_path), "renamed")
    (done,) = export(tmp_path / "dataset", session)
    assert done.key.startswith("renamed-") and done.path.name == "server"


def test_a_damaged_file_is_a_sentence(
    tmp_path: Path, server: SessionBuilder, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = tmp_path / "dataset"
    (done,) = export(dataset, server.path)
    path = next(
        path for path in files_of(dataset / ".") if path.name.startswith(done.key) and "engine_steps" in str(path)
    )
    path.write_bytes(path.read_bytes()[:-40])
    assert main(["fleet", "query", "hit_rates", str(dataset)]) == 2
    told = capsys.readouterr().err
    assert told.startswith("profilemate: hit_rates: ") and path.name in told and told.count("\n") == 1
    assert main(["fleet", "query", "graph_ladder", str(dataset)]) == 0
    assert "PIECEWISE" in capsys.readouterr().out
