"""Facts of the loaded model, once, and a few sums of each batch in the row of its forward pass."""

from __future__ import annotations

from typing import Any

from profilemate.probe.engine_config import read
from profilemate.probe.hook import AHEAD, AROUND, FOLLOWING, SELF, Hook
from profilemate.probe.process import THIS
from profilemate.trackers.bandwidth import batch_sums, copy_speed, events, model_facts
from profilemate.trackers.forward_passes import hooks as passes
from profilemate.trackers.forward_passes import recorder, runners

_window = [0]
"""The model's sliding window in tokens, known before the first pass."""

_as_loaded: list[dict[str, Any]] = []
"""Parameters of the models that this `load_model` loaded, before a backend took them into its own layout: the main model's
first, then a drafter's."""


def pass_cells(scheduler_output: Any) -> str:
    """The columns of events.PASS."""
    return batch_sums.cells(scheduler_output, _window[0])


def load_begins(worker: Any) -> None:
    """`load_model` of a worker."""
    _as_loaded.clear()


def weights_loaded(model: Any) -> None:
    """The weights of one model are there, as its file has them."""
    _as_loaded.append(model_facts.parameters(model))


def load_ends(token: None, result: Any, worker: Any) -> None:
    """The model is as it will run: its parameters, dimensions and device are written."""
    model = read(worker, "model_runner.model")
    facts = THIS.engine_config
    facts["model_dimensions"] = model_facts.dimensions(worker.vllm_config)
    facts["device_name"] = model_facts.device_name()
    if model is not None:
        facts["model_parameters"] = model_facts.parameters(model)
    if _as_loaded:
        facts["model_parameters_as_loaded"] = _as_loaded[0]
    if THIS.settings.measure_peak:
        facts["copied_bytes_per_second"] = copy_speed.measure(getattr(worker, "device", None))
    THIS.dirty = True
    _as_loaded.clear()


def kv_layers_known(specs: Any, worker: Any) -> None:
    """The KV cache of each layer of this worker, before its memory is taken."""
    num_layers = read(worker, "vllm_config.model_config.hf_text_config.num_hidden_layers")
    layers = model_facts.kv_layers(specs, num_layers if isinstance(num_layers, int) else 0)
    THIS.engine_config["kv_layers"] = layers
    _window[0] = model_facts.window_of(layers)
    THIS.dirty = True


def after_fork() -> None:
    """A forked child has no model of its own yet."""
    passes.after_fork()
    _window[0] = 0
    _as_loaded.clear()


recorder.contribute(events.PASS, pass_cells)

WORKER = "vllm.v1.worker.gpu_worker"
LOADER = "vllm.model_executor.model_loader.base_loader"

HOOKS = (
    *runners.pass_hooks("bandwidth"),
    Hook("worker.load_model", "bandwidth", WORKER, "Worker.load_model", AROUND, load_begins, load_ends, (SELF,)),
    Hook(
        "loader.weights_loaded", "bandwidth", LOADER, "process_weights_after_loading", AHEAD, weights_loaded, None,
        ("model",), optional=True,
    ),
    Hook(
        "worker.get_kv_cache_spec", "bandwidth", WORKER, "Worker.get_kv_cache_spec", FOLLOWING, None, kv_layers_known,
        (SELF,),
    ),
)  # fmt: skip
