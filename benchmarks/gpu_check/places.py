"""Folders of the checkout, and the helpers of its tests and demo that the check uses too."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = ROOT / "benchmarks"
RESULT = BENCHMARKS / "gpu.json"
HELPER_FOLDERS = (ROOT / "tests" / "support", ROOT / "tests" / "driver", ROOT / "tests" / "engine", ROOT / "demo")


def helper(name: str) -> ModuleType:
    """A module of `tests/` or `demo/` by its file name.

    Loaded from its file: one of them is called `trace`, as a module of the standard library is. They import each other by
    name, so their folders come last on the path.
    """
    import sys

    for folder in HELPER_FOLDERS:
        if str(folder) not in sys.path:
            sys.path.append(str(folder))
    path = next(folder / f"{name}.py" for folder in HELPER_FOLDERS if (folder / f"{name}.py").exists())
    loaded = sys.modules.get(f"gpu_check_helper_{name}")
    if loaded is not None:
        return loaded
    spec = importlib.util.spec_from_file_location(f"gpu_check_helper_{name}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
