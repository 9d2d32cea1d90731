"""The single checks of `profilemate doctor`. Each looks at one way in which a session can come out empty."""

from __future__ import annotations

from profilemate.cli.checks.containers import container_needs
from profilemate.cli.checks.folder import folder_can_be_written
from profilemate.cli.checks.plugin import plugin_is_reachable
from profilemate.cli.checks.ray import ray_needs
from profilemate.cli.checks.start import (
    our_sitecustomize_runs,
    profiling_is_on,
    settings_are_good,
    vllm_command_reaches_us,
)
from profilemate.cli.checks.vllm import hooks_fit, vllm_is_installed

CHECKS = (
    profiling_is_on,
    settings_are_good,
    our_sitecustomize_runs,
    vllm_command_reaches_us,
    plugin_is_reachable,
    folder_can_be_written,
    vllm_is_installed,
    ray_needs,
    container_needs,
    hooks_fit,
)
