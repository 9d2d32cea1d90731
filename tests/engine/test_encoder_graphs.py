"""Items that replayed an encoder graph and items that did not, on both runners: the manager is real, the driver a stand-in."""

from __future__ import annotations

import json
from pathlib import Path

import environment
import pytest
import streams
import warm

ENGINE = environment.ROOT / "tests" / "engine"
EXPECTED = [
    # items, tokens, requests, modality, hits, misses of the steps that encode
    ("2", "7", "2", "image", "2", "0"),
    ("1", "17", "1", "image", "0", "1"),
    ("3", "25", "2", "audio+image", "1", "1"),
    ("1", "6", "1", "audio", "", ""),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encoder_graphs")
    env = environment.profiled(
        folder, environment.STANDIN, STANDIN_GRAPHS="1", STANDIN_GRAPHS_LOG=str(folder / "truth"),
        VLLM_ENABLE_V1_MULTIPROCESSING="0",
    )  # fmt: skip
    done = warm.run([str(ENGINE / "drive_encoder_graphs.py"), str(folder / "counted.json")], env=env, cwd=folder)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def passes(folder: Path, kind: str) -> list[dict[str, str]]:
    rows = streams.all_rows(streams.only_session(folder), "encoder_passes")
    return rows[: len(EXPECTED)] if kind == "V1" else rows[len(EXPECTED) :]


@pytest.mark.parametrize("kind", ["V1", "V2"])
def test_hits_and_misses_are_the_managers_own(folder: Path, kind: str) -> None:
    names = ("items", "tokens", "requests", "modality", "graph_hits", "graph_misses")
    assert [tuple(row[name] for name in names) for row in passes(folder, kind)] == EXPECTED
    counted = json.loads((folder / "counted.json").read_text())[kind]
    told = [[int(row["graph_hits"] or 0), int(row["graph_misses"] or 0)] for row in passes(folder, kind)]
    assert told == counted[: len(EXPECTED)] and not any(map(sum, counted[len(EXPECTED) :]))


@pytest.mark.parametrize("kind", ["V1", "V2"])
def test_a_pass_without_a_forward_pass_has_its_row(folder: Path, kind: str) -> None:
    """The second step of each runner; the ids of steps go on from one runner to the other."""
    steps = [int(row["step"]) for row in passes(folder, kind)]
    assert steps == ([1, 2, 3, 4] if kind == "V1" else [7, 8, 9, 10])
    forwards = {int(row["step"]) for row in streams.all_rows(streams.only_session(folder), "forward_passes")}
    assert forwards == {1, 3, 4, 5, 6, 7, 9, 10, 11, 12}


def test_rows_are_written_with_their_pass(folder: Path) -> None:
    written = json.loads((folder / "counted.json").read_text())["written"]
    assert written == [1, 2, 3, 4, 4, 4, 5, 6, 7, 8, 8, 8]


def test_the_profile_is_not_counted(folder: Path) -> None:
    rows = streams.all_rows(streams.only_session(folder), "encoder_passes")
    assert len(rows) == 2 * len(EXPECTED)
    assert int(rows[-1]["graph_hits_so_far"]) == 6 and int(rows[-1]["graph_misses_so_far"]) == 4
    replays = [line for line in (folder / "truth").read_text().splitlines() if line.split()[1] == "replay"]
    assert len(replays) == 6, "two in each runner's serving steps, one in each profile"


def test_the_summary_tells_of_the_graphs(folder: Path) -> None:
    session = streams.only_session(folder)
    streams.export(session)
    told = json.loads((session / "encoder_decoder_summary.json").read_text())
    assert (told["encoder"]["graph_hits"], told["encoder"]["graph_misses"]) == (6, 4)
    assert told["encoder"]["count"] == 8 and told["decoder"]["count"] == 10
    metadata = json.loads((session / "metadata.json").read_text())
    assert metadata["summary"]["health"]["failed"] == []
