"""MoE routing read from streams written by hand: whose rows count, sums, what is said of what was not seen."""

from __future__ import annotations

import json
from typing import Any

import pytest
from session_builder import ProcessBuilder, SessionBuilder, at

from profilemate.export import readme_files
from profilemate.session.session import Session
from profilemate.trackers.moe_routing import events

ON = {"settings": {"trackers": ["moe_routing"]}}


def moe_layer(idx: int | None, unseen: str = "", **more: Any) -> dict[str, Any]:
    return {
        "time_ns": at(1), "model": 0, "layer_idx": idx, "router": "R", "num_experts": 4, "top_k": 2, "unseen": unseen,
        "pairs": "off", **more,
    }  # fmt: skip


def row(seconds: float, idx: int, counts: str, tokens: int, outside: int = 0) -> dict[str, Any]:
    return {
        "time_ns": at(seconds), "model": 0, "layer_idx": idx, "passes": 1, "tokens": tokens, "outside": outside,
        "counts": counts,
    }  # fmt: skip


def worker(session: SessionBuilder, *rows: dict[str, Any], layers: Any = None, **ranks: int) -> ProcessBuilder:
    process = session.process("Worker", ranks=ranks, **ON)
    process.rows(events.LAYERS, *(layers or [moe_layer(3)]))
    return process.rows(events.COUNTS, *rows) if rows else process


@pytest.fixture
def session(tmp_path: Any) -> SessionBuilder:
    return SessionBuilder(tmp_path, **ON)


def exported(session: SessionBuilder) -> SessionBuilder:
    readme_files.write(Session(session.path))
    return session


def notes(session: SessionBuilder) -> list[str]:
    return [note for note in session.metadata()["notes"] if note.startswith("MoE") or "moe_" in note]


def test_the_newest_row_of_a_layer_is_its_total(session: SessionBuilder) -> None:
    worker(session, row(2, 3, "1 1 0 0", 1), row(3, 3, "4 2 1 1", 4), rank=5)
    assert exported(session).lines("moe_expert_activations.csv") == [
        "3,0,4,50.0000,0,5", "3,1,2,25.0000,0,5", "3,2,1,12.5000,0,5", "3,3,1,12.5000,0,5",
    ]  # fmt: skip
    assert not [note for note in notes(session) if "choices were seen" in note]


def test_imbalance_is_of_what_came_since_the_row_before(session: SessionBuilder) -> None:
    worker(session, row(2, 3, "1 1 0 0", 1), row(3, 3, "1 1 0 0", 1), row(4, 3, "4 2 1 1", 4))
    assert exported(session).lines("moe_load_imbalance.csv") == [
        "3,2.000000,0.500000,inf,2.000000,1,0,0",
        "3,4.000000,0.866025,3.000000,2.000000,3,0,0",
    ]


def test_tensor_parallel_ranks_count_once_stages_and_engines_all(session: SessionBuilder) -> None:
    worker(session, row(2, 3, "1 0 0 1", 1), tp=0, rank=0)
    worker(session, row(2, 3, "9 9 9 9", 18), tp=1, rank=1)
    worker(session, row(2, 7, "0 1 1 0", 1), layers=[moe_layer(7)], pp=1, rank=2)
    worker(session, row(2, 3, "2 0 2 0", 2), dp=1, rank=3)
    rows = exported(session).lines("moe_expert_activations.csv")
    assert [line for line in rows if line.startswith("3,0,")] == ["3,0,1,50.0000,0,0", "3,0,2,50.0000,1,3"]
    assert [line for line in rows if line.startswith("7,")][1] == "7,1,1,50.0000,0,2" and len(rows) == 12
    summary = json.loads(session.text("moe_summary.json"))
    assert summary["layer_3"]["total_activations"] == 6 and summary["layer_3"]["engines"] == 2
    assert summary["layer_3"]["tokens"] == 3 and summary["layer_7"]["tokens"] == 1


def test_pairs_are_those_of_both_orders(session: SessionBuilder) -> None:
    def pair(expert: int, counts: str, seconds: float = 2) -> dict[str, Any]:
        return {
            "time_ns": at(seconds), "model": 0, "layer_idx": 3, "tokens": 9, "expert_id": expert, "counts": counts,
        }  # fmt: skip

    worker(session).rows(
        events.PAIRS, pair(0, "0 1 0 0"), pair(0, "0 2 0 1", 3), pair(1, "3 0 0 0"), pair(2, "0 0 0 4")
    )
    assert exported(session).lines("moe_expert_coselection.csv") == ["3,0,1,5,0,0", "3,0,3,1,0,0", "3,2,3,4,0,0"]


def test_choices_that_nobody_saw_are_said(session: SessionBuilder) -> None:
    worker(session, row(2, 3, "4 2 0 0", 5, outside=1))
    assert "MoE routing, engine 0, layer 3: 7 of 10 choices were seen (70.0 %)" in notes(exported(session))
    told = json.loads(session.text("moe_summary.json"))["layer_3"]
    assert (told["seen_pct"], told["outside_activations"], told["load_balance_ratio"]) == (70.0, 1, None)


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("traced", "MoE routing was not seen in 1 MoE layers (R): torch.compile traces the router's Python"),
        ("monolithic", "MoE routing was not seen in 1 MoE layers (R): a monolithic kernel routes inside itself"),
    ],
)
def test_a_layer_that_is_not_seen_says_why(session: SessionBuilder, word: str, says: str) -> None:
    worker(session, row(2, 3, "", 5), layers=[moe_layer(3, word)])
    assert any(note.startswith(says) for note in notes(exported(session)))
    assert session.lines("moe_expert_activations.csv") == session.lines("moe_load_imbalance.csv") == []
    assert session.text("moe_summary.json") == "{}\n"


def test_a_dense_model_explains_its_empty_files(session: SessionBuilder) -> None:
    session.process("Worker", **ON)
    assert notes(exported(session)) == [
        "moe_expert_activations.csv is empty: no choice of an MoE router was counted",
        "moe_expert_coselection.csv is empty: pairs of experts are only counted with PROFILEMATE_MOE_COSELECTION=1, "
        "or none were chosen",
        "moe_load_imbalance.csv is empty: no choice of an MoE router was counted",
        "MoE routing: no model with MoE layers was loaded",
    ]


def test_damaged_cells_are_left_out(session: SessionBuilder) -> None:
    worker(session, row(2, 3, "1 1 0 0", 1), row(3, 3, "1 x 0 0", 1), row(4, 3, "1 " + "9" * 30 + " 0 0", 1))
    assert exported(session).lines("moe_expert_activations.csv")[0] == "3,0,1,50.0000,0,0"


def test_a_session_without_the_tracker_has_none_of_its_files(tmp_path: Any) -> None:
    session = SessionBuilder(tmp_path)
    session.process("Worker")
    readme_files.write(Session(session.path))
    assert not list(session.path.glob("moe_*"))
