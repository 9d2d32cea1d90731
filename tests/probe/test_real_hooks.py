"""Every hook in the real vLLM: what is pickled, what the environment hashes to, and what is left when they are taken out."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import environment
import pytest

REAL_HOOKS = environment.ROOT / "tests" / "probe" / "real_hooks.py"


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("real_hooks")
    environ = environment.vllm(PROFILEMATE_DIR=str(folder / "sessions"), PROFILEMATE_TRACKERS="all")
    done = subprocess.run(
        [sys.executable, str(REAL_HOOKS), str(folder / "out.json"), str(tiny_model)],
        env=environ, cwd=folder, capture_output=True, text=True, timeout=environment.HANGS_SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(json.loads((folder / "out.json").read_text()))


def test_every_hook_that_fits_is_in_place(seen: dict[str, Any]) -> None:
    states = {name: state for name, (state, _) in seen["states"].items()}
    assert set(seen["places"]) == {name for name, state in states.items() if state == "put_in"}
    assert set(states.values()) == {"put_in", "absent"} and len(seen["places"]) > 40
    assert len(set(seen["hooked"])) == len(seen["hooked"]) > 30


def test_a_second_start_by_another_way_in_changes_nothing(seen: dict[str, Any]) -> None:
    assert seen["changed_by_a_second_start"] == []


def test_undoing_leaves_every_attribute_of_every_owner_the_object_that_it_was(seen: dict[str, Any]) -> None:
    assert seen["left_changed"] == [] and seen["aliases_changed"] == []


def test_wrapped_targets_look_like_the_originals(seen: dict[str, Any]) -> None:
    assert seen["unlike"] == []


def test_pickles_are_the_same_bytes(seen: dict[str, Any]) -> None:
    assert seen["pickles"]["count"] > 150
    assert seen["pickles"]["different"] == []


def test_two_hooks_alone_are_on_names_that_their_modules_imported(seen: dict[str, Any]) -> None:
    """Such a target is pickled by reference to another module, where there is no hook; vLLM pickles no such function."""
    assert seen["imported_names"] == ["v2_runner.dispatch", "loader.weights_loaded"]


def test_processes_with_and_without_load_each_others_pickles(seen: dict[str, Any]) -> None:
    kinds = seen["pickles"]["kinds"]
    assert kinds["pickle: VllmConfig"] == "VllmConfig" and kinds["pickle: SchedulerOutput"] == "SchedulerOutput"
    assert seen["pickles"]["loaded_by_the_child"] == kinds
    assert seen["pickles"]["loaded_from_the_child"] == kinds


def test_a_pickled_target_comes_back_as_what_is_in_its_place(seen: dict[str, Any]) -> None:
    assert seen["pickles"]["targets"] == []


def test_no_variable_that_vllm_hashes_is_changed(seen: dict[str, Any]) -> None:
    before = seen["factors"]["before"]
    assert len(before) > 50 and seen["factors"]["after"] == before


def test_nor_in_a_worker_under_ray(seen: dict[str, Any]) -> None:
    """The list of variables that Ray's executor is to copy is hashed as well, so it must not reach the compiler."""
    assert "PROFILEMATE_SESSION" in seen["ray"]["asked_for"].split(",")
    assert seen["ray"]["factors"] == seen["factors"]["before"]
