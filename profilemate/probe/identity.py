"""Hooks that tell which process this is and which phase it is in, from vLLM's own state."""

from __future__ import annotations

import os
import sys
from typing import Any

from profilemate.probe import install, phase
from profilemate.probe.hook import AHEAD, AROUND, FOLLOWING, SCOPE, SELF, Hook
from profilemate.probe.process import THIS, multiprocessing_parent
from profilemate.schema import names


def read(source: Any, path: str) -> Any:
    """An attribute by dotted path, or None: vLLM's configuration changes its shape between versions."""
    for name in path.split("."):
        source = getattr(source, name, None)
        if source is None:
            return None
    return source


ENGINE_CONFIG = {
    "model": "model_config.model",
    "model_type": "model_config.hf_config.model_type",
    "is_multimodal": "model_config.is_multimodal_model",
    "is_encoder_decoder": "model_config.is_encoder_decoder",
    "dtype": "model_config.dtype",
    "max_model_len": "model_config.max_model_len",
    "enforce_eager": "model_config.enforce_eager",
    "block_size": "cache_config.block_size",
    "num_gpu_blocks": "cache_config.num_gpu_blocks",
    "num_gpu_blocks_override": "cache_config.num_gpu_blocks_override",
    "gpu_memory_utilization": "cache_config.gpu_memory_utilization",
    "cache_dtype": "cache_config.cache_dtype",
    "enable_prefix_caching": "cache_config.enable_prefix_caching",
    "max_num_seqs": "scheduler_config.max_num_seqs",
    "max_num_batched_tokens": "scheduler_config.max_num_batched_tokens",
    "async_scheduling": "scheduler_config.async_scheduling",
    "tensor_parallel_size": "parallel_config.tensor_parallel_size",
    "pipeline_parallel_size": "parallel_config.pipeline_parallel_size",
    "data_parallel_size": "parallel_config.data_parallel_size",
    "cudagraph_mode": "compilation_config.cudagraph_mode",
    "cudagraph_capture_sizes": "compilation_config.cudagraph_capture_sizes",
    "compilation_mode": "compilation_config.mode",
    "device": "device_config.device_type",
}
"""What is written of vLLM's configuration. A list of what may be written, so that no secret ever is."""


def note_engine_config(vllm_config: Any) -> None:
    """Keep the allowed settings, as JSON can hold them, and the number of processes that share the size cap."""
    for name, path in ENGINE_CONFIG.items():
        value = read(vllm_config, path)
        if value is not None:
            THIS.engine_config[name] = plain(value)
    THIS.num_processes = processes_of(vllm_config)


def processes_of(vllm_config: Any) -> int:
    """How many processes a configuration makes: an engine core and its workers for each engine, and a front end."""
    world = read(vllm_config, "parallel_config.world_size") or 1
    data_parallel = read(vllm_config, "parallel_config.data_parallel_size") or 1
    return (int(world) + 1) * int(data_parallel) + 1


def plain(value: Any) -> Any:
    """Numbers, booleans and lists of them as they are; an enum by its name; all else as text."""
    if isinstance(value, str) and not hasattr(value, "name"):
        return without_secrets(value)
    if isinstance(value, (bool, int, float)) and not hasattr(value, "name"):
        return value
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return without_secrets(str(getattr(value, "name", value)))


def without_secrets(text: str) -> str:
    """An address without user, password and query: a model may be named by one, as `s3://KEY:SECRET@bucket/model?token=...`."""
    scheme, separator, rest = text.partition("://")
    if not separator:
        return text
    path = rest.partition("?")[0].partition("#")[0]
    host, slash, below = path.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{below}"


# -- front end ----------------------------------------------------------------------------------------------------------


def engine_arguments_made(result: None, arguments: Any) -> None:
    """Engine arguments were built: only a process that launches an engine does that, or its front-end child."""
    THIS.join_or_begin_session(launches=True)
    note_asked_sizes(arguments)
    pass_session_to_ray(arguments)


def note_asked_sizes(arguments: Any) -> None:
    """Capture sizes as they were asked for: vLLM's configuration has what it made of them, in its place."""
    asked = arguments, read(arguments, "compilation_config")
    sizes = next((found for one in asked if (found := read(one, "cudagraph_capture_sizes"))), None)
    if isinstance(sizes, (list, tuple)):
        THIS.engine_config[names.ASKED_SIZES] = plain(sizes)
        THIS.dirty = True


RAY_COPIES = "VLLM_RAY_EXTRA_ENV_VARS_TO_COPY"
OUR_PREFIX = "PROFILEMATE_"


def pass_session_to_ray(config: Any) -> None:
    """Ask vLLM's older Ray executor to copy our variables to its workers; the newer one copies all."""
    backends = [getattr(config, f"{name}_backend", "") for name in ("distributed_executor", "data_parallel")]
    if not any("ray" in str(backend).lower() for backend in backends):
        return
    ours = [key for key in os.environ if key.startswith(OUR_PREFIX)]
    before = [key for key in os.environ.get(RAY_COPIES, "").split(",") if key]
    os.environ[RAY_COPIES] = ",".join([*before, *(key for key in ours if key not in before)])


def forget_ray_copies() -> None:
    """In a worker: take our names off that list again. VLLM hashes the variable into the key of its compile cache."""
    copied = os.environ.get(RAY_COPIES)
    if copied is None or OUR_PREFIX not in copied:
        return
    others = [key for key in copied.split(",") if key and not key.startswith(OUR_PREFIX)]
    if others:
        os.environ[RAY_COPIES] = ",".join(others)
    else:
        del os.environ[RAY_COPIES]


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


# -- phases -------------------------------------------------------------------------------------------------------------


def _phase_hook(name: str, module: str, target: str, phase_name: str) -> Hook:
    def enter() -> int:
        return phase.enter(phase_name)

    def leave(depth: int) -> None:
        phase.leave(depth)
        if depth == 0:
            THIS.flush()

    def enter_worker(worker: Any) -> int:
        worker_phase_begins(worker)
        return phase.enter(phase_name)

    def leave_worker(depth: int, worker: Any) -> None:
        leave(depth)

    if module in (GPU_WORKER, CPU_WORKER):
        return Hook(name, "probe", module, target, SCOPE, enter_worker, leave_worker, (SELF,), optional=True)
    return Hook(name, "probe", module, target, SCOPE, enter, leave, optional=True)


V1_RUNNER = "vllm.v1.worker.gpu_model_runner"
V2_RUNNER = "vllm.v1.worker.gpu.model_runner"
GPU_WORKER = "vllm.v1.worker.gpu_worker"
CPU_WORKER = "vllm.v1.worker.cpu_worker"

PHASES = (
    ("gpu_worker.determine_available_memory", GPU_WORKER, "Worker.determine_available_memory", "profile"),
    ("cpu_worker.determine_available_memory", CPU_WORKER, "CPUWorker.determine_available_memory", "profile"),
    ("gpu_worker.warm_up", GPU_WORKER, "Worker.compile_or_warm_up_model", "warm_up"),
    ("cpu_worker.warm_up", CPU_WORKER, "CPUWorker.compile_or_warm_up_model", "warm_up"),
    ("gpu_worker.dummy_batch", GPU_WORKER, "Worker.execute_dummy_batch", "dummy"),
    ("v1_runner.dummy_run", V1_RUNNER, "GPUModelRunner._dummy_run", "dummy"),
    ("v1_runner.profile_run", V1_RUNNER, "GPUModelRunner.profile_run", "profile"),
    ("v1_runner.capture_model", V1_RUNNER, "GPUModelRunner.capture_model", "capture"),
    ("v1_runner.estimate", V1_RUNNER, "GPUModelRunner.profile_cudagraph_memory", "estimate"),
    ("v2_runner.dummy_run", V2_RUNNER, "GPUModelRunner._dummy_run", "dummy"),
    ("v2_runner.profile_run", V2_RUNNER, "GPUModelRunner.profile_run", "profile"),
    ("v2_runner.capture_model", V2_RUNNER, "GPUModelRunner.capture_model", "capture"),
    ("v2_runner.estimate", V2_RUNNER, "GPUModelRunner.profile_cudagraph_memory", "estimate"),
)

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
    *(_phase_hook(*row) for row in PHASES),
)
