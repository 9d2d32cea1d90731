"""What each hook's target takes in a version of vLLM, read from its source text: nothing of that version is imported.

`tools/compat/signatures.json` keeps it for every version, so that a unit test knows which hook fits where without a download.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

SIGNATURES = Path(__file__).parent / "signatures.json"

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.ImportFrom | ast.Assign
FOLLOWED_IMPORTS = 5
"""How many `from x import y` a name may have come through."""


@dataclass(frozen=True)
class Target:
    """A target as a version defines it. `takes` is its parameter list without annotations, None where there is none."""

    takes: str | None
    kind: str = "function"
    """function, coroutine, generator, or the decorator that makes it something else (property, classmethod, staticmethod)."""


def describe(files: Path, module: str, target: str) -> Target:
    """Read one target; `files` holds the package."""
    found = _find(files, module, target.split("."), FOLLOWED_IMPORTS)
    if not isinstance(found, (ast.FunctionDef, ast.AsyncFunctionDef)):
        return Target(None)
    return Target(_parameters(found.args), _kind(found))


def _find(files: Path, module: str, path: list[str], imports_left: int) -> Definition | None:
    source = _source(files, module)
    if source is None:
        return None
    scope: Any = ast.parse(source.read_text(encoding="utf-8"))
    found: Definition | None = None
    for number, name in enumerate(path):
        found = _definition(scope, name)
        if isinstance(found, ast.ImportFrom) and imports_left:
            origin = _origin(module, found, source.name == "__init__.py")
            alias = next(alias.name for alias in found.names if (alias.asname or alias.name) == name)
            return _find(files, origin, [alias, *path[number + 1 :]], imports_left - 1)
        if found is None:
            return None
        scope = found
    return found


def _source(files: Path, module: str) -> Path | None:
    stem = files.joinpath(*module.split("."))
    return next((path for path in (stem.with_suffix(".py"), stem / "__init__.py") if path.is_file()), None)


def _origin(module: str, found: ast.ImportFrom, is_package: bool) -> str:
    if not found.level:
        return found.module or ""
    parts = module.split(".")
    base = parts[: len(parts) - found.level + is_package]
    return ".".join([*base, *([found.module] if found.module else [])])


def _definition(scope: Any, name: str) -> Definition | None:
    """The last definition of a name in a module's or a class's own body, where Python would find it."""
    found = None
    for node in _statements(scope.body):
        if (isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) and node.name == name) or (
            isinstance(node, ast.ImportFrom) and any((alias.asname or alias.name) == name for alias in node.names)
        ):
            found = node
    return found


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    for node in body:
        yield node
        if isinstance(node, ast.If) and "TYPE_CHECKING" not in ast.unparse(node.test):
            yield from _statements([*node.body, *node.orelse])
        elif isinstance(node, ast.Try):
            yield from _statements([*node.body, *node.orelse, *node.finalbody])


def _parameters(arguments: ast.arguments) -> str:
    for one in ast.walk(arguments):
        if isinstance(one, ast.arg):
            one.annotation = None
    none = ast.Constant(None)
    arguments.defaults = [none for _ in arguments.defaults]
    arguments.kw_defaults = [None if default is None else none for default in arguments.kw_defaults]
    return ast.unparse(arguments)


def _kind(function: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    decorators = {ast.unparse(one).split("(")[0].rpartition(".")[2] for one in function.decorator_list}
    for kind in ("property", "classmethod", "staticmethod", "cached_property"):
        if kind in decorators:
            return kind
    if "contextmanager" in decorators:  # the name stands for a plain function that returns the context
        return "function"
    if isinstance(function, ast.AsyncFunctionDef):
        return "coroutine"
    return (
        "generator"
        if any(isinstance(node, (ast.Yield, ast.YieldFrom)) for node in _own_nodes(function))
        else "function"
    )


def _own_nodes(function: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(function):
        if not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            yield child
            yield from _own_nodes(child)


def key_of(module: str, target: str) -> str:
    """The name of a target in signatures.json."""
    return f"{module}:{target}"


def read_version(files: Path, targets: list[tuple[str, str]]) -> dict[str, dict[str, Any]]:
    """Every target that a version has."""
    found = {key_of(*target): describe(files, *target) for target in sorted(set(targets))}
    return {key: asdict(target) for key, target in found.items() if target.takes is not None}


_HEADS = {
    "function": "def {name}({takes}): pass",
    "coroutine": "async def {name}({takes}): pass",
    "generator": "def {name}({takes}): yield",
}


def pretend_module(name: str, targets: dict[str, dict[str, Any]]) -> ModuleType:
    """A module with the recorded targets of that name, for the very code that decides in a server whether a hook fits."""
    module = ModuleType(name)
    for key, told in targets.items():
        of_module, _, path = key.partition(":")
        if of_module == name:
            _put(module, path.split("."), told)
    return module


def _put(owner: Any, path: list[str], told: dict[str, Any]) -> None:
    *classes, name = path
    for part in classes:
        if part not in vars(owner):
            setattr(owner, part, type(part, (), {}))
        owner = vars(owner)[part]
    head = _HEADS.get(
        told["kind"],
        f"@{told['kind']}\n{_HEADS['function']}"
        if told["kind"] != "cached_property"
        else "@property\n" + _HEADS["function"],
    )
    names: dict[str, Any] = {}
    exec(head.format(name=name, takes=told["takes"]), names)
    setattr(owner, name, names[name])
