"""Whether the installed vLLM plugin is there, asked for and not filtered out."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping

from profilemate.cli.check import OK, WARNING, Check
from profilemate.cli.locate import PACKAGE
from profilemate.plugin import is_asked_for


def plugin_entry() -> bool:
    """Whether an installed distribution offers our vLLM plugin."""
    found = importlib.metadata.entry_points(group="vllm.general_plugins")
    return any(entry.name == "profilemate" for entry in found)


def plugin_starts(environ: Mapping[str, str]) -> bool:
    """Whether the installed plugin would start: asked for, and not left out by VLLM_PLUGINS."""
    return is_asked_for(environ) and plugin_entry() and not left_out_by_filter(environ)


def left_out_by_filter(environ: Mapping[str, str]) -> bool:
    """Whether VLLM_PLUGINS names plugins and not ours."""
    names = environ.get("VLLM_PLUGINS")
    return names is not None and "profilemate" not in [name.strip() for name in names.split(",")]


def plugin_is_reachable(environ: Mapping[str, str]) -> list[Check]:
    """The way in for containers and Ray workers."""
    if not plugin_entry():
        text = "the package is not installed: containers and Ray workers, where PYTHONPATH does not reach, stay dark"
        return [Check("plugin", WARNING, text, f"pip install {PACKAGE.parent}")]
    if left_out_by_filter(environ):
        text = f"VLLM_PLUGINS={environ['VLLM_PLUGINS']} leaves the installed plugin out"
        return [Check("plugin", WARNING, text, "add profilemate to VLLM_PLUGINS")]
    return [Check("plugin", OK, "the installed vLLM plugin is there; PROFILEMATE_ENABLE=1 starts it")]
