"""What Ray workers need, and what reaches them."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping

from profilemate.cli.check import OK, WARNING, Check
from profilemate.cli.checks.child import ask_child
from profilemate.cli.checks.plugin import plugin_entry
from profilemate.cli.checks.vllm import ASK_VLLM, release

RAY_HANDS_VARIABLES_ON = (0, 18)
"""First vLLM whose Ray executor copies variables that vLLM itself does not know."""


def ray_needs(environ: Mapping[str, str]) -> list[Check]:
    """What reaches Ray workers."""
    if importlib.util.find_spec("ray") is None:
        return [Check("ray", OK, "Ray is not installed; nothing to do")]
    text = (
        "Ray workers do not see PYTHONPATH: the package must be installed on every node; the driver hands its "
        "variables on by VLLM_RAY_EXTRA_ENV_VARS_TO_COPY, to which ProfileMate adds its own (vLLM 0.18 and later), so "
        "PROFILEMATE_ENABLE=1 is set at the driver alone; each node records into a folder of its own, and `profilemate "
        "merge` joins them"
    )
    checks = [
        Check("ray", OK if plugin_entry() else WARNING, text, "" if plugin_entry() else "pip install on each node")
    ]
    version = release(str((ask_child(ASK_VLLM, environ) or {}).get("version", "")))
    if version and version < RAY_HANDS_VARIABLES_ON:
        text = "the Ray executor of vLLM 0.17 and older does not hand our variables on: its workers stay dark"
        checks.append(Check("ray", WARNING, text, "vLLM 0.18 or later, or --distributed-executor-backend mp"))
    if any(name.startswith("VLLM_PROFILING_") for name in environ):
        text = "VLLM_PROFILING_* names make `--fail-on-environ-validation` refuse to start"
        checks.append(Check("ray", WARNING, text, "use the PROFILEMATE_* names"))
    return checks
