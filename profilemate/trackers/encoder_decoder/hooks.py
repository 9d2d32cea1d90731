"""Hooks on the one call of each model runner that encodes what an engine step scheduled, and on the encoder's graphs.

V1 runner: `_execute_mm_encoder(scheduler_output)`, which a multimodal model also calls in steps without any item. V2 runner:
`EncoderRunner.execute_mm_encoder(mm_kwargs)`, also called for the memory profile; which requests they are for is known one
call earlier. Neither runs for a model without an encoder.
"""

from __future__ import annotations

from time import monotonic_ns
from typing import Any, NamedTuple

from profilemate.probe import phase
from profilemate.probe.hook import AROUND, FOLLOWING, SELF, Hook
from profilemate.probe.process import THIS
from profilemate.trackers.encoder_decoder import events
from profilemate.trackers.forward_passes.device_clock import DeviceClock
from profilemate.trackers.forward_passes.recorder import FORWARD

PASSES = THIS.writer.stream(events.PASSES)
LATENCIES = THIS.writer.stream(events.LATENCIES)
CLOCK = DeviceClock()

RUNS_OF_VLLMS_OWN = phase.STACK
"""Not empty while vLLM runs the model for itself: warm-up, profiling, capture."""

NOT_ENCODED = "prompt_embeds"
"""The modality of what is in the model's embedding space already and only passes through."""


class Batch(NamedTuple):
    """What an encoder pass is about to encode."""

    items: int
    tokens: int | None
    requests: int | None
    modality: str
    is_timed: bool
    began_ns: int


class Totals:
    """Number of the last pass and the sums over all of them; graph hits and misses also of the pass in progress."""

    def __init__(self) -> None:
        """No pass yet."""
        self.forget()

    def forget(self) -> None:
        """For a forked child."""
        self.number = self.items = self.tokens = self.requests = 0
        self.graph_hits = self.graph_misses = 0
        self.hits: int | None = None
        self.misses: int | None = None
        self.scheduled_requests: int | None = None


TOTALS = Totals()


# -- V1 runner ----------------------------------------------------------------------------------------------------------


def v1_begins(runner: Any, scheduler_output: Any) -> Batch | None:
    """None where the step has nothing to encode."""
    scheduled = scheduler_output.scheduled_encoder_inputs
    if not scheduled or RUNS_OF_VLLMS_OWN:
        return None
    features = [
        runner.requests[request].mm_features[index] for request, indices in scheduled.items() for index in indices
    ]
    features = [feature for feature in features if feature.data is not None and feature.modality != NOT_ENCODED]
    if not features:
        return None
    tokens = sum(feature.mm_position.get_num_embeds() for feature in features)
    return begin(len(features), tokens, len(scheduled), {feature.modality for feature in features})


def v1_ends(batch: Batch | None, result: Any, runner: Any, scheduler_output: Any) -> None:
    """Every item was encoded, or on a GPU the work was launched."""
    if batch is not None:
        end(batch, batch.tokens)


# -- V2 runner ----------------------------------------------------------------------------------------------------------


def v2_prepared(result: Any, scheduled_encoder_inputs: Any) -> None:
    """The items of these requests that are not in the encoder cache are encoded next."""
    TOTALS.scheduled_requests = len(scheduled_encoder_inputs) or None


def v2_begins(mm_kwargs: Any) -> Batch | None:
    """Pairs of modality and item, all of which are encoded."""
    requests, TOTALS.scheduled_requests = TOTALS.scheduled_requests, None
    if not mm_kwargs or RUNS_OF_VLLMS_OWN:
        return None
    return begin(len(mm_kwargs), None, requests, {modality for modality, _ in mm_kwargs})


def v2_ends(batch: Batch | None, result: Any, mm_kwargs: Any) -> None:
    """One tensor of embeddings for each item."""
    if batch is not None:
        end(batch, sum(output.shape[0] for output in result) if isinstance(result, list) else None)


# -- both ---------------------------------------------------------------------------------------------------------------


def begin(items: int, tokens: int | None, requests: int | None, modalities: set[str]) -> Batch:
    """The encoder is about to run."""
    TOTALS.hits = TOTALS.misses = None
    modality = "+".join(sorted(name if name.isidentifier() else "other" for name in modalities))
    is_timed = bool(THIS.settings.device_timing_every) and CLOCK.start()
    return Batch(items, tokens, requests, modality, is_timed, monotonic_ns())


def end(batch: Batch, tokens: int | None) -> None:
    """Make the row and bring it to the kernel: a worker that encodes for another one makes no forward pass after it."""
    now = monotonic_ns()
    totals = TOTALS
    totals.number += 1
    if batch.is_timed:
        CLOCK.stop(totals.number)
    totals.items += batch.items
    totals.tokens += tokens or 0
    totals.requests += batch.requests or 0
    totals.graph_hits += totals.hits or 0
    totals.graph_misses += totals.misses or 0
    PASSES.add(
        (
            batch.began_ns, FORWARD.step or None, totals.number, batch.items, tokens, batch.requests, batch.modality,
            now - batch.began_ns, totals.hits, totals.misses, "cuda_event" if batch.is_timed else "monotonic",
            totals.items, totals.tokens, totals.requests, totals.graph_hits, totals.graph_misses,
        )
    )  # fmt: skip
    read_device_times()
    THIS.flush_step((LATENCIES, PASSES), now)


def graphs_asked(manager: Any) -> tuple[int, int]:
    """Items that the manager of the encoder's graphs counted so far."""
    return manager.graph_hits, manager.graph_misses


def graphs_ran(before: tuple[int, int], result: Any, manager: Any) -> None:
    """Items of this call; a pass calls it once per modality."""
    TOTALS.hits = (TOTALS.hits or 0) + manager.graph_hits - before[0]
    TOTALS.misses = (TOTALS.misses or 0) + manager.graph_misses - before[1]


def read_device_times() -> None:
    """Queue the device times that are ready."""
    if CLOCK.waiting:
        for row in CLOCK.read():
            LATENCIES.add(row)


def before_flush(now_ns: int) -> None:
    """Once a second: the last passes are timed on the device long before another one comes."""
    read_device_times()


def after_fork() -> None:
    """A forked child starts at zero."""
    TOTALS.forget()
    CLOCK.forget()


V1 = "vllm.v1.worker.gpu_model_runner"
V2 = "vllm.v1.worker.gpu.mm.encoder_runner"
GRAPHS = "vllm.v1.worker.encoder_cudagraph"


def _hook(name: str, module: str, target: str, *rest: Any, **options: Any) -> Hook:
    return Hook(name, "encoder_decoder", module, target, *rest, **options)


HOOKS = (
    _hook(
        "v1_encoder.execute", V1, "GPUModelRunner._execute_mm_encoder", AROUND, v1_begins, v1_ends,
        (SELF, "scheduler_output"),
    ),
    _hook(
        "v2_encoder.prepare", V2, "EncoderRunner.prepare_mm_inputs", FOLLOWING, None, v2_prepared,
        ("scheduled_encoder_inputs",), optional=True,
    ),
    _hook(
        "v2_encoder.execute", V2, "EncoderRunner.execute_mm_encoder", AROUND, v2_begins, v2_ends, ("mm_kwargs",),
        optional=True,
    ),
    _hook(
        "encoder_graphs.execute", GRAPHS, "EncoderCudaGraphManager.execute", AROUND, graphs_asked, graphs_ran, (SELF,),
        optional=True,
    ),
)  # fmt: skip
