"""What the V2 runner needs to run its Triton kernels in Triton's interpreter, on the CPU."""

from __future__ import annotations

import os
import types
from typing import Any

import torch


class _ActiveDriver:
    """The part of a Triton driver that vLLM asks about."""

    @staticmethod
    def is_active() -> bool:
        """There is a device to run on: the interpreter."""
        return True


def announce() -> None:
    """Let vLLM find Triton: it counts active Triton backends, and a CPU install has none."""
    os.environ["TRITON_INTERPRET"] = "1"  # best set by the caller: too late here if Triton is already imported
    from triton.backends import backends

    backends.setdefault("cpu", types.SimpleNamespace(driver=_ActiveDriver, compiler=None))


def _argmax(logits: torch.Tensor, *arguments: Any, **options: Any) -> torch.Tensor:
    """In place of gumbel_sample, the slowest kernel, which fails on the NaN rows that a profile run makes."""
    return logits.argmax(-1)


def _keep_arguments(executor: Any, arguments: Any, options: Any) -> tuple[Any, Any]:
    """In place of copying each argument's whole storage to the host: it is there already."""
    return arguments, options


def _no_action(*arguments: Any) -> None:
    """In place of copying arguments back, and of the integer overflow checks (a third of the interpreter's time)."""


def mend() -> None:
    """Replace the kernels that the interpreter cannot run, and the slowest parts of the interpreter."""
    from triton.language.semantic import TritonSemantic
    from triton.runtime.interpreter import GridExecutor, InterpreterBuilder
    from vllm.v1.sample.ops import topk_topp_sampler
    from vllm.v1.worker.gpu.sample import sampler

    store = InterpreterBuilder.create_masked_store

    def create_masked_store(builder: Any, pointers: Any, value: Any, mask: Any, *options: Any) -> Any:
        """Take an integer mask, as the compiler does: the grammar kernel has one."""
        mask.data = mask.data.astype(bool)
        return store(builder, pointers, value, mask, *options)

    replacements: list[tuple[Any, str, Any]] = [
        (topk_topp_sampler, "HAS_TRITON", False),  # vLLM has top-k and top-p in torch too
        (sampler, "gumbel_sample", _argmax),
        (InterpreterBuilder, "create_masked_store", create_masked_store),
        (GridExecutor, "_init_args_hst", _keep_arguments),
        (GridExecutor, "_restore_args_dev", _no_action),
        (TritonSemantic, "binary_op_sanitize_overflow_impl", _no_action),
    ]
    for owner, name, replacement in replacements:
        setattr(owner, name, replacement)
