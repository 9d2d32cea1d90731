"""Exact content of the README's files."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
from sample_rows import DECODE, EAGER, HOOKS, MIXED, add_engine, add_server, add_worker, capture, dispatch, step
from session_builder import SessionBuilder, at

from profilemate.export import readme_files
from profilemate.schema.probe_tables import GAPS
from profilemate.session.session import Session
from profilemate.trackers.cuda_graphs import events as graphs
from profilemate.trackers.forward_passes import events as forwards
from profilemate.trackers.kv_cache import events as kv


def export(session: SessionBuilder) -> SessionBuilder:
    readme_files.write(Session(session.path))
    return session


def test_captures(server: SessionBuilder) -> None:
    assert server.text("cuda_graph_captures.csv") == (
        "runtime_mode,num_tokens,num_reqs,uniform,has_lora,capture_time_sec,duration_sec,graphs,memory_bytes,purpose,"
        "site,num_active_loras,uniform_token_count,max_query_len,num_ubatches,engine\n"
        "PIECEWISE,16,None,False,False,1.000000,0.020000,3,1024,serving,CUDAGraphWrapper,0,,,,0\n"
        "FULL,8,8,True,False,1.250000,0.020000,1,1024,serving,CUDAGraphWrapper,0,,,,0\n"
        "FULL,4,4,True,False,1.500000,0.020000,1,1024,serving,CUDAGraphWrapper,0,,,,0\n"
    )


def test_usage_is_sorted_and_shows_what_was_never_replayed(server: SessionBuilder) -> None:
    assert server.text("cuda_graph_usage.csv") == (
        "runtime_mode,num_tokens,num_reqs,uniform,has_lora,replay_count,pieces,captures,unpadded_tokens,padded_tokens,"
        "host_sec,num_active_loras,uniform_token_count,max_query_len,num_ubatches\n"
        "FULL,8,8,True,False,3,3,1,20,24,0.004500,0,,,\n"
        "PIECEWISE,16,None,False,False,1,3,1,11,16,0.001500,0,,,\n"
        "FULL,4,4,True,False,0,0,1,0,0,0.000000,0,,,\n"
    )


def test_timeline(server: SessionBuilder) -> None:
    assert server.text("cuda_graph_timeline.csv").splitlines()[:3] == [
        "timestamp_sec,runtime_mode,num_tokens,num_reqs,uniform,has_lora,latency_sec,latency_clock,host_sec,"
        "unpadded_tokens,unpadded_reqs,pieces,step,forward,fault,num_active_loras,uniform_token_count,max_query_len,"
        "num_ubatches,engine",
        "2.200000,PIECEWISE,16,None,False,False,0.001500,monotonic,0.001500,11,3,3,2,2,,0,,,,0",
        "2.300000,FULL,8,8,True,False,0.001500,monotonic,0.001500,5,3,1,3,3,,0,,,,0",
    ]
    assert len(server.lines("cuda_graph_timeline.csv")) == 4


def test_kv_usage_has_intervals_one_peak_and_the_last_state(server: SessionBuilder) -> None:
    assert server.text("kv_cache_usage.csv") == (
        "timestamp_sec,usage_pct,num_blocks,total_blocks,kind,engine\n"
        "2.200000,15.0000,30,200,interval,0\n"
        "2.500000,25.0000,50,200,peak,0\n"
        "2.800000,12.5000,25,200,interval,0\n"
        "3.000000,10.0000,20,200,last,0\n"
    )


def test_kv_evictions(server: SessionBuilder) -> None:
    assert server.text("kv_cache_evictions.csv") == (
        "timestamp_sec,lifetime_sec,idle_sec,block_id,cause,engine\n"
        "2.600000,4.000000,2.000000,7,allocation,0\n"
        "2.700000,nan,nan,8,invalidation,0\n"
    )


def test_kv_summary(server: SessionBuilder) -> None:
    text = server.text("kv_cache_summary.txt")
    assert "peak 50 of 200 blocks (25.0 %) at 2.500 s\n" in text
    assert "prefix cache hit rate 25.0 % (100 of 400 tokens)\n" in text
    assert "evictions 2, mean lifetime 3.000 s, mean idle 1.500 s\n" in text
    assert "\npreemptions: 1\n" in text


def test_metadata(server: SessionBuilder) -> None:
    metadata = server.metadata()
    assert metadata["session"]["created"] == "2025-11-24T16:00:00Z"
    assert [process["role"] for process in metadata["processes"]] == ["APIServer", "EngineCore", "Worker"]
    assert metadata["engine_configuration"]["num_gpu_blocks"] == 201
    assert metadata["files"]["cuda_graph_usage.csv"] == 3
    hook = next(hook for hook in metadata["hooks"] if hook["name"] == "BlockPool.touch")
    assert (hook["calls"], hook["failures"], hook["as_of_sec"]) == (12, 0, 2.9)
    health = metadata["summary"]["health"]
    assert health["did_not_fit"] == [{"name": "graph.old", "state": "does_not_fit", "reason": "has no x"}]
    assert health["never_called"] == ["BlockPool.free"]
    graphs_record = metadata["summary"]["cuda_graphs"]
    assert graphs_record["forward_passes"] == {
        "total": 5, "full_graph": 3, "piecewise_graph": 1, "no_graph": 1, "faults": {},
    }  # fmt: skip
    assert (graphs_record["padding_tokens"], graphs_record["padded_tokens"]) == (9, 40)
    assert graphs_record["never_replayed"] == ["FULL 4 tokens, 4 requests, uniform"]


def test_same_streams_same_bytes_private_and_nothing_left(server: SessionBuilder, tmp_path: Path) -> None:
    names = readme_files.file_names(Session(server.path))
    before = {name: server.text(name) for name in names}
    readme_files.write(Session(server.path))
    assert {name: server.text(name) for name in names} == before
    for name in names:
        assert stat.S_IMODE((server.path / name).stat().st_mode) == 0o600
    assert not [path for path in server.path.iterdir() if path.name.endswith(".new")]


def test_every_file_is_there_and_explained_without_processes(session: SessionBuilder) -> None:
    export(session)
    names = readme_files.file_names(Session(session.path))
    for name in names:
        assert (session.path / name).exists()
    notes = session.metadata()["notes"]
    assert len(notes) == len([name for name in names if name.endswith(".csv")]) >= 6
    assert all("no vLLM process was recorded" in note for note in notes)


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"hooks": [{**HOOKS[2], "state": "tracker_off", "reason": "by setting"}]}, "was off by setting"),
        ({"hooks": [HOOKS[2]]}, "did not fit this vLLM: graph.old (has no x)"),
        ({"engine_config": {"enforce_eager": True}}, "captured no CUDA graph for the main model (enforce_eager is on)"),
        ({"engine_config": {"cudagraph_mode": "NONE"}}, "for the main model (cudagraph_mode is NONE)"),
        ({}, "captures.csv is empty: vLLM captured no CUDA graph for the main model"),
    ],
)
def test_an_empty_graph_file_is_explained(session: SessionBuilder, record: dict[str, object], reason: str) -> None:
    session.process("Worker", **record)
    notes = export(session).metadata()["notes"]
    assert reason in next(note for note in notes if note.startswith("cuda_graph_captures.csv"))


def test_tensor_parallel_ranks_are_not_added_up(session: SessionBuilder) -> None:
    for rank in (1, 0):
        add_worker(session, f"Worker_TP{rank}", ranks={"tp": rank, "tp_size": 2, "rank": rank})
    export(session)
    assert session.lines("cuda_graph_usage.csv")[0].startswith("FULL,8,8,True,False,3,")
    assert len(session.lines("cuda_graph_captures.csv")) == 3
    assert session.metadata()["findings"] == []


def test_disagreeing_ranks_are_a_finding_but_a_rank_killed_earlier_is_not(session: SessionBuilder) -> None:
    add_worker(session, "Worker_TP0", ranks={"tp": 0, "tp_size": 3}).rows(graphs.PASSES, dispatch(6, DECODE, 8, 1))
    add_worker(session, "Worker_TP1", ranks={"tp": 1, "tp_size": 3})
    add_worker(session, "Worker_TP2", ranks={"tp": 2, "tp_size": 3}).rows(graphs.PASSES, dispatch(6, EAGER, 8, 0))
    findings = export(session).metadata()["findings"]
    assert findings == [
        "tensor-parallel ranks 0 and 2 of engine 0 disagree: FULL 8 tokens, 8 requests, uniform: 4 and 3 replays"
    ]


def test_the_last_pipeline_stage_is_shown(session: SessionBuilder) -> None:
    add_worker(session, "Worker_PP0", ranks={"pp": 0, "pp_size": 2})
    add_worker(session, "Worker_PP1", ranks={"pp": 1, "pp_size": 2}).rows(
        graphs.PASSES, dispatch(6, DECODE, 8, 1), dispatch(7, DECODE, 8, 1)
    )
    assert ",5,5,1,36,40," in export(session).lines("cuda_graph_usage.csv")[0]


def test_encoder_graphs_come_from_the_first_stage(session: SessionBuilder) -> None:
    row = {"time_ns": at(3), "step": 1, "runtime_mode": "FULL", "num_tokens": 64, "graphs": 1, "site": "x"}
    for stage in (0, 1):
        session.process(f"Worker_PP{stage}", ranks={"pp": stage, "pp_size": 2}).rows(
            graphs.OTHER_REPLAYS, *({**row, "owner": owner} for owner in ("encoder", "drafter"))
        )
    lines = export(session).lines("cuda_graph_other.csv")
    assert [",".join(line.split(",")[:7]) for line in lines] == [
        "FULL,64,None,False,False,1,drafter",
        "FULL,64,None,False,False,1,encoder",
    ]


def test_two_data_parallel_engines(session: SessionBuilder) -> None:
    for rank in (0, 1):
        ranks = {"dp": rank, "dp_size": 2}
        add_engine(session, f"EngineCore_DP{rank}", engine_index=rank)
        add_worker(session, f"Worker_DP{rank}", ranks=ranks, engine_index=rank)
    export(session)
    assert session.lines("cuda_graph_usage.csv")[0].startswith("FULL,8,8,True,False,6,6,2,40,48,")
    assert len(session.lines("cuda_graph_timeline.csv")) == 8
    assert len(session.lines("kv_cache_evictions.csv")) == 4
    assert session.lines("kv_cache_usage.csv") == [
        "2.200000,15.0000,30,200,interval,0",
        "2.200000,15.0000,60,400,interval,1",
        "2.500000,20.0000,80,400,peak,0",
        "2.500000,25.0000,100,400,peak,1",
        "2.800000,18.7500,75,400,interval,0",
        "2.800000,12.5000,50,400,interval,1",
        "3.000000,11.2500,45,400,last,0",
        "3.000000,10.0000,40,400,last,1",
    ]
    kv_record = session.metadata()["summary"]["kv_cache"]
    assert (kv_record["peak_blocks"], kv_record["allocated"], kv_record["evicted"]) == (100, 120, 4)
    assert kv_record["peak_is_exact"] is False


def test_an_engine_that_follows_another_takes_its_place(session: SessionBuilder) -> None:
    add_engine(session)
    later = step(1, 10.0, 5, peak=6, peak_time_ns=at(9.5))
    session.process("EngineCore").rows(kv.STEPS, {**later, "time_ns": at(9.6)}, later)
    lines = export(session).lines("kv_cache_usage.csv")
    assert lines[-1] == "10.000000,2.5000,5,200,last,0"
    assert [line for line in lines if "peak" in line] == ["2.500000,25.0000,50,200,peak,0"]


def test_two_engines_in_one_process(session: SessionBuilder) -> None:
    session.process("EngineCore").rows(kv.STEPS, step(1, 2, 10), step(1, 2.5, 11, engine=1), step(2, 3, 12))
    lines = export(session).lines("kv_cache_usage.csv")
    assert lines[-1].startswith("3.000000,5.7500,23,400,last,0")


def test_totals_stand_for_rows_that_the_size_cap_removed(session: SessionBuilder) -> None:
    worker = session.process("Worker")
    old = {"time_ns": at(2), "through_forward": 5, "owner": "main", **DECODE, "forwards": 4, "replays": 4, "graphs": 4}
    new = {**old, "time_ns": at(3), "through_forward": 100, "forwards": 70, "replays": 70, "graphs": 70, "unpadded_tokens": 500,
           "padded_tokens": 560, "host_ns": 7}  # fmt: skip
    eager = {
        **old,
        "time_ns": at(3),
        "through_forward": 100,
        "runtime_mode": "NONE",
        "forwards": 30,
        "replays": 0,
        "graphs": 0,
    }
    worker.rows(graphs.TOTALS, old, new, eager)
    worker.rows(graphs.PASSES, dispatch(99, DECODE, 8, 1), dispatch(100, DECODE, 8, 1), segment=4)
    worker.rows(graphs.PASSES, dispatch(101, DECODE, 8, 1), dispatch(102, MIXED, 8, 3))
    worker.rows(GAPS, {"time_ns": at(3), "table": "forward_passes", "rows": 98, "reason": "size_cap"})
    export(session)
    assert session.lines("cuda_graph_usage.csv")[0].startswith("FULL,8,8,True,False,71,71,0,508,568,")
    passes = session.metadata()["summary"]["cuda_graphs"]["forward_passes"]
    assert (passes["total"], passes["no_graph"]) == (102, 30)
    assert any("size cap removed the oldest rows of forward_passes" in note for note in session.metadata()["notes"])


def test_a_torn_totals_block_does_not_count(session: SessionBuilder) -> None:
    worker = session.process("Worker")
    block = {
        "time_ns": at(2),
        "through_forward": 2,
        "owner": "main",
        **DECODE,
        "forwards": 2,
        "replays": 2,
        "graphs": 2,
    }
    worker.rows(graphs.TOTALS, block, tail=f"{at(2)},2,main,PIECEW")
    worker.rows(graphs.PASSES, *(dispatch(number, DECODE, 8, 1) for number in (1, 2, 3)))
    assert ",3,3,0," in export(session).lines("cuda_graph_usage.csv")[0]


def test_device_times_replace_host_times(session: SessionBuilder) -> None:
    add_worker(session).rows(forwards.LATENCIES, {"forward": 1, "device_ns": 1}, {"forward": 4, "device_ns": 9_000_000})
    rows = [line.split(",")[6:9] for line in export(session).lines("cuda_graph_timeline.csv")]
    assert rows == [
        ["", "", "0.001500"],
        ["", "", "0.001500"],
        ["0.009000", "cuda_event", "0.001500"],
        ["", "", "0.001500"],
    ]
    assert any("1 of 4 forward passes have it" in note for note in session.metadata()["notes"])


def test_v2_descriptors_say_uniform_and_lora_in_their_own_fields(session: SessionBuilder) -> None:
    graph = {"runtime_mode": "FULL", "num_tokens": 8, "num_reqs": 8, "uniform_token_count": 1, "num_active_loras": 2}
    session.process("Worker").rows(graphs.CAPTURES, capture(1, graph))
    assert export(session).lines("cuda_graph_captures.csv")[0].startswith("FULL,8,8,True,True,1.000000,")


def test_unexplained_replays_are_a_finding(session: SessionBuilder) -> None:
    session.process("Worker").rows(
        graphs.PHASES,
        {"time_ns": at(1), "phase": "serving", "explained": 5, "actual": 5},
        {"time_ns": at(2), "phase": "serving", "explained": 9, "actual": 11},
        {"time_ns": at(2), "phase": "dummy", "explained": 9},
    )
    metadata = export(session).metadata()
    assert metadata["findings"] == ["Worker: 11 graph replays counted at torch in phase serving, 9 explained"]
    phases = {phase["phase"]: phase["unexplained"] for phase in metadata["summary"]["cuda_graphs"]["phases"]}
    assert phases == {"dummy": None, "serving": 2}


def test_a_process_of_another_host_is_aligned_by_wall_clock(session: SessionBuilder) -> None:
    clock = {"wall_ns": 1_764_000_010_000_000_000, "monotonic_ns": 77_000_000_000}
    session.process("Worker", boot_id="another", clock=clock).rows(
        graphs.CAPTURES, {**capture(0, DECODE), "time_ns": 78_000_000_000}
    )
    assert ",11.000000," in export(session).lines("cuda_graph_captures.csv")[0]


def test_formulas_and_separators_do_not_reach_a_spreadsheet(session: SessionBuilder) -> None:
    session.process("Worker").rows(graphs.CAPTURES, capture(1, {**MIXED, "runtime_mode": "=cmd|x!A1"}, site='@a"b'))
    cells = export(session).lines("cuda_graph_captures.csv")[0].split(",")
    assert (cells[0], cells[10]) == ("'=cmd|x!A1", "'@a_b")


def test_an_export_elsewhere_leaves_the_session_alone(session: SessionBuilder, tmp_path: Path) -> None:
    add_server(session)
    readme_files.write(Session(session.path), tmp_path / "out")
    assert sorted(os.listdir(tmp_path / "out")) == sorted(readme_files.file_names(Session(session.path)))
    assert not (session.path / "metadata.json").exists()


def test_files_are_made_again_only_when_the_streams_changed(session: SessionBuilder) -> None:
    engine = add_engine(session)
    assert not readme_files.is_current(Session(session.path))
    export(session)
    assert readme_files.is_current(Session(session.path))
    engine.rows(kv.STEPS, step(3, 4.0, 21))
    assert not readme_files.is_current(Session(session.path))
    record = readme_files.current_metadata(Session(session.path))
    assert record["summary"]["kv_cache"]["steps"] == 3
    (session.path / "cuda_graph_other.csv").unlink()
    assert not readme_files.is_current(Session(session.path))


def test_a_folder_that_cannot_be_written_still_has_a_summary(
    session: SessionBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_server(session)

    def refuse(session: Session, output: Path | None = None) -> dict[str, object]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(readme_files, "write", refuse)
    record = readme_files.current_metadata(Session(session.path))
    assert record["summary"]["kv_cache"]["steps"] == 2
    assert "the files of this session could not be written: Permission denied" in record["notes"]
    assert json.dumps(record)
