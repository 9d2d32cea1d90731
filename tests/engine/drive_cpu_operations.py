"""Run an engine in this process with a second clock around each method that the tracker times.

drive_cpu_operations.py OUT.json MODEL v1|v2
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "support")]
V1, V2 = "vllm.v1.worker.gpu_model_runner", "vllm.v1.worker.gpu.model_runner"
GRAPHS = "vllm.v1.worker.gpu.cudagraph_utils"
SCHEDULER = "vllm.v1.core.sched.scheduler"
SERIALISED = 25

COMMON = {
    "schedule": (SCHEDULER, "Scheduler.schedule"),
    "update_from_output": (SCHEDULER, "Scheduler.update_from_output"),
    "process_outputs": ("vllm.v1.engine.output_processor", "OutputProcessor.process_outputs"),
    "detokenise": ("vllm.v1.engine.detokenizer", "BaseIncrementalDetokenizer.update"),
    "serialise": ("vllm.v1.serial_utils", "MsgpackEncoder.encode"),
}
RUNNERS = {
    "v1": {
        "execute_model": (V1, "GPUModelRunner.execute_model"),
        "update_states": (V1, "GPUModelRunner._update_states"),
        "prepare_inputs": (V1, "GPUModelRunner._prepare_inputs"),
        "attention_metadata": (V1, "GPUModelRunner._build_attention_metadata"),
        "preprocess": (V1, "GPUModelRunner._preprocess"),
        "model_launch": (V1, "GPUModelRunner._model_forward"),
        "sample_tokens": (V1, "GPUModelRunner.sample_tokens"),
        "sample": (V1, "GPUModelRunner._sample"),
        "bookkeeping": (V1, "GPUModelRunner._bookkeeping_sync"),
    },
    "v2": {
        "execute_model": (V2, "GPUModelRunner.execute_model"),
        "finish_requests": (V2, "GPUModelRunner.finish_requests"),
        "add_requests": (V2, "GPUModelRunner.add_requests"),
        "update_requests": (V2, "GPUModelRunner.update_requests"),
        "prepare_inputs": (V2, "GPUModelRunner.prepare_inputs"),
        "attention_metadata": (V2, "GPUModelRunner.prepare_attn"),
        "model_launch": (GRAPHS, "CudaGraphManager.run_fullgraph"),
        "model_launch_pieces": (GRAPHS, "CudaGraphManager.run_pw_graph"),
        "sample_tokens": (V2, "GPUModelRunner.sample_tokens"),
        "sample": (V2, "GPUModelRunner.sample"),
    },
}


def main() -> None:
    """The second clock begins when the engine is ready, so that it sees none of vLLM's own runs."""
    import operation_oracle
    import run_engine
    from vllm import LLM

    out, model, runner = sys.argv[1:]
    compilation: dict[str, Any] = {
        "mode": 3, "backend": "eager", "cudagraph_capture_sizes": [1, 2, 4, 8, 16], "cudagraph_mode": "FULL_AND_PIECEWISE",
    }  # fmt: skip
    llm = LLM(
        model, load_format="dummy", max_model_len=2048, gpu_memory_utilization=0.3, max_num_seqs=8,
        max_num_batched_tokens=256, compilation_config=compilation,
    )  # fmt: skip
    spans = operation_oracle.watch({**COMMON, **RUNNERS[runner]})
    run_engine.generate(llm, 4, 5)
    from vllm.v1.serial_utils import MsgpackEncoder

    for number in range(SERIALISED):
        MsgpackEncoder().encode({"numbers": list(range(100 * number))})
    Path(out).write_text(json.dumps(spans))


if __name__ == "__main__":
    main()
