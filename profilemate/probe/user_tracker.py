"""A tracker in a file or module of the user's: loaded with care, so that what is wrong with it stays its own.

Its hooks have the guard that all have. Beside them this guards its streams, whose rows are checked and made text at once: a
row of another width would otherwise fail at the end of an engine step, in the midst of everybody's rows.
"""

from __future__ import annotations

import _thread
import importlib.util
import os
import re
import sys
from importlib import import_module
from time import monotonic_ns
from types import ModuleType
from typing import Any, NamedTuple

from profilemate.probe.engine_step import STEP, STEP_END
from profilemate.probe.hook import Hook
from profilemate.probe.process import FULL_FLUSH_NS, THIS
from profilemate.probe.settings import is_file
from profilemate.probe.stream import Stream
from profilemate.schema.probe_tables import PROBE_TABLES
from profilemate.schema.table import Table
from profilemate.trackers import NAMES

NOT_YET = ("vllm", "torch")
"""What a tracker must not be the first to import: a tracker is loaded while `import vllm` has just begun."""

MOST_WAITING = 10_000
LONGEST_TEXT = 200
SAFE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,60}")
SAFE_HOOK_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.:-]{0,100}")
TIME = "time_ns"


class RefusedError(Exception):
    """A tracker that cannot be used; the message says why."""


class UserTracker(NamedTuple):
    """One that was loaded: its name in the records, its module, hooks and streams."""

    name: str
    module: ModuleType
    hooks: tuple[Hook, ...]
    streams: tuple[UserStream, ...]


def cell(value: Any) -> str:
    """Text of a cell that can neither end the row nor the cell. None is empty: "not known"."""
    if value is None:
        return ""
    if isinstance(value, (bool, int, float)):
        return str(value)
    return "".join(c if c.isprintable() and c not in ',"' else "_" for c in str(value)[:LONGEST_TEXT])


class UserStream(Stream):
    """A stream whose rows become text when they are added; written by the end of the engine step, else once a second."""

    def __init__(self, table: Table) -> None:
        """Nothing is opened yet."""
        super().__init__(table)
        self.add = self.add_row
        self._next_flush_ns = 0

    def add_row(self, row: Any) -> None:
        """Check one row and let it wait. Raises ValueError for one of another width, or where nothing is ever written."""
        if len(row) != len(self.table.fields):
            raise ValueError(f"{self.table.name}: {len(row)} cells for {len(self.table.fields)} columns")
        if type(row[0]) is not int:
            raise ValueError(f"{self.table.name}: {TIME} is {type(row[0]).__name__}, not int")
        if len(self.pending) >= MOST_WAITING:
            raise ValueError(f"{self.table.name}: {MOST_WAITING} rows wait, and this process writes none")
        self.pending.append(",".join(map(cell, row)) + "\n")
        now = monotonic_ns()
        if now >= self._next_flush_ns and THIS.folder:
            self._next_flush_ns = now + FULL_FLUSH_NS
            THIS.flush(now)

    def _joined(self) -> str:
        return "".join(str(self.pending.popleft()) for _ in range(len(self.pending)))


class _Writer:
    """Stands in for the process's writer while a tracker is loaded, so that a refused one leaves no stream behind."""

    def __init__(self) -> None:
        self.streams: dict[str, UserStream] = {}

    def stream(self, table: Table, detail: bool = True) -> UserStream:
        if table.name not in self.streams:
            self.streams[table.name] = UserStream(table)
        return self.streams[table.name]


class _NotYetFinder:
    """Refuses imports by this thread that would begin vLLM, or torch, in the midst of `import vllm`."""

    def __init__(self) -> None:
        self.thread = _thread.get_ident()

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        """Find nothing; raise ImportError for what must wait."""
        if name.partition(".")[0] in NOT_YET and _thread.get_ident() == self.thread:
            raise ImportError(f"{name} cannot be imported here: import it inside a handler")


def name_of(word: str) -> str:
    """How the records call a tracker: the file's name without its ending, or the module's name."""
    return os.path.basename(word).removesuffix(".py") if is_file(word) else word


def load(word: str, taken_hooks: set[str]) -> UserTracker:
    """Load a file or module and check it. Raises RefusedError, or what its code raises; then nothing of it stays."""
    writer, finder = _Writer(), _NotYetFinder()
    streams, num_parts, table = STEP.streams, len(STEP.parts), STEP.stream.table
    before = THIS.writer
    THIS.writer = writer  # type: ignore[assignment]
    sys.meta_path.insert(0, finder)
    try:
        module = _module(word)
        if len(STEP.parts) != num_parts:
            raise RefusedError("the row of an engine step takes no columns of a user's")
        return UserTracker(name_of(word), module, _hooks(module, word, taken_hooks), _streams(writer, module, before))
    except BaseException:
        del STEP.parts[num_parts:]
        STEP.streams, STEP.stream.table = streams, table
        STEP.stream.widen(())
        raise
    finally:
        sys.meta_path.remove(finder)
        THIS.writer = before


def _module(word: str) -> ModuleType:
    if word in sys.modules:
        raise RefusedError("the module was imported before ProfileMate came")
    if not is_file(word):
        return import_module(word)
    name = f"profilemate_user_{name_of(word)}"
    if not SAFE_NAME.fullmatch(name_of(word)):
        raise RefusedError(f"{name_of(word)!r} is no name of a module")
    if name in sys.modules:
        raise RefusedError("another tracker has this name")
    spec = importlib.util.spec_from_file_location(name, word)
    if spec is None or spec.loader is None:
        raise RefusedError("no Python file")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _hooks(module: ModuleType, word: str, taken: set[str]) -> tuple[Hook, ...]:
    hooks = tuple(getattr(module, "HOOKS", ()))
    if not hooks:
        raise RefusedError("it has no HOOKS")
    seen = {*taken, STEP_END.name, *NAMES, name_of(word)}
    for hook in hooks:
        if not isinstance(hook, Hook):
            raise RefusedError(f"HOOKS has a {type(hook).__name__}, not a Hook")
        if not isinstance(hook.name, str) or not SAFE_HOOK_NAME.fullmatch(hook.name):
            raise RefusedError(f"{hook.name!r} is no name of a hook: letters, digits and .:_-")
        if hook.name in seen:
            raise RefusedError(f"the hook name {hook.name} is taken")
        seen.add(hook.name)
        _check(hook)
    return tuple(hook._replace(tracker=name_of(word)) for hook in hooks)


def _check(hook: Hook) -> None:
    """Raises RefusedError for a hook whose fields are of the wrong kind."""
    texts = (hook.module, hook.target, hook.unless)
    handlers = [handler for handler in (hook.before, hook.after) if handler is not None]
    if not all(isinstance(text, str) for text in texts) or not hook.module or not hook.target:
        raise RefusedError(f"{hook.name}: module and target are names")
    if not isinstance(getattr(hook.kind, "body", None), str):
        raise RefusedError(f"{hook.name}: {hook.kind!r} is no kind of hook")
    if not handlers or not all(map(callable, handlers)):
        raise RefusedError(f"{hook.name}: its handlers are functions, `before` or `after` or both")
    if isinstance(hook.arguments, str) or not all(isinstance(name, str) for name in hook.arguments):
        raise RefusedError(f"{hook.name}: its arguments are a tuple of names")


def _streams(writer: _Writer, module: ModuleType, ours: Any) -> tuple[UserStream, ...]:
    for table in getattr(module, "TABLES", ()):
        writer.stream(table)
    taken = {*ours.streams, *(table.name for table in PROBE_TABLES), *_our_tables()}
    for name, stream in writer.streams.items():
        table = stream.table
        if not isinstance(name, str) or not SAFE_NAME.fullmatch(name):
            raise RefusedError(f"{name!r} is no name of a table: letters, digits and _")
        if name in taken:
            raise RefusedError(f"the table name {name} is taken")
        columns = table.columns
        if columns[:1] != (TIME,) or len(set(columns)) != len(columns) or not all(map(SAFE_NAME.fullmatch, columns)):
            raise RefusedError(f"{name}: columns are letters, digits and _, each once, and the first one is {TIME}")
    return tuple(writer.streams.values())


def _our_tables() -> set[str]:
    """Tables of all our trackers, whether on or off: their rows would be read as ours."""
    return {table.name for name in NAMES for table in import_module(f"profilemate.trackers.{name}.events").TABLES}


def adopt(tracker: UserTracker) -> None:
    """Let the process write its streams, those of an engine core at the end of every step."""
    for stream in tracker.streams:
        THIS.writer.streams[stream.table.name] = stream
    STEP.write_with(*tracker.streams)
