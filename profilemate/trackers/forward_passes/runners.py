"""Hooks on vLLM's model runners that find the serving forward pass, on both runners.

V1 runner: the batch is dispatched in `_determine_batch_execution_and_padding` and runs in `_model_forward`; vLLM 0.11 has
neither, there a pass is from `CudagraphDispatcher.dispatch` to the end of `execute_model`.
V2 runner: `dispatch_cg_and_sync_dp` decides; CudaGraphManager replays FULL graphs itself, runs PIECEWISE ones below
`run_pw_graph`, and without a graph the pass is from `forward_start` to the end of `execute_model`.
"""

from __future__ import annotations

from time import monotonic_ns
from typing import Any

from profilemate.probe import phase
from profilemate.probe.hook import AHEAD, AROUND, FOLLOWING, SELF, Hook
from profilemate.probe.process import THIS
from profilemate.trackers.forward_passes import descriptor as describe
from profilemate.trackers.forward_passes import recorder
from profilemate.trackers.forward_passes.device_clock import CLOCK
from profilemate.trackers.forward_passes.recorder import (
    FORWARD,
    ROW_ALONE,
    TOLD_BY_THE_BATCH,
    read_device_times,
    write_more,
)

RUNS_OF_VLLMS_OWN = phase.STACK
"""Not empty while vLLM runs the model for itself: warm-up, profiling, capture."""

V2_FIELDS: set[str] = set()
"""Empty under the V1 runner; under V2 the fields that this version's BatchExecutionDescriptor has."""


def execute_begins(scheduler_output: Any) -> int:
    """`execute_model` of a runner: an engine step in this worker, unless it is a run of vLLM's own. When it began, or 0."""
    if RUNS_OF_VLLMS_OWN:
        return 0
    FORWARD.step += 1
    FORWARD.pending = False
    return monotonic_ns()


def execute_ends(began_ns: int, result: Any, scheduler_output: Any) -> None:
    """The pass was launched: its row goes to the kernel now."""
    if not began_ns:
        return
    now = monotonic_ns()
    if FORWARD.pending:
        FORWARD.execute_ns = now - began_ns
        FORWARD.finish(now, scheduler_output)
    if CLOCK.waiting:
        read_device_times()
    if FORWARD.more:
        write_more(now)
    else:
        THIS.flush_step(ROW_ALONE, now)


def sample_begins() -> int:
    """`sample_tokens` of a runner; drafters run here."""
    return monotonic_ns()


def sample_ends(began_ns: int, result: Any) -> None:
    """Its time stands in the next row, which costs nothing; what drafters replayed goes to the kernel now."""
    if not RUNS_OF_VLLMS_OWN:
        now = monotonic_ns()
        FORWARD.sample_ns = now - began_ns
        if FORWARD.more:
            write_more(now)


def v1_dispatched(result: Any, num_tokens: int, num_reqs: int) -> None:
    """Mode and descriptor of the batch, after data-parallel ranks agreed."""
    if not RUNS_OF_VLLMS_OWN:
        mode, batch = result[0], result[1]
        if mode is not FORWARD.mode or batch != FORWARD.batch:  # it mostly is that of the pass before
            FORWARD.mode, FORWARD.batch = mode, batch
            FORWARD.descriptor = describe.of_batch(mode, batch)
        FORWARD.dispatched(int(num_tokens), int(num_reqs))


def v1_descriptor_dispatched(result: Any, batch_descriptor: Any) -> None:
    """VLLM 0.11: mode and descriptor of the batch, which the runner is about to launch. `finish` finds what is in it."""
    if not RUNS_OF_VLLMS_OWN:
        mode, batch = result
        FORWARD.descriptor = describe.of_batch(mode, batch or batch_descriptor)
        FORWARD.dispatched(TOLD_BY_THE_BATCH, TOLD_BY_THE_BATCH)
        FORWARD.begin()


def v2_dispatched(result: Any, num_tokens: int, num_reqs: int) -> None:
    """The batch's descriptor, after data-parallel ranks agreed; none runs where it has no tokens."""
    desc = result[0] if isinstance(result, tuple) else result
    note_v2(desc)
    if not RUNS_OF_VLLMS_OWN and desc.num_tokens:
        if desc is not FORWARD.batch:
            FORWARD.batch = desc
            FORWARD.descriptor = describe.of_execution(desc)
        FORWARD.dispatched(int(num_tokens), int(num_reqs))


def note_v2(desc: Any) -> None:
    """This process runs the V2 runner."""
    if not V2_FIELDS:
        V2_FIELDS.update(getattr(desc, "__dataclass_fields__", ("cg_mode",)))


def full_graph_begins(manager: Any, desc: Any) -> bool:
    """`run_fullgraph`: the main model's pass, if it replays the very descriptor that was dispatched for it."""
    is_main = FORWARD.pending and desc is FORWARD.batch
    if is_main:
        FORWARD.begin()
    return is_main


def full_graph_ends(is_main: bool, result: Any, manager: Any, desc: Any) -> None:
    """One FULL graph was replayed."""
    if is_main:
        FORWARD.graphs += 1
        FORWARD.end()
    else:
        FORWARD.other_graph(manager, desc)


def after_fork() -> None:
    """A forked child starts at zero. Every tracker that contributes to the row calls it."""
    recorder.after_fork()
    V2_FIELDS.clear()


V1 = "vllm.v1.worker.gpu_model_runner"
DISPATCHER = "vllm.v1.cudagraph_dispatcher"
V2 = "vllm.v1.worker.gpu.model_runner"
MANAGER = "vllm.v1.worker.gpu.cudagraph_utils"
TIMING = "vllm.v1.worker.gpu.async_utils"


def _hook(name: str, module: str, target: str, *rest: Any, **options: Any) -> Hook:
    return Hook(name, "forward_passes", module, target, *rest, **options)


PASS_HOOKS = (
    _hook(
        "v1_runner.execute_model", V1, "GPUModelRunner.execute_model", AROUND, execute_begins, execute_ends,
        ("scheduler_output",),
    ),
    _hook(
        "v1_runner.sample_tokens", V1, "GPUModelRunner.sample_tokens", AROUND, sample_begins, sample_ends, optional=True
    ),
    _hook(
        "v1_runner.dispatch", V1, "GPUModelRunner._determine_batch_execution_and_padding", FOLLOWING, None,
        v1_dispatched, ("num_tokens", "num_reqs"),
    ),
    _hook(
        "v1_runner.dispatch_of_descriptor", DISPATCHER, "CudagraphDispatcher.dispatch", FOLLOWING, None,
        v1_descriptor_dispatched, ("batch_descriptor",), unless="CudagraphDispatcher._create_padded_batch_descriptor",
    ),
    _hook(
        "v1_runner.forward", V1, "GPUModelRunner._model_forward", AROUND, FORWARD.begin, FORWARD.end, optional=True
    ),
    _hook(
        "v2_runner.execute_model", V2, "GPUModelRunner.execute_model", AROUND, execute_begins, execute_ends,
        ("scheduler_output",),
    ),
    _hook(
        "v2_runner.sample_tokens", V2, "GPUModelRunner.sample_tokens", AROUND, sample_begins, sample_ends, optional=True
    ),
    _hook(
        "v2_runner.dispatch", V2, "dispatch_cg_and_sync_dp", FOLLOWING, None, v2_dispatched, ("num_tokens", "num_reqs")
    ),
    _hook(
        "v2_runner.forward_start", TIMING, "StepTimingCollector.forward_start", AHEAD, FORWARD.begin, optional=True
    ),
    _hook(
        "graph_manager.run_fullgraph", MANAGER, "CudaGraphManager.run_fullgraph", AROUND, full_graph_begins,
        full_graph_ends, (SELF, "desc"),
    ),
    _hook(
        "graph_manager.run_pw_graph", MANAGER, "CudaGraphManager.run_pw_graph", AROUND, FORWARD.begin, FORWARD.end,
        optional=True,
    ),
)  # fmt: skip


def pass_hooks(tracker: str) -> tuple[Hook, ...]:
    """The hooks of the recorder for a tracker that contributes to the row; several may, they are put in once by name."""
    return tuple(hook._replace(tracker=tracker) for hook in PASS_HOOKS)
