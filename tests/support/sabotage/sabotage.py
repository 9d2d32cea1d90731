"""Breaks ProfileMate's handlers, or what they see of vLLM, and leaves vLLM itself as it is.

    SABOTAGE=before|after    every handler of this kind raises; each time is a line of SABOTAGE_LOG: pid, hook
    SABOTAGE=removed|raising|rubbish    ATTRIBUTES of vLLM's classes are so for ProfileMate, and as always for vLLM

The first needs the sitecustomize.py beside this file on the path, the second the general plugin.
"""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

HANDLERS = ("before", "after")
MISSING = object()


class Chaos(Exception):
    """What our handlers raise."""


class Unspeakable(Chaos):
    """An exception that cannot even be printed."""

    def __str__(self) -> str:
        raise ValueError("no words")


EXCEPTIONS: tuple[type[Exception], ...] = (
    Chaos, Unspeakable, StopIteration, AttributeError, KeyError, RecursionError, MemoryError, OSError,
)  # fmt: skip


class Rubbish:
    """Has every attribute and can do everything, and nothing of it makes sense."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return self

    def __getitem__(self, key: Any) -> Any:
        return self

    def __iter__(self) -> Iterator[Any]:
        return iter((self, None, "text"))

    def __len__(self) -> int:
        return 3

    def __int__(self) -> int:
        return -7

    __index__ = __int__

    def __float__(self) -> float:
        return float("nan")

    def __str__(self) -> str:
        return 'one,"two"\nthree'

    def __hash__(self) -> int:
        return 1

    def __eq__(self, other: object) -> bool:
        return True

    def __lt__(self, other: object) -> bool:
        return True

    __gt__ = __le__ = __ge__ = __lt__

    def __add__(self, other: Any) -> Any:
        return self

    __radd__ = __sub__ = __rsub__ = __iadd__ = __mul__ = __rmul__ = __mod__ = __add__


class Unfriendly:
    """Raises whatever is asked of it."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(f"{name}: leave me alone")

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__

    def __bool__(self) -> bool:
        raise RuntimeError("neither")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no equal")

    __hash__ = None  # type: ignore[assignment]


STRANGERS: dict[str, Callable[[], Any]] = {"rubbish": Rubbish, "unfriendly": Unfriendly, "none": lambda: None}
"""What a handler may get instead of vLLM's objects."""


def break_hook(hook: Any, which: str, note: Callable[[str], object] = lambda name: None) -> Any:
    """The hook with its `before` or `after` made to raise, if it has one; it tells `note` its name first."""
    if getattr(hook, which) is None:
        return hook
    exceptions = itertools.cycle(EXCEPTIONS)

    def explode(*_: Any) -> Any:
        note(hook.name)
        raise next(exceptions)("made to fail")

    return hook._replace(**{which: explode})


def estrange_hook(hook: Any, stranger: str, note: Callable[[str], object] = lambda name: None) -> Any:
    """The hook with handlers that get strange objects in the place of all arguments and of the original's result."""

    def estrange(handler: Any, kept: int) -> Any:
        def handle(*values: Any) -> Any:
            note(hook.name)
            return handler(*values[:kept], *(STRANGERS[stranger]() for _ in values[kept:]))

        return handler and handle

    token = 1 if hook.before and hook.after else 0
    return hook._replace(before=estrange(hook.before, 0), after=estrange(hook.after, token))


def replace_hooks(change: Callable[[Any], Any]) -> None:
    """Let ProfileMate put in changed hooks. Call it before ProfileMate starts."""
    from profilemate.probe import install

    probe_hooks, tracker_hooks = install.probe_hooks, install.tracker_hooks
    install.probe_hooks = lambda: tuple(change(hook) for hook in probe_hooks())
    install.tracker_hooks = lambda tracker: tuple(change(hook) for hook in tracker_hooks(tracker))


def begin() -> None:
    """Break the handlers that SABOTAGE names."""
    which = os.environ.get("SABOTAGE", "")
    if which in HANDLERS:
        replace_hooks(lambda hook: break_hook(hook, which, log))


def log(name: str) -> None:
    """One line of SABOTAGE_LOG."""
    descriptor = os.open(os.environ["SABOTAGE_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(descriptor, f"{os.getpid()} {name}\n".encode())
    os.close(descriptor)


# -- attributes of vLLM ---------------------------------------------------------------------------------------------------

ATTRIBUTES = {
    "vllm.v1.core.block_pool:BlockPool": (
        "num_gpu_blocks", "blocks", "enable_caching", "get_num_free_blocks", "cached_block_hash_to_block",
    ),
    "vllm.v1.core.kv_cache_utils:KVCacheBlock": ("block_id", "ref_cnt", "block_hash", "is_null"),
    "vllm.v1.core.kv_cache_manager:KVCacheManager": ("block_pool", "enable_caching"),
    "vllm.v1.core.sched.scheduler:Scheduler": ("kv_cache_manager", "requests", "vllm_config"),
    "vllm.v1.core.sched.output:SchedulerOutput": ("total_num_scheduled_tokens", "scheduled_new_reqs"),
    "vllm.v1.request:Request": ("num_tokens", "num_prompt_tokens", "num_preemptions", "skip_reading_prefix_cache"),
    "vllm.v1.worker.worker_base:WorkerWrapperBase": ("worker",),
    "vllm.v1.worker.gpu_worker:Worker": ("vllm_config", "rank", "local_rank"),
    "vllm.compilation.cuda_graph:CUDAGraphWrapper": ("concrete_cudagraph_entries", "runtime_mode"),
    "vllm.forward_context:ForwardContext": ("cudagraph_runtime_mode", "batch_descriptor", "ubatch_slices"),
}  # fmt: skip
"""Where ProfileMate's hooks read what they record."""


class Strange:
    """In the place of an attribute of a class: strange when ProfileMate asks, and what it always was when vLLM does."""

    def __init__(self, owner: type, name: str, kind: str) -> None:
        self.name, self.kind = name, kind
        self.real = next((vars(base)[name] for base in owner.__mro__ if name in vars(base)), MISSING)

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if sys._getframe(1).f_globals.get("__name__", "").startswith("profilemate."):
            return self._strange()
        if hasattr(type(self.real), "__get__"):
            return self.real.__get__(instance, owner)
        if instance is not None and self.name in vars(instance):
            return vars(instance)[self.name]
        if self.real is MISSING:
            raise AttributeError(self.name)
        return self.real

    def _strange(self) -> Any:
        if self.kind == "removed":
            raise AttributeError(self.name)
        if self.kind == "raising":
            raise RuntimeError(f"{self.name} is not for you")
        return Rubbish()

    def __set__(self, instance: Any, value: Any) -> None:
        if hasattr(type(self.real), "__set__"):
            self.real.__set__(instance, value)
        else:
            vars(instance)[self.name] = value

    def __delete__(self, instance: Any) -> None:
        if hasattr(type(self.real), "__delete__"):
            self.real.__delete__(instance)
        else:
            del vars(instance)[self.name]


def estrange_attributes(kind: str) -> Callable[[], None]:
    """Make ATTRIBUTES strange to ProfileMate; the function that comes back undoes it."""
    undo: list[tuple[type, str, Any]] = []
    for place, names in ATTRIBUTES.items():
        module, _, name = place.partition(":")
        owner = getattr(import_module(module), name)
        for attribute in names:
            undo.append((owner, attribute, vars(owner).get(attribute, MISSING)))
            setattr(owner, attribute, Strange(owner, attribute, kind))

    def restore() -> None:
        for owner, attribute, real in undo:
            if real is MISSING:
                delattr(owner, attribute)
            else:
                setattr(owner, attribute, real)

    return restore


def register() -> None:
    """The general plugin: vLLM calls it in each of its processes, more than once in some."""
    kind = os.environ.get("SABOTAGE", "")
    if kind in ("removed", "raising", "rubbish") and not _strangers:
        _strangers.append(estrange_attributes(kind))


_strangers: list[Callable[[], None]] = []
