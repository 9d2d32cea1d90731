"""Hooks around the Python of a step, in the front end, the engine core and the worker, on both model runners.

This tracker stands first among the trackers, so that its wrappers are the innermost: what others do at the same place is not
in its times. What they do at places nested in an operation is.
"""

from __future__ import annotations

from time import monotonic_ns
from typing import Any

from profilemate.probe.engine_step import STEP as STEP_ROW
from profilemate.probe.hook import AROUND, Hook
from profilemate.probe.pace import SHORTEST_PAUSE_NS, pause_ns
from profilemate.probe.phase import STACK
from profilemate.probe.process import THIS
from profilemate.trackers.cpu_operations.operations import SERIALISE, STEP
from profilemate.trackers.cpu_operations.tally import ROWS, TALLIES, Amount, begins, ends_of, write_totals

STEP_ROW.write_with(ROWS)

MOST_STEPS_OPEN = 64
"""Batches that were scheduled and never updated are forgotten: a scheduler of a pipeline has one open for each stage."""

_steps_begun: dict[int, int] = {}
_covered_until_ns = 0
_launching = False
_next_flush_ns = 0
_next_totals_ns = 0


def tokens_of(result: Any, scheduler_output: Any) -> Any:
    """Tokens of the batch."""
    return getattr(scheduler_output, "total_num_scheduled_tokens", None)


def num_items(result: Any, items: Any) -> int:
    """Outputs, or tokens of an output."""
    return len(items)


def bytes_of(frames: Any) -> int:
    """Bytes of the first frame of a message; those after it are tensors that are not copied."""
    return len(frames[0])


# -- engine core --------------------------------------------------------------------------------------------------------

schedule_ended = ends_of("schedule", lambda scheduled: tokens_of(None, scheduled))


def scheduled(began_ns: int, batch: Any) -> None:
    """A step begins; with async scheduling the one before it may still be open."""
    schedule_ended(began_ns, batch)
    if len(_steps_begun) >= MOST_STEPS_OPEN:
        _steps_begun.clear()
    _steps_begun[id(batch)] = began_ns


update_ended = ends_of("update_from_output", tokens_of)


def updated(began_ns: int, outputs: Any, batch: Any) -> None:
    """A step ends. Its time is that which no earlier step covered, so that the sum is time on the clock."""
    global _covered_until_ns
    update_ended(began_ns, outputs, batch)
    step_began_ns = _steps_begun.pop(id(batch), 0)
    if step_began_ns and began_ns:
        step_began_ns = max(step_began_ns, _covered_until_ns)
        _covered_until_ns = monotonic_ns()
        TALLIES[STEP].note(step_began_ns, _covered_until_ns - step_began_ns, tokens_of(None, batch))


# -- worker and front end -----------------------------------------------------------------------------------------------


def execute_begins(batch: Any) -> int:
    """`execute_model` of a model runner."""
    global _launching
    _launching = True
    return begins()


execute_ended = ends_of("execute_model", tokens_of)


def executed(began_ns: int, result: Any, batch: Any) -> None:
    """What is launched after it is a drafter's."""
    global _launching
    _launching = False
    execute_ended(began_ns, result, batch)
    flush()


def launch_begins() -> int:
    """A graph of the V2 runner, unless it is that of a drafter."""
    return monotonic_ns() if _launching and not STACK else 0


sample_tokens_ended = ends_of("sample_tokens")


def tokens_sampled(began_ns: int, result: Any) -> None:
    """The end of a step in a worker."""
    sample_tokens_ended(began_ns, result)
    flush()


process_outputs_ended = ends_of("process_outputs", num_items)


def outputs_processed(began_ns: int, result: Any, outputs: Any) -> None:
    """The end of a batch of outputs in a front end."""
    process_outputs_ended(began_ns, result, outputs)
    flush()


def flush() -> None:
    """Where no engine step ends: write rows that wait, and once a second all else."""
    global _next_flush_ns
    now = monotonic_ns()
    if ROWS.pending or now >= _next_flush_ns:
        _next_flush_ns = now + SHORTEST_PAUSE_NS
        THIS.flush_step((ROWS,), now)


def before_flush(now_ns: int) -> None:
    """Totals, ever more rarely."""
    global _next_totals_ns
    if now_ns >= _next_totals_ns:
        _next_totals_ns = now_ns + pause_ns(now_ns - THIS.began_ns)
        write_totals()


def at_exit() -> None:
    """Totals of all calls."""
    write_totals()


def after_fork() -> None:
    """A forked child has its own calls."""
    global _covered_until_ns, _launching, _next_flush_ns, _next_totals_ns
    _steps_begun.clear()
    _covered_until_ns = _next_flush_ns = _next_totals_ns = 0
    _launching = False
    for tally in TALLIES.values():
        tally.forget()


SCHEDULER = "vllm.v1.core.sched.scheduler"
V1 = "vllm.v1.worker.gpu_model_runner"
V2 = "vllm.v1.worker.gpu.model_runner"
V2_GRAPHS = "vllm.v1.worker.gpu.cudagraph_utils"
BATCH = ("scheduler_output",)


def _hook(
    part: str, module: str, target: str, before: Any, after: Any, arguments: tuple[str, ...] = (), optional: bool = True
) -> Hook:
    name = target.rpartition(".")[2].strip("_")
    return Hook(
        f"{part}.time_{name}", "cpu_operations", module, target, AROUND, before, after, arguments, optional=optional
    )


def _timed(
    part: str, module: str, target: str, operation: str, amount: Amount | None = None, arguments: tuple[str, ...] = ()
) -> Hook:
    return _hook(part, module, target, begins, ends_of(operation, amount), arguments)


HOOKS = (
    _hook("scheduler", SCHEDULER, "Scheduler.schedule", begins, scheduled, optional=False),
    _hook("scheduler", SCHEDULER, "Scheduler.update_from_output", begins, updated, BATCH, optional=False),
    _hook("v1_runner", V1, "GPUModelRunner.execute_model", execute_begins, executed, BATCH, optional=False),
    _timed("v1_runner", V1, "GPUModelRunner._update_states", "update_states", tokens_of, BATCH),
    _timed("v1_runner", V1, "GPUModelRunner._prepare_inputs", "prepare_inputs", tokens_of, BATCH),
    _timed("v1_runner", V1, "GPUModelRunner._build_attention_metadata", "attention_metadata"),
    _timed("v1_runner", V1, "GPUModelRunner._preprocess", "preprocess"),
    _timed("v1_runner", V1, "GPUModelRunner._model_forward", "model_launch"),
    _hook("v1_runner", V1, "GPUModelRunner.sample_tokens", begins, tokens_sampled),
    _timed("v1_runner", V1, "GPUModelRunner._sample", "sample"),
    _timed("v1_runner", V1, "GPUModelRunner._bookkeeping_sync", "bookkeeping"),
    _hook("v2_runner", V2, "GPUModelRunner.execute_model", execute_begins, executed, BATCH),
    _timed("v2_runner", V2, "GPUModelRunner.finish_requests", "finish_requests"),
    _timed("v2_runner", V2, "GPUModelRunner.add_requests", "add_requests"),
    _timed("v2_runner", V2, "GPUModelRunner.update_requests", "update_requests"),
    _timed("v2_runner", V2, "GPUModelRunner.prepare_inputs", "prepare_inputs", tokens_of, BATCH),
    _timed("v2_runner", V2, "GPUModelRunner.prepare_attn", "attention_metadata"),
    _hook("graph_manager", V2_GRAPHS, "CudaGraphManager.run_fullgraph", launch_begins, ends_of("model_launch")),
    _hook("graph_manager", V2_GRAPHS, "CudaGraphManager.run_pw_graph", launch_begins, ends_of("model_launch")),
    _hook("v2_runner", V2, "GPUModelRunner.sample_tokens", begins, tokens_sampled),
    _timed("v2_runner", V2, "GPUModelRunner.sample", "sample"),
    _hook(
        "output_processor", "vllm.v1.engine.output_processor", "OutputProcessor.process_outputs", begins,
        outputs_processed, ("engine_core_outputs",), optional=False,
    ),
    _timed(
        "detokenizer", "vllm.v1.engine.detokenizer", "BaseIncrementalDetokenizer.update", "detokenise", num_items,
        ("new_token_ids",),
    ),
    _timed("serial_utils", "vllm.v1.serial_utils", "MsgpackEncoder.encode", SERIALISE, bytes_of),
    _timed("serial_utils", "vllm.v1.serial_utils", "MsgpackEncoder.encode_into", SERIALISE, bytes_of),
)  # fmt: skip
