"""The process that `warm` forks: it imports vLLM once, without ProfileMate, then runs each script that it is told of.

    warm_process.py MODULE...

Standard input has a line of JSON for each script; each gets a line with its exit status on standard output when it ended.
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def become(told: dict[str, Any]) -> None:
    """Have the arguments, environment, folder, output and path of a Python that was just started for a script."""
    os.setsid()
    os.chdir(told["cwd"])
    for number, name in ((0, os.devnull), (1, told["stdout"]), (2, told["stderr"])):
        descriptor = os.open(name, os.O_RDWR | os.O_CREAT, 0o600)
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(told["env"])
    sys.argv = list(told["argv"])
    path = [entry for entry in told["env"].get("PYTHONPATH", "").split(os.pathsep) if entry]
    sys.path[:] = [str(Path(told["argv"][0]).parent), *path, *LIBRARIES]
    sys.modules.pop("sitecustomize", None)
    importlib.invalidate_caches()
    try:
        importlib.import_module("sitecustomize")
    except ModuleNotFoundError as error:
        if error.name != "sitecustomize":
            raise


def serve() -> dict[str, Any] | None:
    """Answer until there is no more to do. In a child: what it is to run."""
    for line in sys.stdin:
        told: dict[str, Any] = json.loads(line)
        pid = os.fork()
        if not pid:
            return told
        print(json.dumps({"pid": pid}), flush=True)
        print(json.dumps({"status": os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}), flush=True)
    return None


def main(modules: Sequence[str]) -> None:
    """Import, then serve; a child leaves the loop and ends as its script does."""
    for name in modules:
        importlib.import_module(name)
    print(json.dumps({"ready": True}), flush=True)
    told = serve()
    if told is not None:
        become(told)
        runpy.run_path(told["argv"][0], run_name="__main__")


if __name__ == "__main__":
    own = str(Path(__file__).parent)
    began_with = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    LIBRARIES = [entry for entry in sys.path if entry not in (own, *began_with)]
    main(sys.argv[1:])
