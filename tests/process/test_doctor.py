"""`profilemate doctor` names each way to get an empty session, with a remedy and exit code 1."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import environment
import pytest
from pretend_vllm import Write

from profilemate.cli import checks


def doctor(path: list[Path], tmp_path: Path, **more: str) -> tuple[int, dict[str, list[dict[str, str]]]]:
    env = environment.clean() | {
        "PYTHONPATH": os.pathsep.join(map(str, path)),
        "PROFILEMATE_DIR": str(tmp_path / "p"),
        **more,
    }
    done = subprocess.run(
        [sys.executable, "-m", "profilemate", "doctor", "--json"],
        env=env, cwd=environment.ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    found: dict[str, list[dict[str, str]]] = {}
    for check in json.loads(done.stdout):
        found.setdefault(check["name"], []).append(check)
    return done.returncode, found


def statuses(found: dict[str, list[dict[str, str]]], name: str) -> set[str]:
    return {check["status"] for check in found[name]}


def test_all_is_well_with_the_real_vllm(tmp_path: Path) -> None:
    code, found = doctor([environment.ROOT], tmp_path)
    assert code == 0
    assert all(statuses(found, name) == {"ok"} for name in ("switch", "settings", "start", "folder", "vllm", "hooks"))
    assert "0.32.0" in found["vllm"][0]["text"]


def test_a_chained_sitecustomize_is_named(tmp_path: Path, vllm: Path, write: Write) -> None:
    other = write({"sitecustomize.py": ""}, "other")
    _, found = doctor([environment.ROOT, vllm, other], tmp_path)
    assert str(other / "sitecustomize.py") in found["start"][0]["text"]


@pytest.mark.parametrize(
    ("case", "check", "words"),
    [
        ("python-path-lost", "start", "PYTHONPATH does not name"),
        ("other-first", "start", "another sitecustomize runs first"),
        ("switched-off", "switch", "switches profiling off"),
        ("unwritable", "folder", "cannot be made"),
        ("no-room", "folder", "less than is left alone"),
        ("hooks-do-not-fit", "hooks", "no hook of cuda_graphs fits"),
    ],
)
def test_each_way_to_an_empty_session_is_a_failure(
    tmp_path: Path, vllm: Path, write: Write, case: str, check: str, words: str
) -> None:
    other = write({"sitecustomize.py": ""}, "other")
    (tmp_path / "file").write_text("")
    path = {"python-path-lost": [vllm], "other-first": [other, environment.ROOT, vllm]}
    more = {
        "switched-off": {"VLLM_ENABLE_PROFILING": "0"},
        "unwritable": {"PROFILEMATE_DIR": str(tmp_path / "file" / "p")},
        "no-room": {"PROFILEMATE_DISK_FLOOR": "1000000G"},
    }
    code, found = doctor(path.get(case, [environment.ROOT, vllm]), tmp_path, **more.get(case, {}))
    assert code == 1
    failures = [entry for entry in found[check] if entry["status"] == "failure"]
    assert any(words in entry["text"] and entry["remedy"] for entry in failures), found[check]


def test_a_filter_that_leaves_the_plugin_out_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "plugin_entry", lambda: True)
    (check,) = checks.plugin_is_reachable({"VLLM_PLUGINS": "lora_resolver"})
    assert check.status == "warning" and "VLLM_PLUGINS" in check.text
    assert not checks.plugin_starts({"VLLM_PLUGINS": "lora_resolver", "PROFILEMATE_ENABLE": "1"})
    assert checks.plugin_starts({"VLLM_PLUGINS": "profilemate", "PROFILEMATE_ENABLE": "1"})
    assert not checks.plugin_starts({})


def test_a_bad_setting_is_a_warning(tmp_path: Path) -> None:
    (check,) = checks.settings_are_good({"PROFILEMATE_LOG_INTERVAL": "soon"})
    assert check.status == "warning" and "PROFILEMATE_LOG_INTERVAL" in check.text
