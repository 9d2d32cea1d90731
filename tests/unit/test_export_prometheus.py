"""Prometheus text: names, labels, timestamps, thinning."""

from __future__ import annotations

import builtins
from typing import Any

import pytest
from sample_rows import DECODE, add_engine, add_server, dispatch, step
from session_builder import SessionBuilder, at

from profilemate.export import prometheus
from profilemate.session.errors import SessionError
from profilemate.session.session import Session
from profilemate.trackers.cuda_graphs import events as graphs
from profilemate.trackers.kv_cache import events as kv


def samples(text: str, name: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(f"profilemate:{name}{{")]


def test_samples_carry_time_in_milliseconds_and_escaped_labels(session: SessionBuilder) -> None:
    pytest.importorskip("prometheus_client")
    add_server(session)
    text = prometheus.render(Session(session.path))
    labels = 'engine="0",model_name="a\\"b",session="session_20251124_160000"'
    assert samples(text, "kv_cache_usage") == [
        f"profilemate:kv_cache_usage{{{labels}}} 0.2 1764000002400",
        f"profilemate:kv_cache_usage{{{labels}}} 0.1 1764000003000",
    ]
    assert "# TYPE profilemate:graph_replays_total counter" in text
    assert "# HELP profilemate:kv_cache_usage KV cache usage, 1 is full.\n" in text
    last = [line for line in samples(text, "graph_replays_total") if 'runtime_mode="FULL"' in line][-1]
    assert last.endswith("} 3.0 1764000002500")


def test_it_can_be_parsed_again(session: SessionBuilder) -> None:
    parser = pytest.importorskip("prometheus_client.parser")
    add_server(session)
    families = list(parser.text_string_to_metric_families(prometheus.render(Session(session.path))))
    assert {"profilemate:kv_cache_usage", "profilemate:forward_passes"} <= {family.name for family in families}


def test_many_rows_are_thinned_to_one_a_second_and_the_last(session: SessionBuilder) -> None:
    pytest.importorskip("prometheus_client")
    session.process("EngineCore").rows(kv.STEPS, *(step(number, number / 100, 1) for number in range(1, 250)))
    found = samples(prometheus.render(Session(session.path)), "engine_steps_total")
    assert [line.split()[1] for line in found] == ["1.0", "101.0", "201.0", "249.0"]


def test_totals_come_first_where_old_rows_are_gone(session: SessionBuilder) -> None:
    pytest.importorskip("prometheus_client")
    block = {
        "time_ns": at(3),
        "through_forward": 50,
        "owner": "main",
        **DECODE,
        "forwards": 40,
        "replays": 40,
        "graphs": 40,
    }
    session.process("Worker").rows(graphs.TOTALS, block).rows(
        graphs.PASSES, dispatch(50, DECODE, 8, 1), dispatch(51, DECODE, 8, 1)
    )
    text = prometheus.render(Session(session.path))
    assert [line.split()[1] for line in samples(text, "forward_passes_total")] == ["50.0", "51.0"]
    full = [line for line in samples(text, "graph_replays_total") if "FULL" in line]
    assert [line.split()[1] for line in full] == ["40.0", "41.0"]


def test_without_the_library_one_sentence_says_what_to_install(
    session: SessionBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_engine(session)
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("prometheus_client"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(SessionError, match="pip install prometheus_client"):
        prometheus.render(Session(session.path))
