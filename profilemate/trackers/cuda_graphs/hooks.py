"""Hooks on every place where vLLM captures or replays CUDA graphs, on both model runners.

The passes are found by forward_passes/runners.py. V1 runner: a pass's graphs are replayed by CUDAGraphWrapper (one FULL
graph, or one per compiled piece), BreakableCUDAGraphWrapper or UBatchWrapper. V2 runner: CudaGraphManager replays FULL graphs
itself and leaves PIECEWISE to the wrappers.
"""

from __future__ import annotations

import sys
from typing import Any

from profilemate.probe import phase
from profilemate.probe.hook import AHEAD, AROUND, FOLLOWING, SCOPE, SELF, Hook
from profilemate.probe.process import THIS
from profilemate.trackers.cuda_graphs import events
from profilemate.trackers.cuda_graphs.captures import CAPTURES, LOG
from profilemate.trackers.cuda_graphs.replays import COUNTS, OTHER, OTHER_REPLAYS, PHASES, other_replay, pass_cells
from profilemate.trackers.forward_passes import descriptor as describe
from profilemate.trackers.forward_passes import recorder, runners
from profilemate.trackers.forward_passes.recorder import FORWARD, PASSES
from profilemate.trackers.forward_passes.runners import MANAGER, V2_FIELDS, note_v2, pass_hooks

DRAFTERS = ".spec_decode."
"""In the name of the modules that hold vLLM's drafters and their graph managers."""

_capturing_owner = ["main"]
"""The last one is whose capture is in progress, if one is."""


_context_module: Any = None


def forward_context() -> Any:
    """VLLM's forward context, or None outside a forward; its own getter asserts there."""
    global _context_module
    if _context_module is None:
        _context_module = sys.modules.get("vllm.forward_context")
    return getattr(_context_module, "_forward_context", None)


def of_piece(mode: Any, batch: Any) -> describe.Descriptor:
    """Descriptor of a graph below a wrapper, in the terms of the runner that dispatched it."""
    return describe.of_v2_piece(mode, batch, V2_FIELDS) if V2_FIELDS else describe.of_batch(mode, batch)


# -- wrappers of both runners -------------------------------------------------------------------------------------------


def wrapper_begins(wrapper: Any) -> int:
    """How many graphs the wrapper holds: a call that adds one captures."""
    return len(wrapper.concrete_cudagraph_entries)


def wrapper_ends(entries_before: int, result: Any, wrapper: Any) -> None:
    """CUDAGraphWrapper: one call replays one graph, captures one, or passes through."""
    if len(wrapper.concrete_cudagraph_entries) > entries_before:
        piece_captured(wrapper, 1, "CUDAGraphWrapper")
        return
    context = forward_context()
    if context is None or context.cudagraph_runtime_mode is not wrapper.runtime_mode:
        return
    if FORWARD.running:  # as piece_replayed, without a call: this runs for every layer of every step
        FORWARD.graphs += 1
    else:
        piece_replayed(wrapper, 1, "CUDAGraphWrapper")


def piece_captured(wrapper: Any, count: int, site: str) -> None:
    """A wrapper captured graphs for the batch descriptor of the forward context."""
    context = forward_context()
    owner = _capturing_owner[-1]
    if FORWARD.running:
        FORWARD.captured = True
    elif phase.is_serving():
        owner = "drafter"
    LOG.claim(owner, of_piece(context.cudagraph_runtime_mode, context.batch_descriptor), count, site)


def piece_replayed(wrapper: Any, count: int, site: str) -> None:
    """A wrapper replayed: in the main model's serving pass, or for a drafter, or in a warm-up or dummy run."""
    if FORWARD.running:
        FORWARD.graphs += count
    else:
        context = forward_context()
        descriptor = of_piece(context.cudagraph_runtime_mode, context.batch_descriptor)
        OTHER.piece(wrapper, "drafter", descriptor, count, site)


def breakable_captured(result: Any, wrapper: Any, entry: Any) -> None:
    """BreakableCUDAGraphWrapper captured one graph per segment."""
    piece_captured(wrapper, entry.capture.num_graphs, "BreakableCUDAGraphWrapper")


def breakable_replayed(result: Any, wrapper: Any, entry: Any) -> None:
    """BreakableCUDAGraphWrapper replayed its segments."""
    piece_replayed(wrapper, entry.capture.num_graphs, "BreakableCUDAGraphWrapper")


def drafter_dummy_begins() -> None:
    """V1 runner: the main model's dummy run, which is also how it captures, goes on with the drafter's."""
    _capturing_owner.append("drafter")


def drafter_dummy_ends(token: None) -> None:
    """The drafter's dummy run is over."""
    _capturing_owner.pop()


def ubatch_begins(wrapper: Any) -> tuple[int, int | None]:
    """How many micro-batch graphs there are, and the size of the one that this call replays, if it does."""
    graphs, context = wrapper.cudagraphs, forward_context()
    slices = getattr(context, "ubatch_slices", None)
    if slices is None or describe.mode_name(context.cudagraph_runtime_mode) != "FULL":
        return len(graphs), None
    size = sum(part.num_tokens for part in slices)
    return len(graphs), size if size in graphs else None


def ubatch_ends(token: tuple[int, int | None], result: Any, wrapper: Any) -> None:
    """UBatchWrapper: a whole batch in micro-batches, one FULL graph."""
    graphs_before, size = token
    graphs = wrapper.cudagraphs
    if len(graphs) > graphs_before:
        FORWARD.captured = FORWARD.captured or FORWARD.running
        LOG.claim("microbatch", describe.of_size(next(reversed(graphs))), 1, "UBatchWrapper")
    elif size is not None and FORWARD.running:
        FORWARD.graphs += 1
    elif size is not None:
        other_replay("microbatch", describe.of_size(size), 1, "UBatchWrapper")


# -- V2 runner ----------------------------------------------------------------------------------------------------------


def other_full_graph(manager: Any, desc: Any) -> None:
    """`run_fullgraph` of a graph that is not the one of the main model's pass."""
    other_replay(manager_owner(manager), describe.of_execution(desc), 1, type(manager).__name__)


def manager_owner(manager: Any) -> str:
    """Drafters have subclasses of the graph manager; so have a few models, for a part of the main model's pass."""
    return "drafter" if DRAFTERS in type(manager).__module__ else "main"


def manager_capture_begins(manager: Any) -> set[Any]:
    """The FULL graphs that are there before `CudaGraphManager.capture`."""
    LOG.emit()
    LOG.unclaimed.clear()
    for descs in getattr(manager, "_capture_descs", {}).values():
        for desc in descs:
            note_v2(desc)
    _capturing_owner.append(manager_owner(manager))
    return set(manager.graphs)


def manager_capture_ends(before: set[Any], manager: Any) -> None:
    """New FULL graphs in the order of capture; the pieces of PIECEWISE ones were claimed by their wrappers already."""
    owner = _capturing_owner.pop()
    new = [desc for desc in manager.graphs if desc not in before]
    if len(LOG.unclaimed) != len(new):
        LOG.unclaimed.clear()
    for desc in new:
        LOG.claim(owner, describe.of_execution(desc), 1, type(manager).__name__, newest=False)
    LOG.emit()


# -- encoder and sampler graphs -----------------------------------------------------------------------------------------


def encoder_captured(result: Any, token_budget: int) -> None:
    """One graph for a token budget of the multimodal encoder."""
    LOG.claim("encoder", describe.of_size(token_budget), 1, "EncoderCudaGraphManager")


def encoder_replayed(result: Any, token_budget: int) -> None:
    """The encoder replayed the graph of a budget; None means that there is no such graph."""
    if result is not None:
        other_replay("encoder", describe.of_size(token_budget), 1, "EncoderCudaGraphManager")


def centroids_captured(result: Any, proposer: Any) -> None:
    """Gemma4Proposer captured one sampling graph per size, the last one last."""
    for size in reversed(proposer._centroids_graphs):
        LOG.claim("drafter", describe.of_size(size), 1, "Gemma4Proposer")


def centroids_replayed(result: Any, proposer: Any, hidden_states: Any) -> None:
    """Gemma4Proposer replays the smallest sampling graph that holds the rows, if there is one."""
    rows = hidden_states.shape[0]
    size = next((size for size in proposer._centroids_sizes if size >= rows), None)
    if size is not None:
        other_replay("drafter", describe.of_size(size), 1, "Gemma4Proposer")


# -- bookkeeping --------------------------------------------------------------------------------------------------------


def before_flush(now_ns: int) -> None:
    """A capture row is complete outside the capture phases; phase counts follow."""
    LOG.emit()
    OTHER.finish()
    COUNTS.report_phases(now_ns)


def complete_rows(now_ns: int) -> None:
    """Complete what a pass did beside its row."""
    OTHER.finish()
    LOG.emit()
    if THIS.settings.check_replays:
        COUNTS.report_phases(now_ns)


def write_totals() -> None:
    """Old rows are about to go: the cumulative replays per descriptor stay."""
    COUNTS.write_totals()


def after_fork() -> None:
    """A forked child starts at zero."""
    runners.after_fork()
    for part in (COUNTS, OTHER, LOG):
        part.forget()
    del _capturing_owner[1:]


WRAPPER = "vllm.compilation.cuda_graph"
BREAKABLE = "vllm.compilation.breakable_cudagraph"
UBATCH = "vllm.v1.worker.gpu_ubatch_wrapper"
ENCODER = "vllm.v1.worker.encoder_cudagraph"
GEMMA4 = "vllm.v1.spec_decode.gemma4"
DRAFTER_DUMMY_RUNS = (
    ("llm_base_proposer", "SpecDecodeBaseProposer"),
    ("eagle", "SpecDecodeBaseProposer"),
    ("eagle", "EagleProposer"),
    ("dflash", "DFlashProposer"),
    ("extract_hidden_states", "ExtractHiddenStatesProposer"),
)
"""Classes whose `dummy_run` runs a V1 drafter. The first one was in `eagle` once, under either name; twice does no harm."""

TORCH = "torch.cuda"


recorder.contribute(events.PASSES, pass_cells)
recorder.waits_beside("cuda_graphs", complete_rows)
PASSES.write_with(CAPTURES, OTHER_REPLAYS, PHASES)
FORWARD.other_graph = other_full_graph


def _hook(name: str, module: str, target: str, *rest: Any, **options: Any) -> Hook:
    return Hook(name, "cuda_graphs", module, target, *rest, **options)


HOOKS = (
    *pass_hooks("cuda_graphs"),
    _hook(
        "graph_manager.capture", MANAGER, "CudaGraphManager.capture", SCOPE, manager_capture_begins,
        manager_capture_ends, (SELF,),
    ),
    _hook("graph_wrapper.call", WRAPPER, "CUDAGraphWrapper.__call__", AROUND, wrapper_begins, wrapper_ends, (SELF,)),
    _hook(
        "breakable_wrapper.capture", BREAKABLE, "BreakableCUDAGraphWrapper._capture", FOLLOWING, None,
        breakable_captured, (SELF, "entry"), optional=True,
    ),
    _hook(
        "breakable_wrapper.replay", BREAKABLE, "BreakableCUDAGraphWrapper._replay", FOLLOWING, None,
        breakable_replayed, (SELF, "entry"), optional=True,
    ),
    *(
        _hook(
            f"drafter.dummy_run.{module}.{name}", f"vllm.v1.spec_decode.{module}", f"{name}.dummy_run", SCOPE,
            drafter_dummy_begins, drafter_dummy_ends, optional=True,
        )
        for module, name in DRAFTER_DUMMY_RUNS
    ),
    _hook("ubatch_wrapper.call", UBATCH, "UBatchWrapper.__call__", AROUND, ubatch_begins, ubatch_ends, (SELF,)),
    _hook(
        "encoder.capture", ENCODER, "EncoderCudaGraphManager._capture_budget_graph", FOLLOWING, None,
        encoder_captured, ("token_budget",), optional=True,
    ),
    _hook(
        "encoder.replay", ENCODER, "EncoderCudaGraphManager._run_budget_graph", FOLLOWING, None, encoder_replayed,
        ("token_budget",), optional=True,
    ),
    _hook(
        "gemma4.capture", GEMMA4, "Gemma4Proposer._setup_centroids_cuda_graphs", FOLLOWING, None, centroids_captured,
        (SELF,), optional=True,
    ),
    _hook(
        "gemma4.replay", GEMMA4, "Gemma4Proposer._greedy_sample", FOLLOWING, None, centroids_replayed,
        (SELF, "hidden_states"), optional=True,
    ),
    _hook("torch.capture_begin", TORCH, "CUDAGraph.capture_begin", AHEAD, LOG.begin, late=True),
    _hook("torch.capture_end", TORCH, "CUDAGraph.capture_end", FOLLOWING, None, LOG.end, late=True),
    *(
        (_hook("torch.replay", TORCH, "CUDAGraph.replay", AHEAD, COUNTS.replayed, late=True),)
        if THIS.settings.check_replays
        else ()
    ),
)  # fmt: skip
