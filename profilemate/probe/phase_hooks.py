"""Hooks on vLLM's own methods that profile, warm up, capture and estimate: which phase this process is in."""

from __future__ import annotations

from typing import Any

from profilemate.probe import phase
from profilemate.probe.hook import SCOPE, SELF, Hook
from profilemate.probe.identity import worker_phase_begins
from profilemate.probe.process import THIS

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


HOOKS = tuple(_phase_hook(*row) for row in PHASES)
