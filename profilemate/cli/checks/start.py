"""Whether ProfileMate starts with a server: the switch, the settings, sitecustomize and the `vllm` command."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from profilemate.boot import is_switched_off
from profilemate.cli.check import FAILURE, OK, WARNING, Check
from profilemate.cli.checks.child import as_list, ask_child
from profilemate.cli.checks.plugin import left_out_by_filter, plugin_entry, plugin_starts
from profilemate.cli.interpreter import environment_of, ignores_python_path, script_interpreter
from profilemate.cli.locate import PACKAGE, injection_folder, profiling_config
from profilemate.plugin import is_asked_for
from profilemate.probe.settings import is_file, is_users, load
from profilemate.trackers import DEFAULT

DECISIVE_OPTIONS = {"no_site": "-S", "isolated": "-I", "ignore_environment": "-E"}
SWITCHES = ("PROFILEMATE_ENABLE", "VLLM_ENABLE_PROFILING")

ASK_CHILD = """
import json, os, sys
site = sys.modules.get("sitecustomize")
boot = sys.modules.get("profilemate.boot")
json.dump({"file": getattr(site, "__file__", None), "armed": boot is not None and boot._finder is not None,
           "chained": sorted(boot._visited) if boot else [], "no_site": bool(sys.flags.no_site)}, sys.stdout)
"""


def profiling_is_on(environ: Mapping[str, str]) -> list[Check]:
    """Whether a variable switches profiling off."""
    if is_switched_off(environ):  # type: ignore[no-untyped-call]
        name = "PROFILEMATE_ENABLE" if environ.get("PROFILEMATE_ENABLE") else "VLLM_ENABLE_PROFILING"
        return [Check("switch", FAILURE, f"{name}={environ[name]} switches profiling off", f"unset {name}")]
    return [Check("switch", OK, "profiling is not switched off")]


def settings_are_good(environ: Mapping[str, str]) -> list[Check]:
    """Values that are not understood, and trackers that are off."""
    settings = load(environ, profiling_config())
    if not settings.trackers:
        text = "all trackers are off, so a session records nothing"
        return [Check("settings", FAILURE, text, "set PROFILEMATE_TRACKERS, or ENABLE_* in sitecustomize.py")]
    off = sorted(set(DEFAULT) - set(settings.trackers))
    users = [word for word in settings.trackers if is_users(word)]
    gone = [word for word in users if is_file(word) and not os.path.isfile(word)]
    warnings = (
        *settings.warnings,
        *(f"{name} is off: its files will be empty" for name in off),
        *(f"the tracker {word} is not there" for word in gone),
    )
    return [Check("settings", WARNING, text, "correct or unset the setting") for text in warnings] or [
        Check("settings", OK, "all settings are understood" + "".join(f"; tracker of yours: {word}" for word in users))
    ]


def own_options() -> list[str]:
    """The options of this Python that decide whether a sitecustomize runs: doctor is asked as the server is started."""
    return [option for flag, option in DECISIVE_OPTIONS.items() if getattr(sys.flags, flag)]


def our_sitecustomize_runs(environ: Mapping[str, str]) -> list[Check]:
    """Whether a Python started from here starts ProfileMate, by sitecustomize or by the installed plugin."""
    unswitched = {name: value for name, value in environ.items() if name not in SWITCHES}
    answer = ask_child(ASK_CHILD, unswitched, *own_options())
    if answer is None:
        return [Check("start", FAILURE, f"{sys.executable} does not start here", "check the Python installation")]
    if answer["armed"]:
        others = [str(path) for path in as_list(answer["chained"]) if not _is_ours(str(path))]
        chain = f"; it goes on with {', '.join(others)}" if others else ""
        return [Check("start", OK, f"ProfileMate starts with {answer['file']}{chain}")]
    if plugin_starts(environ):
        return [Check("start", OK, "ProfileMate starts as an installed vLLM plugin")]
    return [_why_not_started(answer, environ)]


def _is_ours(path: str) -> bool:
    return Path(path).parent in (injection_folder(), injection_folder().resolve())


def _why_not_started(answer: Mapping[str, object], environ: Mapping[str, str]) -> Check:
    folder = injection_folder()
    remedy = f'export PYTHONPATH="{folder}:$PYTHONPATH", or start the server by `profilemate run -- ...`'
    if answer["no_site"]:
        return Check("start", FAILURE, "this Python runs with -S, so no sitecustomize runs", "start it without -S")
    if own_options():
        text = f"this Python runs with {own_options()[0]}, which makes it ignore PYTHONPATH"
        return Check(
            "start", FAILURE, text, f"start it without, or pip install {PACKAGE.parent} and PROFILEMATE_ENABLE=1"
        )
    if plugin_entry():
        remedy += _plugin_remedy(environ)
    entries = [entry for entry in environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    naming = [entry for entry in entries if os.path.realpath(entry) == str(folder)]
    if not naming:
        return Check("start", FAILURE, "PYTHONPATH does not name ProfileMate's folder", remedy)
    if not any(os.path.isabs(entry) for entry in naming):
        text = (
            f"PYTHONPATH names ProfileMate's folder by a relative path ({naming[0]}), which holds in this folder only"
        )
        return Check("start", FAILURE, text, remedy)
    if answer["file"]:
        return Check("start", FAILURE, f"another sitecustomize runs first: {answer['file']}", remedy)
    return Check("start", FAILURE, "no sitecustomize runs in a new Python", remedy)


def _plugin_remedy(environ: Mapping[str, str]) -> str:
    """What keeps the installed plugin from starting, as a further remedy."""
    asked = "" if is_asked_for(environ) else " PROFILEMATE_ENABLE=1"
    named = f" profilemate in VLLM_PLUGINS={environ['VLLM_PLUGINS']}" if left_out_by_filter(environ) else ""
    return f"; the installed plugin lacks{' and'.join(filter(None, (asked, named)))}"


def vllm_command_reaches_us(environ: Mapping[str, str]) -> list[Check]:
    """Which Python the `vllm` command runs, and whether options in its first line keep PYTHONPATH out."""
    script = shutil.which("vllm", path=environ.get("PATH"))
    words = script_interpreter(script, environ.get("PATH")) if script else []
    if not words:
        what = f"{script} is no Python script" if script else "no `vllm` command on the PATH"
        text = f"{what}; a Python started with -E, -I or -S would not see PYTHONPATH or sitecustomize"
        return [Check("command", OK, text)]
    line = " ".join(words)
    if ignores_python_path(words[1:]) and not plugin_starts(environ):
        text = f"{script} runs {line}, which ignores PYTHONPATH or sitecustomize"
        return [Check("command", FAILURE, text, "python -m vllm.entrypoints.cli.main, or the installed plugin")]
    if environment_of(words[0]) != environment_of(sys.executable):
        text = f"{script} runs {words[0]}, and this is {sys.executable}: the checks below are about this one"
        return [Check("command", WARNING, text, f"run doctor with {words[0]} too")]
    return [Check("command", OK, f"{script} runs {line}")]
