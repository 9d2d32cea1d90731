"""Hooks that tell which process this is, from vLLM's own state."""

from __future__ import annotations

import os
import sys
from typing import Any

from profilemate.probe import install
from profilemate.probe.engine_config import note_asked_sizes, note_engine_config, processes_of, read
from profilemate.probe.hook import AHEAD, AROUND, FOLLOWING, SCOPE, SELF, Hook
from profilemate.probe.process import THIS, multiprocessing_parent
from profilemate.probe.ray_variables import forget_ray_copies, pass_session_to_ray
from profilemate.schema import names

# -- front end ----------------------------------------------------------------------------------------------------------


def engine_arguments_made(result: None, arguments: Any) -> None:
    """Engine arguments were built: only a process that launches an engine does that, or its front-end child."""
    THIS.join_or_begin_session(launches=True)
    note_asked_sizes(arguments)
    pass_session_to_ray(arguments)


def engine_config_wanted() -> None:
    """Engine arguments become a configuration: also seen where a plugin was loaded while they were being built."""
    THIS.join_or_begin_session(launches=True)


def engine_config_made(token: None, config: Any) -> None:
    """What vLLM itself chose is known now, before any process of the engine starts: its executor, and how many they are."""
    os.environ[names.ENV_PROCESSES] = str(processes_of(config))
    pass_session_to_ray(getattr(config, "parallel_config", None))


def offline_front_end() -> None:
    """`LLM(...)` in a script."""
    THIS.take_role("LLM", launches=True)


def api_server(client_index: int, client_count: int | None) -> None:
    """AsyncLLM: the front end of a server, numbered where there are several."""
    several = (client_count or 1) > 1
    THIS.take_role("APIServer", f"APIServer_{client_index}" if several else "", launches=True)


# -- engine core --------------------------------------------------------------------------------------------------------


def engine_core_begins(vllm_config: Any) -> None:
    """EngineCore's constructor: know the role before the first row is made."""
    note_engine_core(vllm_config)


def scheduler_made(result: None, scheduler: Any) -> None:
    """A scheduler: the role where EngineCore's constructor ran before us (as a plugin loaded in it), or a script's own."""
    note_engine_core(getattr(scheduler, "vllm_config", None))


def note_engine_core(config: Any) -> None:
    """This process holds an engine's scheduler. Idempotent for one engine."""
    if "EngineCore" in THIS.roles:
        return
    if config is not None:
        note_engine_config(config)
    index = read(config, "parallel_config.data_parallel_index")
    rank = read(config, "parallel_config.data_parallel_rank") if index is None else index
    THIS.engine_index = int(rank or 0)
    count = read(config, "parallel_config.data_parallel_size") or 1
    titled = process_title()
    name = titled if titled.startswith("EngineCore_DP") else f"EngineCore_DP{rank}" if count > 1 else ""
    THIS.take_role("EngineCore", name)


def process_title() -> str:
    """The name that multiprocessing gave this process.

    Dense models run data parallel as engines of size 1 each, and then only the name tells their number.
    """
    multiprocessing = sys.modules.get("multiprocessing.process")
    return "" if multiprocessing is None else str(multiprocessing.current_process().name)


def parent_title() -> str:
    """The same of the process that started this one: of a worker, its engine core."""
    return str(getattr(multiprocessing_parent(), "name", ""))


def engine_core_ready(token: None, vllm_config: Any) -> None:
    """The KV cache has its size now."""
    note_engine_config(vllm_config)
    THIS.dirty = True
    THIS.flush()


# -- worker -------------------------------------------------------------------------------------------------------------

GROUPS = {"dp": "get_dp_group", "pp": "get_pp_group", "tp": "get_tp_group", "ep": "get_ep_group"}


def worker_has_device(result: Any, wrapper: Any) -> None:
    """The worker's process groups exist now: take its ranks, name it as vLLM does, and hook torch."""
    worker = getattr(wrapper, "worker", None) or wrapper
    ranks, sizes = group_ranks()
    config = getattr(worker, "vllm_config", None)
    data_parallel = read(config, "parallel_config.data_parallel_index")
    if data_parallel:
        ranks["dp"] = int(data_parallel)
    several = {name for name in GROUPS if sizes.get(name, 1) > 1}
    if parent_title().startswith("EngineCore_DP"):
        several.add("dp")
    THIS.ranks = {**ranks, **{f"{name}_size": size for name, size in sizes.items()}}
    for name in ("rank", "local_rank"):
        value = getattr(worker, name, None)
        if isinstance(value, int):
            THIS.ranks[name] = value
    if config is not None:
        note_engine_config(config)
    parts = "".join(f"_{name.upper()}{ranks.get(name, 0)}" for name in GROUPS if name in several)
    THIS.take_role("Worker", "Worker" + parts)
    install.install_late_hooks()
    forget_ray_copies()
    THIS.flush()


def worker_phase_begins(worker: Any) -> None:
    """A worker warms up: its role, where nothing told it before.

    Ray gives the class of an actor copies of all methods that it inherits, made before a plugin of the worker can hook them,
    so vLLM's older Ray executor calls `init_device` past the hook on `WorkerWrapperBase`.
    """
    if "Worker" not in THIS.roles:
        worker_has_device(None, worker)


def group_ranks() -> tuple[dict[str, int], dict[str, int]]:
    """Rank and size of this process in each of vLLM's process groups that exists."""
    ranks: dict[str, int] = {}
    sizes: dict[str, int] = {}
    state = sys.modules.get("vllm.distributed.parallel_state")
    for name, function in GROUPS.items():
        try:
            group = getattr(state, function)()
            ranks[name], sizes[name] = int(group.rank_in_group), int(group.world_size)
        except Exception:  # vLLM asserts where a group does not exist
            continue
    return ranks, sizes


HOOKS = (
    Hook(
        "engine_args",
        "probe",
        "vllm.engine.arg_utils",
        "EngineArgs.__post_init__",
        FOLLOWING,
        None,
        engine_arguments_made,
        (SELF,),
    ),
    Hook(
        "engine_args.config",
        "probe",
        "vllm.engine.arg_utils",
        "EngineArgs.create_engine_config",
        AROUND,
        engine_config_wanted,
        engine_config_made,
        optional=True,
    ),
    Hook(
        "llm_engine",
        "probe",
        "vllm.v1.engine.llm_engine",
        "LLMEngine.__init__",
        AHEAD,
        offline_front_end,
        optional=True,
    ),
    Hook("llm", "probe", "vllm.entrypoints.llm", "LLM.__init__", AHEAD, offline_front_end, optional=True),
    Hook(
        "async_llm",
        "probe",
        "vllm.v1.engine.async_llm",
        "AsyncLLM.__init__",
        AHEAD,
        api_server,
        None,
        ("client_index", "client_count"),
        optional=True,
    ),
    Hook(
        "engine_core.begin",
        "probe",
        "vllm.v1.engine.core",
        "EngineCore.__init__",
        SCOPE,
        engine_core_begins,
        engine_core_ready,
        ("vllm_config",),
    ),
    Hook(
        "scheduler.begin",
        "probe",
        "vllm.v1.core.sched.scheduler",
        "Scheduler.__init__",
        FOLLOWING,
        None,
        scheduler_made,
        (SELF,),
    ),
    Hook(
        "worker.device",
        "probe",
        "vllm.v1.worker.worker_base",
        "WorkerWrapperBase.init_device",
        FOLLOWING,
        None,
        worker_has_device,
        (SELF,),
    ),
)
