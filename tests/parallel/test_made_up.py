"""What no healthy engine does, as sessions made up by hand: ranks that disagree, engines that are idle, nodes that are late."""

from __future__ import annotations

from pathlib import Path

import parallel_runs as runs
import pytest
from sample_rows import DECODE, EAGER, add_worker, dispatch, step
from session_builder import SessionBuilder, at

from profilemate.cli.main import main
from profilemate.export import readme_files
from profilemate.session.session import Session
from profilemate.trackers.cuda_graphs import events as graphs
from profilemate.trackers.kv_cache import events as kv


@pytest.fixture
def session(tmp_path: Path) -> SessionBuilder:
    return SessionBuilder(tmp_path)


def findings(session: SessionBuilder) -> list[str]:
    readme_files.write(Session(session.path))
    return list(session.metadata()["findings"])


def test_ranks_that_disagree_on_a_pass_without_a_graph_are_a_finding(
    session: SessionBuilder, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same step with other tokens: no graph tells of it, and the files show rank 0 alone."""
    for rank, tokens in enumerate((90, 91)):
        row = dispatch(6, {**EAGER, "num_tokens": tokens}, tokens, 0)
        add_worker(session, f"Worker_TP{rank}", ranks={"tp": rank, "tp_size": 2}).rows(graphs.PASSES, row)
    found = "tensor-parallel ranks 0 and 1 of engine 0 disagree: NONE 90 tokens: 1 and 0 passes; NONE 91 tokens: 0 and 1 passes"
    assert findings(session) == [found]
    assert main(["summary", str(session.path)]) == 0
    assert found in capsys.readouterr().out


def test_a_rank_that_ended_earlier_disagrees_with_nobody(session: SessionBuilder) -> None:
    add_worker(session, "Worker_TP0", ranks={"tp": 0, "tp_size": 2}).rows(
        graphs.PASSES, dispatch(6, EAGER, 100, 0), dispatch(7, DECODE, 8, 1)
    )
    add_worker(session, "Worker_TP1", ranks={"tp": 1, "tp_size": 2})
    assert findings(session) == []


@pytest.mark.parametrize("ranks", [{"pp": 1, "pp_size": 2}, {"dp": 1}])
def test_stages_and_engines_are_no_ranks_that_must_agree(session: SessionBuilder, ranks: dict[str, int]) -> None:
    add_worker(session, "Worker_0")
    add_worker(session, "Worker_1", ranks=ranks).rows(graphs.PASSES, dispatch(6, DECODE, 8, 1))
    assert findings(session) == []


def engine(session: SessionBuilder, number: int, began: float, seconds: float, in_use: int) -> None:
    """One engine core, whose process began at a second, with a single step at another."""
    row = step(1, seconds, in_use, peak=in_use, peak_time_ns=at(seconds))
    session.process(f"EngineCore_DP{number}", engine_index=number, cost={"began_ns": at(began)}).rows(kv.STEPS, row)


def usage(session: SessionBuilder) -> list[tuple[str, str, str, str]]:
    readme_files.write(Session(session.path))
    columns = ("usage_pct", "num_blocks", "total_blocks", "engine")
    return [tuple(row[name] for name in columns) for row in runs.table(session.path, "kv_cache_usage.csv")]  # type: ignore[misc]


def test_an_engine_without_work_yet_has_its_cache_all_the_same(session: SessionBuilder) -> None:
    """Half of the blocks of two engines are in use when one is full and the other idle; not all of those of one."""
    engine(session, 0, 0.1, 5, 100)
    engine(session, 1, 0.1, 8, 30)
    assert usage(session)[0] == ("25.0000", "100", "400", "0")
    assert usage(session)[-1] == ("32.5000", "130", "400", "1")


def test_an_engine_that_begins_later_adds_its_cache_from_then_on(session: SessionBuilder) -> None:
    engine(session, 0, 0.1, 5, 100)
    engine(session, 1, 6, 8, 30)
    assert [row[2] for row in usage(session)] == ["200", "200", "400", "400"]


def test_an_engine_that_takes_over_a_number_replaces_the_one_before_at_its_first_row(session: SessionBuilder) -> None:
    """A restarted engine: until it has a row, what was last known of its number holds."""
    engine(session, 0, 0.1, 5, 100)
    engine(session, 1, 0.1, 8, 30)
    row = step(1, 9, 40, peak=40, peak_time_ns=at(9))
    session.process("EngineCore_again", engine_index=0, cost={"began_ns": at(7)}).rows(kv.STEPS, row)
    assert [row[1:] for row in usage(session)] == [
        ("100", "400", "0"), ("100", "400", "0"), ("130", "400", "1"), ("130", "400", "1"), ("70", "400", "0"),
    ]  # fmt: skip


def host(folder: Path, secret: str, *workers: int, has_scheduler: bool = False) -> SessionBuilder:
    """The session that a host recorded of an engine: the workers of these tensor-parallel ranks."""
    built = SessionBuilder(folder)
    if has_scheduler:
        built.process("EngineCore", secret_id=secret).rows(kv.STEPS, step(1, 5, 10))
    for rank in workers:
        add_worker(built, f"Worker_TP{rank}", ranks={"tp": rank, "tp_size": 2}, secret_id=secret, engine_index=None)
    return built


@pytest.mark.parametrize(
    ("secret", "has_scheduler", "engines"),
    [("one", False, {0}), ("other", False, {0, 1}), ("one", True, {0, 1}), ("", False, {0, 1})],
    ids=["ray-worker-on-another-host", "another-server", "another-engine", "unknown"],
)
def test_workers_that_a_driver_started_on_another_host_stay_in_its_engine(
    secret: str, has_scheduler: bool, engines: set[int], tmp_path: Path
) -> None:
    """The secret that the driver handed on tells that they are one engine; with another one they are another server's."""
    first = host(tmp_path / "a", "one", 0, has_scheduler=True)
    second = host(tmp_path / "b", secret, 1, has_scheduler=has_scheduler)
    both = tmp_path / "both"
    assert main(["merge", str(first.path), str(second.path), "-o", str(both)]) == 0
    assert {runs.ranks(both, name).get("dp", 0) for name in ("Worker_TP0", "Worker_TP1")} == engines
    assert main(["export", str(both)]) == 0
    replays = sum(int(row["replay_count"]) for row in runs.table(both, "cuda_graph_usage.csv"))
    assert replays == 4 * len(engines)
