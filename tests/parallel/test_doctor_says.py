"""`profilemate doctor` on what a container or Ray needs."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest

from profilemate.cli import doctor
from profilemate.cli.checks import CHECKS, containers, ray
from profilemate.cli.checks.containers import container_needs
from profilemate.cli.main import main
from profilemate.probe import folders


@pytest.fixture(autouse=True)
def no_container(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(containers, "MARKS", (str(tmp_path / "mark"),))
    for name in containers.VARIABLES:
        monkeypatch.delenv(name, raising=False)


def environ(folder: Path, **more: str) -> dict[str, str]:
    return {"PROFILEMATE_DIR": str(folder), **more}


def test_outside_of_containers_their_needs_are_told(tmp_path: Path) -> None:
    (check,) = container_needs(environ(tmp_path))
    assert check.status == "ok" and check.name == "container"
    assert all(words in check.text for words in ("pip install", "PROFILEMATE_ENABLE=1", "a volume for PROFILEMATE_DIR"))


@pytest.mark.parametrize("how", ["mark", "kubernetes"])
@pytest.mark.parametrize(("kind", "status"), [("overlay", "warning"), ("ext4", "ok"), ("", "ok")])
def test_in_a_container_sessions_that_go_with_it_are_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, kind: str, status: str
) -> None:
    monkeypatch.setattr(folders, "mount_type", lambda path: kind)
    more = {"KUBERNETES_SERVICE_HOST": "10.0.0.1"} if how == "kubernetes" else {}
    if how == "mark":
        (tmp_path / "mark").touch()
    (check,) = container_needs(environ(tmp_path, **more))
    assert check.status == status and str(tmp_path) in check.text
    assert (f":{tmp_path}" in check.remedy) == (status == "warning")


def test_doctor_says_it_and_a_container_alone_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert container_needs in CHECKS
    monkeypatch.setattr(doctor, "CHECKS", (container_needs,))
    monkeypatch.setattr(folders, "mount_type", lambda path: "overlay")
    monkeypatch.setenv("PROFILEMATE_DIR", str(tmp_path))
    (tmp_path / "mark").touch()
    assert main(["doctor"]) == 0
    assert "warning  container: " in capsys.readouterr().out


def test_ray_needs_the_package_on_every_node_and_the_switch_at_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(ray, "ask_child", lambda code, environ: {"version": "0.32.0"})
    monkeypatch.setattr(ray, "plugin_entry", lambda: True)
    (check,) = ray.ray_needs(dict(os.environ))
    assert check.status == "ok"
    assert all(
        words in check.text
        for words in ("installed on every node", "PROFILEMATE_ENABLE=1 is set at the driver alone", "profilemate merge")
    )
