"""vLLM's command line flags beside the configuration that a session records."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from profilemate.advise.finding import Finding

CONFIG_KEYS = {
    "--max-model-len": "max_model_len",
    "--enforce-eager": "enforce_eager",
    "--block-size": "block_size",
    "--num-gpu-blocks-override": "num_gpu_blocks_override",
    "--gpu-memory-utilization": "gpu_memory_utilization",
    "--kv-cache-dtype": "cache_dtype",
    "--enable-prefix-caching": "enable_prefix_caching",
    "--max-num-seqs": "max_num_seqs",
    "--max-num-batched-tokens": "max_num_batched_tokens",
    "--async-scheduling": "async_scheduling",
    "--tensor-parallel-size": "tensor_parallel_size",
    "--pipeline-parallel-size": "pipeline_parallel_size",
    "--data-parallel-size": "data_parallel_size",
    "--cudagraph-capture-sizes": "cudagraph_capture_sizes",
    "--dtype": "dtype",
}
"""Flag -> key of `engine_config` in process.json (probe/engine_config.py)."""

COMPILATION = ("--compilation-config", "-cc")
COMPILATION_KEYS = {"cudagraph_mode": "cudagraph_mode", "cudagraph_capture_sizes": "cudagraph_capture_sizes"}
DERIVED = {"num_gpu_blocks": ("num_gpu_blocks_override", "gpu_memory_utilization", "cache_dtype", "block_size")}
"""Recorded values that follow from others: no setting of their own where one of these differs too."""


@dataclass(frozen=True)
class Setting:
    """One advised setting. `key` is empty where a session does not record it."""

    flag: str
    value: Any
    key: str


def settings(flags: Sequence[str]) -> list[Setting]:
    """What a finding's flags set: values as numbers, lists of numbers or text; True and False for flags without a value."""
    found: list[Setting] = []
    for flag, words in _grouped(shlex.split(" ".join(flags))):
        if flag in COMPILATION:
            found += _compilation(words)
        elif flag.startswith(tuple(f"{name}." for name in COMPILATION)):
            name = flag.split(".", 1)[1]
            found.append(Setting(flag, _value(words), COMPILATION_KEYS.get(name, "")))
        elif flag.startswith("--no-") and not words:
            found.append(Setting(flag, False, CONFIG_KEYS.get(f"--{flag[5:]}", "")))
        else:
            found.append(Setting(flag, _value(words), CONFIG_KEYS.get(flag, "")))
    return found


def differences(finding: Finding, after: Mapping[str, Any]) -> list[str]:
    """Sentences about the flags of a finding that another session was not run with; none if it was run with all.

    A flag that no session records is taken as given, unless it is the only one.
    """
    advised = settings(finding.flags)
    found = [_difference(one, after) for one in advised if one.key]
    if advised and not found:
        return [
            f"{finding.command_line}: a session does not record this setting, so it cannot be told whether it was set"
        ]
    return [sentence for sentence in found if sentence]


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Recorded settings that differ between two sessions, without those that follow from others that do."""
    differ = {
        key: (before.get(key), after.get(key))
        for key in sorted(before.keys() | after.keys())
        if not _same(before.get(key), after.get(key))
    }
    return {key: pair for key, pair in differ.items() if not any(one in differ for one in DERIVED.get(key, ()))}


def _difference(advised: Setting, after: Mapping[str, Any]) -> str:
    if advised.key not in after:
        return f"{advised.flag} {shown(advised.value)} was advised; the other session does not tell its {advised.key}"
    value = after[advised.key]
    if _same(advised.value, value):
        return ""
    return f"{advised.flag} {shown(advised.value)} was advised; the other session was run with {shown(value)}"


def shown(value: Any) -> str:
    """A value as on a command line."""
    return " ".join(map(shown, value)) if isinstance(value, (list, tuple)) else str(value)


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, (list, tuple)) or isinstance(other, (list, tuple)):
        return _as_list(one) == _as_list(other)
    numbers = [value for value in (one, other) if isinstance(value, (int, float)) and not isinstance(value, bool)]
    if len(numbers) == 2:
        return math.isclose(*numbers, rel_tol=1e-6)
    return str(one).lower() == str(other).lower()


def _as_list(value: Any) -> list[Any]:
    return sorted(value, key=str) if isinstance(value, (list, tuple)) else [value]


def _grouped(words: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Flags with the words that follow; `--flag=value` is split."""
    flag, values = "", list[str]()
    for word in words:
        if word.startswith("-") and not _is_number(word):
            if flag:
                yield flag, values
            flag, _, rest = word.partition("=")
            values = [rest] if rest else []
        else:
            values.append(word)
    if flag:
        yield flag, values


def _compilation(words: Sequence[str]) -> list[Setting]:
    try:
        given = json.loads(" ".join(words))
    except ValueError:
        given = {}
    if not isinstance(given, dict) or not given:
        return [Setting(COMPILATION[0], " ".join(words), "")]
    return [Setting(f"{COMPILATION[0]} {name}", value, COMPILATION_KEYS.get(name, "")) for name, value in given.items()]


def _value(words: Sequence[str]) -> Any:
    if not words:
        return True
    values = [_number(word) for word in words]
    return values[0] if len(values) == 1 else values


def _is_number(word: str) -> bool:
    return not isinstance(_number(word), str)


def _number(word: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(word)
        except ValueError:
            continue
    return word
