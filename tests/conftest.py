"""Fixtures that several folders of tests share."""

from __future__ import annotations

import importlib.util
import shutil
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import environment
import pytest
import report_pages
from pretend_vllm import PRETEND_VLLM, Write


@pytest.fixture(autouse=True)
def width_without_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts are as wide as in a pipe, wherever the tests run: CI gives them a terminal of 80 columns."""
    monkeypatch.setenv("COLUMNS", "160")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test that looks at a page runs once more, on a new page, where the browser did not answer in time.

    Once in 4,245 tests Chromium drew no frame for thirty seconds. What it shows is not asked twice: a wrong page fails.
    """
    for item in items:
        if "browser" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.flaky(reruns=1, only_rerun=[r"^TimeoutError: "]))


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """The one browser of a run: while it is open, no second one can be started in the same process."""
    with report_pages.chromium_running() as running:
        yield running


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's tiny Llama: configuration and tokenizer, random weights."""
    spec = importlib.util.spec_from_file_location("tiny_model", environment.ROOT / "demo" / "tiny_model.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return Path(module.write_tiny_llama(tmp_path_factory.mktemp("model") / "tiny-llama"))


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a folder of files and return it."""

    def write_files(files: dict[str, str], folder: str) -> Path:
        for name, text in files.items():
            path = tmp_path / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text).lstrip("\n"))
        (tmp_path / folder).mkdir(exist_ok=True)
        return tmp_path / folder

    return write_files


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what a server needs of this checkout, to be edited."""
    target = tmp_path / "checkout"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(environment.ROOT / "profilemate", target / "profilemate", ignore=ignored)
    shutil.copy(environment.ROOT / "sitecustomize.py", target)
    return target


@pytest.fixture
def vllm(write: Write) -> Path:
    return write(PRETEND_VLLM, "pretend")
