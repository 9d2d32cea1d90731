"""The row of a forward pass: cells from a SchedulerOutput, and contributors that fail."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from profilemate.probe import phase
from profilemate.probe.process import THIS
from profilemate.probe.shared_row import SharedRow
from profilemate.probe.stream import Stream
from profilemate.schema.pass_table import BASE, pass_table
from profilemate.trackers.forward_passes import events, hooks, recorder, runners


def scheduled(cached: dict[str, tuple[int, int]], new: dict[str, int] | None = None) -> Any:
    """A SchedulerOutput: scheduled tokens and output tokens of cached requests, scheduled tokens of new ones."""
    tokens = {**{name: count for name, (count, _) in cached.items()}, **(new or {})}
    return SimpleNamespace(
        num_scheduled_tokens=tokens,
        total_num_scheduled_tokens=sum(tokens.values()),
        scheduled_new_reqs=[SimpleNamespace(req_id=name) for name in new or {}],
        scheduled_cached_reqs=SimpleNamespace(
            req_ids=list(cached), num_output_tokens=[outputs for _, outputs in cached.values()]
        ),
    )


@pytest.fixture
def forward(monkeypatch: pytest.MonkeyPatch) -> recorder.Forward:
    """A fresh recorder to which nobody contributes."""
    made = recorder.Forward()
    monkeypatch.setattr(recorder, "PASSES", SharedRow(Stream(BASE)))
    for module in (recorder, hooks, runners):
        monkeypatch.setattr(module, "FORWARD", made)
    monkeypatch.setattr(hooks, "COUNTED", hooks.Totals())
    monkeypatch.setattr(THIS, "warnings", [])
    monkeypatch.setattr(THIS, "flush_step", lambda *arguments: None)
    return made


def run_pass(output: Any) -> None:
    """A pass as a V1 runner makes it."""
    began_ns = runners.execute_begins(output)
    batch = SimpleNamespace(num_tokens=8)
    runners.v1_dispatched(("NONE", batch), output.total_num_scheduled_tokens, len(output.num_scheduled_tokens))
    recorder.FORWARD.begin()
    recorder.FORWARD.end()
    runners.execute_ends(began_ns, None, output)


def rows() -> list[dict[str, str]]:
    """Rows so far."""
    stream = recorder.PASSES.stream
    return [
        dict(zip(stream.table.columns, str(text).rstrip("\n").replace("None", "").split(","), strict=True))
        for text in stream.pending
    ]


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (scheduled({"a": (1, 3), "b": (1, 1)}), "decode,2,2,0,0"),
        (scheduled({"a": (4, 3), "b": (1, 1)}), "decode,2,5,0,0"),  # drafts
        (scheduled({"a": (256, 0)}), "prefill,1,256,1,256"),  # a further chunk
        (scheduled({"a": (1, 0), "b": (1, 1)}), "mixed,2,2,1,1"),  # a chunk of one token is no decode
        (scheduled({}, {"c": 1}), "prefill,1,1,1,1"),
        (scheduled({"a": (1, 3)}, {"c": 7}), "mixed,2,8,1,7"),
        (scheduled({"a": (30, 0), "b": (1, 9)}, {"c": 7}), "mixed,3,38,2,37"),
    ],
)
def test_phase_and_sizes(forward: recorder.Forward, output: Any, expected: str) -> None:
    assert hooks.pass_cells(output).startswith(expected + ",")


def test_without_output_tokens_the_phase_is_not_known(forward: recorder.Forward) -> None:
    """As with vLLM 0.11."""
    output = scheduled({"a": (1, 3), "b": (9, 0)})
    del output.scheduled_cached_reqs.num_output_tokens
    assert hooks.pass_cells(output).startswith(",2,10,,,")
    assert hooks.COUNTED.by_phase() == {"": [1, 2, 10, 0]}


def test_totals_by_phase_are_those_of_the_rows(forward: recorder.Forward) -> None:
    recorder.contribute(events.PASSES, hooks.pass_cells)
    decode, mixed, prefill = scheduled({"a": (1, 3)}), scheduled({"a": (1, 3)}, {"c": 7}), scheduled({}, {"c": 5})
    for output in (prefill, mixed, decode, decode, mixed, decode):
        run_pass(output)
    sums: dict[str, list[int]] = {}
    for row in rows():
        total = sums.setdefault(row["phase"], [0, 0, 0, 0])
        for place, value in enumerate((1, row["requests"], row["tokens"], row["context_tokens"])):
            total[place] += int(value)
    assert hooks.COUNTED.by_phase() == sums
    assert sums["decode"] == [3, 3, 3, 0] and sums["mixed"] == [2, 4, 16, 14]


def test_runs_of_vllms_own_make_no_row(forward: recorder.Forward) -> None:
    recorder.contribute(events.PASSES, hooks.pass_cells)
    depth = phase.enter("warm_up")
    run_pass(scheduled({"a": (1, 3)}))
    runners.sample_ends(runners.sample_begins(), None)
    phase.leave(depth)
    assert rows() == [] and (forward.step, forward.number) == (0, 0)
    run_pass(scheduled({"a": (1, 3)}))
    assert [(row["step"], row["forward"], row["sample_ns"]) for row in rows()] == [("1", "1", "")]


def test_a_step_without_a_pass_and_a_pass_that_raised_make_no_row(forward: recorder.Forward) -> None:
    output = scheduled({"a": (1, 3)})
    runners.execute_ends(runners.execute_begins(output), None, output)
    runners.execute_begins(output)
    runners.v1_dispatched(("NONE", SimpleNamespace(num_tokens=8)), 1, 1)  # and then the model raises
    runners.execute_ends(runners.execute_begins(output), None, output)
    run_pass(output)
    assert [(row["step"], row["forward"]) for row in rows()] == [("4", "1")]


def test_sample_tokens_stands_in_the_next_row_and_nowhere_else(forward: recorder.Forward) -> None:
    recorder.contribute(events.PASSES, hooks.pass_cells)
    output = scheduled({"a": (1, 3)})
    run_pass(output)
    runners.sample_ends(runners.sample_begins(), None)
    for _ in range(2):
        run_pass(output)
    assert [bool(row["sample_ns"]) for row in rows()] == [False, True, False]


def test_who_fails_leaves_its_own_cells_empty_and_is_out_after_five(forward: recorder.Forward) -> None:
    asked = []

    def fails(output: Any) -> str:
        asked.append(output)
        raise KeyError("no such request")

    recorder.contribute(pass_table("", "x", ("x", "int", ""), ("y", "int", "")), fails)
    recorder.contribute(events.PASSES, hooks.pass_cells)
    for _ in range(8):
        run_pass(scheduled({"a": (1, 3)}))
    assert [(row["x"], row["y"], row["phase"], row["tokens"]) for row in rows()] == [("", "", "decode", "1")] * 8
    assert len(asked) == 5
    assert [word in warning for warning, word in zip(THIS.warnings, ("KeyError", "switched off"), strict=True)] == [
        True
    ] * 2


@pytest.mark.parametrize(("mode", "chosen"), [("FULL", SimpleNamespace(num_tokens=8)), ("NONE", None)])
def test_a_runner_that_dispatches_a_descriptor_alone_has_whole_rows(
    forward: recorder.Forward, mode: str, chosen: Any
) -> None:
    """VLLM 0.11: tokens and requests are the batch's, the pass lasts from its dispatch to the end of execute_model."""
    output = scheduled({"a": (1, 3), "b": (2, 1)})
    began_ns = runners.execute_begins(output)
    runners.v1_descriptor_dispatched((mode, chosen), SimpleNamespace(num_tokens=4))
    assert forward.running and forward.descriptor[:2] == (mode, chosen.num_tokens if chosen else 4)
    forward.graphs += mode == "FULL"
    runners.execute_ends(began_ns, None, output)
    (row,) = rows()
    assert row["runtime_mode"] == mode and int(row["host_ns"]) > 0
    assert (forward.unpadded_tokens, forward.unpadded_reqs) == (3, 2)


def test_dispatches_of_vllms_own_runs_are_no_passes(forward: recorder.Forward) -> None:
    depth = phase.enter("capture")
    runners.v1_descriptor_dispatched(("FULL", SimpleNamespace(num_tokens=8)), None)
    phase.leave(depth)
    assert not forward.pending and forward.descriptor == ()
