"""Fixtures that several folders of tests share."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import environment
import pytest


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's tiny Llama: configuration and tokenizer, random weights."""
    spec = importlib.util.spec_from_file_location("tiny_model", environment.ROOT / "demo" / "tiny_model.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return Path(module.write_tiny_llama(tmp_path_factory.mktemp("model") / "tiny-llama"))
