"""Settings of a session, from the environment and ProfilingConfig. A bad value gives the default and one warning."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from profilemate.trackers import DEFAULT, NAMES, TRACKERS

DEFAULT_DIRECTORY = "/tmp/vllm_profiling"


class Settings(NamedTuple):
    """What the user chose, and what was wrong with it. Sizes in bytes."""

    directory: str = DEFAULT_DIRECTORY
    verbose: bool = False
    log_interval: int = 100
    trackers: tuple[str, ...] = DEFAULT
    check_replays: bool = False
    device_timing_every: int = 10
    cpu_operation_rows_every: int = 10
    moe_coselection: bool = False
    moe_traced: bool = False
    measure_peak: bool = False
    session_cap_bytes: int = 2 << 30
    folder_cap_bytes: int = 10 << 30
    disk_floor_bytes: int = 1 << 30
    network_file_system: bool = False
    show_request_ids: bool = False
    warnings: tuple[str, ...] = ()


class Variable(NamedTuple):
    """One setting: its PROFILEMATE_ name, the older name if any, how it is read, and what a good value is."""

    field: str
    name: str
    older_name: str | None
    read: Callable[[str], Any]
    expects: str


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError(text)
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise ValueError(text)
    return value


def _switch(text: str) -> bool:
    words = {"1": True, "true": True, "on": True, "yes": True, "0": False, "false": False, "off": False, "no": False}
    return words[text.lower()]


def _size(text: str) -> int:
    units = {"k": 10, "m": 20, "g": 30}
    if text[-1].lower() in units:
        return _count(str(int(float(text[:-1]) * (1 << units[text[-1].lower()]))))
    return _count(text)


SETS = {"default": DEFAULT, "all": NAMES}
TRACKERS_VARIABLE = "PROFILEMATE_TRACKERS"


def is_file(word: str) -> bool:
    """Whether a word among the trackers is the path of a user's file."""
    return word.endswith(".py") or os.sep in word


def is_module(word: str) -> bool:
    """Whether it is a user's module: one with a point in its name, so that a misspelt tracker is none."""
    return "." in word and all(part.isidentifier() for part in word.split("."))


def is_users(word: str) -> bool:
    """Whether a tracker is the user's own and not a folder of ours."""
    return word not in NAMES and (is_file(word) or is_module(word))


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",")]


def _absolute(word: str) -> str:
    return os.path.abspath(os.path.expanduser(word)) if is_file(word) and not word.startswith("-") else word


def with_absolute_paths(environ: Mapping[str, str]) -> dict[str, str]:
    """The variable that names the trackers, where its paths have to hold in another folder; empty where nothing changes."""
    text = environ.get(TRACKERS_VARIABLE, "")
    absolute = ",".join(map(_absolute, _words(text)))
    return {TRACKERS_VARIABLE: absolute} if absolute != ",".join(_words(text)) else {}


def _trackers(text: str) -> tuple[str, ...]:
    """Trackers in their own order, then the user's files and modules in the order given, paths made absolute.

    "default,moe_routing", "all,-kv_cache", "-kv_cache" of the default, "default,./mine.py".
    """
    chosen: set[str] = set(DEFAULT if text.startswith("-") else ())
    users: dict[str, None] = {}
    for word in _words(text):
        if is_users(word) and not word.startswith("-"):
            users[_absolute(word)] = None
            continue
        name = word.removeprefix("-")
        found = SETS.get(name, (name,)) if name else ()
        if not set(found) <= set(NAMES):
            raise ValueError(word)
        chosen = chosen - set(found) if word.startswith("-") else chosen | set(found)
    return (*(name for name in NAMES if name in chosen), *users)


VARIABLES = (
    Variable("directory", "PROFILEMATE_DIR", "VLLM_PROFILING_DIR", str, "a folder"),
    Variable("verbose", "PROFILEMATE_VERBOSE", "VLLM_PROFILING_VERBOSE", _switch, "0 or 1"),
    Variable("log_interval", "PROFILEMATE_LOG_INTERVAL", "VLLM_PROFILING_LOG_INTERVAL", _positive, "a number from 1"),
    Variable(
        "trackers",
        TRACKERS_VARIABLE,
        None,
        _trackers,
        "names out of " + ", ".join((*SETS, *NAMES)) + ", or a file (./mine.py) or module (my.tracker) of your own",
    ),
    Variable("check_replays", "PROFILEMATE_CHECK_REPLAYS", None, _switch, "0 or 1"),
    Variable("device_timing_every", "PROFILEMATE_DEVICE_TIMING_EVERY", None, _count, "a number; 0 for no device times"),
    Variable(
        "cpu_operation_rows_every", "PROFILEMATE_CPU_OPERATION_ROWS_EVERY", None, _count, "a number; 0 for no rows"
    ),
    Variable("moe_coselection", "PROFILEMATE_MOE_COSELECTION", None, _switch, "0 or 1"),
    Variable("moe_traced", "PROFILEMATE_MOE_TRACED", None, _switch, "0 or 1"),
    Variable("measure_peak", "PROFILEMATE_MEASURE_PEAK", None, _switch, "0 or 1"),
    Variable("session_cap_bytes", "PROFILEMATE_SESSION_CAP", None, _size, "bytes, or a number with K, M or G"),
    Variable("folder_cap_bytes", "PROFILEMATE_FOLDER_CAP", None, _size, "bytes, or a number with K, M or G"),
    Variable("disk_floor_bytes", "PROFILEMATE_DISK_FLOOR", None, _size, "bytes, or a number with K, M or G"),
    Variable("show_request_ids", "PROFILEMATE_SHOW_REQUEST_IDS", None, _switch, "0 or 1"),
    Variable("network_file_system", "PROFILEMATE_NETWORK_FS", None, _switch, "0 or 1"),
)


def from_config(config: Any) -> dict[str, Any]:
    """What the user's ProfilingConfig class says; None means the defaults."""
    if config is None:
        return {}
    values: dict[str, Any] = {
        "trackers": tuple(one.name for one in TRACKERS if getattr(config, one.switch, one.on_by_default))
    }
    interval = getattr(config, "LOG_INTERVAL", None)
    if isinstance(interval, int) and not isinstance(interval, bool) and interval > 0:
        values["log_interval"] = interval
    directory = getattr(config, "OUTPUT_DIR", None)
    if isinstance(directory, (str, os.PathLike)) and os.fspath(directory):
        values["directory"] = str(directory)
    return values


def load(environ: Mapping[str, str], config: Any = None) -> Settings:
    """Read all settings. Never raises for a bad value: the default stays and `warnings` gets a sentence."""
    values = from_config(config)
    warnings = []
    for variable in VARIABLES:
        name, text = _lookup(environ, variable)
        if not text:
            continue
        try:
            values[variable.field] = variable.read(text)
        except Exception:
            kept = values.get(variable.field, Settings._field_defaults[variable.field])
            warnings.append(f"{name}={text!r} is not {variable.expects}; {kept!r} is used")
    for name in ("PROFILEMATE_ENABLE", "VLLM_ENABLE_PROFILING"):
        text = environ.get(name, "").strip().lower()
        if text not in ("", "0", "1", "true", "false", "on", "off", "yes", "no"):
            warnings.append(f"{name}={text!r} is not 0 or 1; it counts as unset")
    return Settings(**values, warnings=tuple(warnings))


def _lookup(environ: Mapping[str, str], variable: Variable) -> tuple[str, str]:
    for name in (variable.name, variable.older_name):
        text = environ.get(name, "").strip() if name else ""
        if name and text:
            return name, text
    return variable.name, ""


def quarter(settings: Settings) -> Settings:
    """The caps for a memory-backed mount."""
    return settings._replace(
        session_cap_bytes=settings.session_cap_bytes // 4,
        folder_cap_bytes=settings.folder_cap_bytes // 4,
        disk_floor_bytes=settings.disk_floor_bytes // 4,
    )
