"""The compile cache of a graph that counts: a folder below vLLM's, named once however often a process starts another."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import pytest

from profilemate.trackers.moe_routing import traced


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({"VLLM_CACHE_ROOT": "/c/vllm"}, "/c/vllm/profilemate_moe"),
        ({"XDG_CACHE_HOME": "/x"}, "/x/vllm/profilemate_moe"),
        ({"HOME": "/home/me"}, "/home/me/.cache/vllm/profilemate_moe"),
        ({"VLLM_CACHE_ROOT": "/c/vllm/profilemate_moe"}, "/c/vllm/profilemate_moe"),
    ],
)
def test_the_folder_lies_below_vllms(monkeypatch: pytest.MonkeyPatch, env: dict[str, str], expected: str) -> None:
    for name in ("VLLM_CACHE_ROOT", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, "")
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    traced.use_own_compile_cache()
    traced.use_own_compile_cache()
    assert os.environ["VLLM_CACHE_ROOT"] == expected


@pytest.mark.parametrize("router", [SimpleNamespace(), SimpleNamespace(capture_fn=print)])
def test_a_router_that_something_else_watches_is_left_alone(router: Any) -> None:
    before = dict(vars(router))
    assert traced.watch(router, 0, lambda ids, number: None) is False
    assert vars(router) == before
