"""Calls back when one of the named modules has been imported, leaving its loader and spec as they were."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any


class TargetFinder:
    """A meta-path finder that answers for no module itself: it lets the others find the spec and waits for the end."""

    def __init__(self, targets: Iterable[str], ready: Callable[[str, Any], None]) -> None:
        """`ready(name, module)` is called after each target module has run; it must not raise."""
        self.targets = set(targets)
        self.ready = ready
        self._searching: set[str] = set()

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """Return the other finders' spec for a target, with a loader that reports back once; None for all else."""
        if name not in self.targets or name in self._searching:
            return None
        self._searching.add(name)
        try:
            spec = self._ask_others(name, path, target)
        finally:
            self._searching.discard(name)
        if spec is not None and spec.loader is not None:
            self._watch(spec.loader, name)
        return spec

    def _ask_others(self, name: str, path: Any, target: Any) -> Any:
        for finder in list(sys.meta_path):
            find = getattr(finder, "find_spec", None)
            if finder is self or find is None:
                continue
            spec = find(name, path, target)
            if spec is not None:
                return spec
        return None

    def _watch(self, loader: Any, name: str) -> None:
        """Shadow `exec_module` on this one loader object, so that `get_code` and all else stay the loader's own."""
        original = loader.exec_module
        ready = self.ready

        def exec_module(module: Any) -> None:
            if vars(loader).get("exec_module") is exec_module:
                del loader.exec_module
            original(module)
            if module.__name__ == name:
                ready(name, module)

        try:
            loader.exec_module = exec_module
        except AttributeError:
            return
