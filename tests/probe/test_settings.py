"""Settings: names, precedence, and a bad value that gives the default and one warning."""

from __future__ import annotations

import os
from typing import Any

import pytest

from profilemate.probe.settings import Settings, load, with_absolute_paths
from profilemate.trackers import DEFAULT


def test_defaults() -> None:
    assert load({}) == Settings()


@pytest.mark.parametrize(
    ("name", "text", "field", "value"),
    [
        ("VLLM_PROFILING_DIR", "/data/p", "directory", "/data/p"),
        ("PROFILEMATE_DIR", "/data/q", "directory", "/data/q"),
        ("VLLM_PROFILING_LOG_INTERVAL", "7", "log_interval", 7),
        ("VLLM_PROFILING_VERBOSE", "1", "verbose", True),
        ("PROFILEMATE_TRACKERS", "kv_cache", "trackers", ("kv_cache",)),
        (
            "PROFILEMATE_TRACKERS",
            "/x/mine.py, kv_cache,my.tracker",
            "trackers",
            ("kv_cache", "/x/mine.py", "my.tracker"),
        ),
        (
            "PROFILEMATE_TRACKERS",
            "-kv_cache,/x/y",
            "trackers",
            (*(one for one in DEFAULT if one != "kv_cache"), "/x/y"),
        ),
        ("PROFILEMATE_TRACKERS", "mine.py", "trackers", (os.path.abspath("mine.py"),)),
        ("PROFILEMATE_TRACKERS", "~/mine.py", "trackers", (os.path.expanduser("~/mine.py"),)),
        ("PROFILEMATE_CPU_OPERATION_ROWS_EVERY", "0", "cpu_operation_rows_every", 0),
        ("PROFILEMATE_SESSION_CAP", "64M", "session_cap_bytes", 64 << 20),
        ("PROFILEMATE_DEVICE_TIMING_EVERY", "0", "device_timing_every", 0),
        ("PROFILEMATE_MOE_COSELECTION", "1", "moe_coselection", True),
        ("PROFILEMATE_MOE_TRACED", "1", "moe_traced", True),
    ],
)
def test_a_value_from_the_environment(name: str, text: str, field: str, value: Any) -> None:
    settings = load({name: text})
    assert getattr(settings, field) == value
    assert settings.warnings == ()


def test_our_name_wins_over_vllms() -> None:
    assert load({"VLLM_PROFILING_DIR": "/a", "PROFILEMATE_DIR": "/b"}).directory == "/b"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("PROFILEMATE_LOG_INTERVAL", "0"),
        ("PROFILEMATE_LOG_INTERVAL", "many"),
        ("PROFILEMATE_TRACKERS", "kv_cache,nonsense"),
        ("PROFILEMATE_TRACKERS", "kv_cache,-./mine.py"),
        ("PROFILEMATE_TRACKERS", "kv_cache,not-a.module"),
        ("PROFILEMATE_CPU_OPERATION_ROWS_EVERY", "-1"),
        ("PROFILEMATE_SESSION_CAP", "-1"),
        ("PROFILEMATE_SESSION_CAP", "-1G"),
        ("PROFILEMATE_SESSION_CAP", "nanM"),
        ("PROFILEMATE_FOLDER_CAP", "infG"),
        ("PROFILEMATE_DISK_FLOOR", "K"),
        ("PROFILEMATE_VERBOSE", "perhaps"),
        ("VLLM_ENABLE_PROFILING", "maybe"),
    ],
)
def test_a_bad_value_gives_the_default_and_one_warning(name: str, text: str) -> None:
    settings = load({name: text})
    assert settings._replace(warnings=()) == Settings()
    (warning,) = settings.warnings
    assert name in warning and repr(text) in warning


def test_the_users_class_gives_defaults_and_the_environment_wins() -> None:
    class ProfilingConfig:
        ENABLE_CUDA_GRAPH_TRACKING = False
        LOG_INTERVAL = 5
        OUTPUT_DIR = "/mine"

    settings = load({}, ProfilingConfig)
    assert settings.trackers == tuple(name for name in DEFAULT if name != "cuda_graphs")
    assert (settings.log_interval, settings.directory) == (5, "/mine")
    assert load({"PROFILEMATE_LOG_INTERVAL": "9"}, ProfilingConfig).log_interval == 9
    assert load({"PROFILEMATE_LOG_INTERVAL": "x"}, ProfilingConfig).log_interval == 5


@pytest.mark.parametrize("bad", [0, -1, "5", None, True])
def test_a_bad_value_in_the_users_class_is_ignored(bad: Any) -> None:
    config = type("ProfilingConfig", (), {"LOG_INTERVAL": bad})
    assert load({}, config).log_interval == 100


def test_paths_of_trackers_are_made_absolute_and_all_else_is_left_as_it_is() -> None:
    name = "PROFILEMATE_TRACKERS"
    assert with_absolute_paths({}) == with_absolute_paths({name: "all,-kv_cache"}) == {}
    assert with_absolute_paths({name: "default,/x/mine.py,my.tracker"}) == {}
    assert with_absolute_paths({name: " default, ./mine.py"}) == {name: f"default,{os.getcwd()}/mine.py"}
