"""Which hook fits which vLLM version, by recorded signatures: every version without a download."""

from __future__ import annotations

import importlib.util
import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import environment
import pytest

from profilemate.cli.checks.vllm import CHECKED, release

TOOLS = environment.ROOT / "tools"
COMPAT = TOOLS / "compat"
MISSED = {
    "0.11.0": {"worker.device", "v1_runner.dispatch"},
    **{version: {"graph_manager.run_fullgraph"} for version in ("0.12.0", "0.13.0", "0.14.1", "0.16.0")},
}
"""Hooks that every version is expected to have and these lack; V2_BEGAN has those of a runner that was not finished then."""

V2_HOOKS = {
    "v2_runner.execute_model",
    "v2_runner.dispatch",
    "graph_manager.run_fullgraph",
    "graph_manager.capture",
    "v2_runner.moe_pass",
}
WITHOUT_V2 = {
    "0.11.0": V2_HOOKS,
    **{version: {"v2_runner.dispatch"} for version in ("0.12.0", "0.13.0", "0.14.1", "0.16.0", "0.18.1")},
}


@pytest.fixture(scope="module")
def compat() -> dict[str, Any]:
    """The modules of compat/ by name."""
    sys.path.insert(0, str(TOOLS))
    try:
        return {name: import_module(f"compat.{name}") for name in ("versions", "signatures", "check", "record", "page")}
    finally:
        sys.path.remove(str(TOOLS))


def recorded() -> dict[str, Any]:
    return dict(json.loads((COMPAT / "signatures.json").read_text()))


VERSIONS = list(recorded())


def test_every_version_is_recorded(compat: dict[str, Any]) -> None:
    assert tuple(VERSIONS) == compat["versions"].VERSIONS and len(VERSIONS) == 15


def test_doctor_knows_the_oldest_and_the_newest() -> None:
    assert (release(VERSIONS[0]), release(VERSIONS[-1])) == CHECKED


@pytest.mark.parametrize("version", VERSIONS)
def test_hooks_fit_or_are_rightly_not_there(version: str, compat: dict[str, Any]) -> None:
    check, signatures = compat["check"], recorded()[version]
    losses = {
        hook.name: reason
        for hook in check.vllm_hooks()
        for state, reason in [check.static_fit(hook, signatures)]
        if check.is_loss(hook, state)
    }
    assert set(losses) == MISSED.get(version, set()) | WITHOUT_V2.get(version, set()), losses
    assert all(reason.startswith("absent") for reason in losses.values())


def test_what_is_recorded_of_the_installed_version_is_what_it_has(compat: dict[str, Any]) -> None:
    versions = compat["versions"]
    if importlib.util.find_spec("vllm") is None:
        pytest.skip("vLLM is not installed here")
    found = compat["signatures"].read_version(versions.installed_files(), compat["check"].targets())
    assert found == recorded()[versions.installed()]
    assert len(found) > 90


def test_the_page_is_what_the_records_say(compat: dict[str, Any]) -> None:
    record = compat["record"]
    text = compat["page"].render(recorded(), record.load(record.DRIVEN))
    assert record.PAGE.read_text() == text
    assert "differs" not in text and text.count("equals the truth") == len(VERSIONS)


@pytest.mark.parametrize(
    ("source", "state"),
    [
        ("class Scheduler:\n    def schedule(self): ...", "works"),
        ("class Scheduler:\n    def schedule(me, *more, throttle=3): ...", "works"),
        ("class Scheduler:\n    async def schedule(self): ...", "does not fit"),
        ("class Scheduler:\n    def schedule(self):\n        yield 1", "does not fit"),
        ("class Scheduler:\n    @property\n    def schedule(self): ...", "does not fit"),
        ("class Scheduler:\n    @staticmethod\n    def schedule(): ...", "does not fit"),
        ("class Base:\n    def schedule(self): ...\nclass Scheduler(Base): ...", "not in this version"),
        ("class Scheduler:\n    def schedule_all(self): ...", "not in this version"),
        (
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from elsewhere import Scheduler",
            "not in this version",
        ),
        ("try:\n    from .other import Planner as Scheduler\nexcept ImportError: ...", "works"),
    ],
)
def test_source_texts_are_read_as_python_would_run_them(
    source: str, state: str, tmp_path: Path, compat: dict[str, Any]
) -> None:
    folder = tmp_path / "vllm" / "v1" / "core" / "sched"
    folder.mkdir(parents=True)
    (folder / "scheduler.py").write_text(source)
    (folder / "other.py").write_text("class Planner:\n    def schedule(self, *, fast=False): ...")
    check = compat["check"]
    hook = next(hook for hook in check.vllm_hooks() if hook.name == "scheduler.step_scheduling")
    found = compat["signatures"].read_version(tmp_path, [(hook.module, hook.target)])
    assert check.static_fit(hook, found)[0] == state


def test_a_parameter_that_a_handler_needs_and_a_version_lacks_is_named(compat: dict[str, Any]) -> None:
    check = compat["check"]
    hook = next(hook for hook in check.vllm_hooks() if hook.name == "scheduler.step_updating")
    found = {f"{hook.module}:{hook.target}": {"takes": "self, batch", "kind": "function"}}
    state, reason = check.static_fit(hook, found)
    assert state == "does not fit" and reason.endswith("has no parameter scheduler_output")


def test_counts_that_differ_are_said(compat: dict[str, Any], tmp_path: Path) -> None:
    check = compat["check"]
    row = {name: "5" for name in check.COMPARED}
    told = {
        "vllm": str(tmp_path / "vllm"), "scheduler": {name: 5 for name in check.COMPARED}, "scheduler_failed": "",
        "graphs": {"cuda_graph_wrapper": {"state": "", "failed": "", "replays": 3}}, "graphs_failed": "", "fits": {},
    }  # fmt: skip
    rows = {"engine_steps": [row], "forward_passes": [{"graphs": "3"}], "graph_other_replays": []}
    assert check.judged(told, rows, tmp_path).wrong == []
    rows["engine_steps"][0]["evicted"], rows["forward_passes"][0]["graphs"] = "4", "2"
    assert check.judged(told, rows, tmp_path).wrong == [
        "evicted: recorded 4, truth 5", "graph replays: recorded 2, truth 3",
    ]  # fmt: skip
