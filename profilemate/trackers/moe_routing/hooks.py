"""Hooks on the loading of a model, on its serving passes, and on the step of every router that gets the logical expert ids.

The router is asked in Python once per MoE layer and pass in eager mode, and while a CUDA graph is being captured; what it
does there is one or two small operations on the device, which the graph captures too. Where torch.compile would trace the
router's Python (vLLM's CPU platform), the hook on it is not in place when that happens: a trace of it would change the
compiled graph and its key in vLLM's cache. So it is taken out before every load, and goes in again where the loaded model
is known to be safe.
"""

from __future__ import annotations

import sys
import weakref
from time import monotonic_ns
from typing import Any, NamedTuple

from profilemate.probe import install, phase
from profilemate.probe.engine_config import read
from profilemate.probe.hook import AHEAD, AROUND, FAILURES_BEFORE_OFF, SELF, Hook, take_out
from profilemate.probe.phase_hooks import GPU_WORKER, V1_RUNNER, V2_RUNNER
from profilemate.probe.process import FULL_FLUSH_NS, THIS
from profilemate.trackers.moe_routing import traced
from profilemate.trackers.moe_routing.counters import Counters
from profilemate.trackers.moe_routing.layers import COUNTED_METHOD, NO_HOOK, OTHER_ROUTER, TRACED, MoeLayer, layers_of
from profilemate.trackers.moe_routing.model import MoeModel
from profilemate.trackers.moe_routing.streams import STREAMS

BASE_ROUTER = "vllm.model_executor.layers.fused_moe.router.base_router"
ROUTER_HOOK = "moe_router.ids"
RUNS_OF_VLLMS_OWN = phase.STACK
MOST_REASON = 300


class Slot(NamedTuple):
    """Where the choices of one router are counted."""

    counters: Counters
    number: int
    top_k: int
    data_parallel_rank: int
    """-1 where a router only ever sees the tokens of its own engine."""


_slots: dict[int, Slot] = {}
_keys_in_graph: list[int] = []
"""Keys of the routers of the model that was loaded last, by the numbers that its compiled graph has of them."""

_models: dict[int, MoeModel] = {}
_runners: dict[int, Any] = {}
_models_met = 0
_next_flush_ns = 0


# -- loading ------------------------------------------------------------------------------------------------------------


def loading_begins(worker: Any) -> None:
    """A worker is to load a model: nothing is on the routers until it is known whether they will be traced."""
    state = install.states.get(ROUTER_HOOK)
    if state is not None and state.state == "put_in":
        take_out(state)
        THIS.dirty = True


def model_loaded(token: None, result: Any, worker: Any) -> None:
    """It has its model: know its routers, and make the tables that they are counted into."""
    global _models_met
    runner = worker.model_runner
    config = worker.vllm_config
    model = runner.get_model() if hasattr(runner, "get_model") else runner.model
    layers = layers_of(model, config)
    are_traced = any(layer.unseen == TRACED for layer in layers)
    if not watch_routers(are_traced):
        layers = [layer._replace(unseen=layer.unseen or NO_HOOK) for layer in layers]
    if are_traced and THIS.settings.moe_traced:
        layers = put_into_the_graph(model, layers)
    counted = [layer for layer in layers if not layer.unseen]
    counters = make_counters(counted, runner, config) if counted else None
    moe = MoeModel(_models_met, layers or unknown_layers(config), counters)
    _models_met += 1
    remember(runner, moe)
    if counters is not None:
        rank = data_parallel_rank(config)
        for number, layer in enumerate(counted):
            _slots[layer.key] = Slot(counters, number, layer.top_k, rank)
    moe.describe(monotonic_ns(), word_about_pairs(counters))
    THIS.flush()


def make_counters(layers: list[MoeLayer], runner: Any, config: Any) -> Counters:
    """Tables for the longest batch that vLLM makes, on the model's device."""
    most_rows = int(config.scheduler_config.max_num_batched_tokens)
    most_rows = max(most_rows, int(getattr(runner, "max_num_tokens", 0) or 0))
    return Counters(layers, runner.device, most_rows, THIS.settings.moe_coselection)


def word_about_pairs(counters: Counters | None) -> str:
    """What the rows of the layers say of pairs."""
    if not THIS.settings.moe_coselection or counters is None:
        return "off"
    return "counted" if counters.pairs is not None else "too_large"


def unknown_layers(config: Any) -> list[MoeLayer]:
    """For a model that has experts and yet none of vLLM's MoE layers: one entry that says so."""
    try:
        experts = int(config.model_config.get_num_experts())
    except Exception:  # older versions have no such method, and a configuration may lack what it reads
        return []
    return [MoeLayer(0, 0, "", experts, 0, OTHER_ROUTER)] if experts > 0 else []


def data_parallel_rank(config: Any) -> int:
    """This engine's place among those whose tokens a router may see together; -1 where it is alone."""
    if (read(config, "parallel_config.data_parallel_size") or 1) < 2:
        return -1
    return int(read(config, "parallel_config.data_parallel_rank") or 0)


def remember(runner: Any, moe: MoeModel) -> None:
    """Keep a model's state for as long as its runner lives; what was loaded into the runner before is forgotten."""
    key = id(runner)
    forget(key)
    _models[key] = moe
    _runners[key] = weakref.ref(runner, lambda gone: forget(key) if _runners.get(key) is gone else None)


def forget(key: int) -> None:
    """A runner is gone, or has another model now."""
    _runners.pop(key, None)
    moe = _models.pop(key, None)
    if moe is not None:
        for slot in [slot for slot, one in _slots.items() if one.counters is moe.counters]:
            del _slots[slot]


def watch_routers(are_traced: bool) -> bool:
    """Put the hook on the routers in, unless they will be traced. False where it could be in and is not."""
    state, module = install.states.get(ROUTER_HOOK), sys.modules.get(BASE_ROUTER)
    if state is None or module is None:
        return False
    if are_traced:
        state.reason = "torch.compile would trace it here"
        return True
    if state.state == "taken_out":
        install.install(state, module)
    return state.state == "put_in"


def put_into_the_graph(model: Any, layers: list[MoeLayer]) -> list[MoeLayer]:
    """Let the graph that will be compiled count; returns the layers, those that it will as counted ones.

    The number that the graph keeps of a layer is its place, which is the same in the next process that loads the graph.
    """
    routers = {id(module.router): module.router for module in model.modules() if hasattr(module, "router")}
    _keys_in_graph[:] = [layer.key for layer in layers]
    return [
        layer._replace(unseen="")
        if layer.unseen == TRACED and traced.watch(routers[layer.key], number, count_traced)
        else layer
        for number, layer in enumerate(layers)
    ]


def count_traced(topk_ids: Any, number: int) -> None:
    """The compiled graph of the model that was loaded last runs; nothing of ours may raise in it."""
    key = _keys_in_graph[number] if number < len(_keys_in_graph) else 0
    slot, state = _slots.get(key), install.states.get(ROUTER_HOOK)
    if slot is None or state is None or state.failures >= FAILURES_BEFORE_OFF:
        return
    try:
        slot.counters.count(slot.number, slot.top_k, topk_ids)
    except Exception:
        state.fail()


# -- a pass -------------------------------------------------------------------------------------------------------------


def pass_begins(runner: Any, scheduler_output: Any) -> MoeModel | None:
    """`execute_model`: the first rows of the batch are the scheduled tokens, whatever it is padded to."""
    if RUNS_OF_VLLMS_OWN:
        return None
    moe = _models.get(id(runner))
    if moe is None:
        return None
    num_tokens = scheduler_output.total_num_scheduled_tokens
    if num_tokens:
        moe.begin(num_tokens)
    return moe


def pass_ends(moe: MoeModel | None, result: Any, runner: Any, scheduler_output: Any) -> None:
    """It was launched."""
    global _next_flush_ns
    if moe is None:
        return
    now = monotonic_ns()
    if moe.end(now, not scheduler_output.total_num_scheduled_tokens) or now >= _next_flush_ns:
        _next_flush_ns = now + FULL_FLUSH_NS
        THIS.flush_step(STREAMS, now)


def ids_chosen(router: Any, topk_ids: Any) -> None:
    """A router has chosen: logical ids [rows, top_k], before EPLB maps them to copies of experts."""
    slot = _slots.get(id(router))
    if slot is None:  # a drafter's
        return
    if slot.data_parallel_rank >= 0:
        topk_ids = own_rows(topk_ids, slot.data_parallel_rank)
    slot.counters.count(slot.number, slot.top_k, topk_ids)


def own_rows(topk_ids: Any, rank: int) -> Any:
    """This engine's rows where the tokens of all data-parallel engines were gathered before the router."""
    module = sys.modules.get("vllm.forward_context")
    by_rank = read(module, "_forward_context.dp_metadata.num_tokens_across_dp_cpu")
    if by_rank is None:
        return topk_ids
    sizes = by_rank.tolist()  # on the host
    rows = len(topk_ids)
    if rows == sizes[rank]:
        return topk_ids
    if rows == sum(sizes):
        first = sum(sizes[:rank])
        return topk_ids[first : first + sizes[rank]]
    raise ValueError(f"{rows} rows of a router, neither {sizes[rank]} nor the sum of {sizes}")


# -- bookkeeping --------------------------------------------------------------------------------------------------------


def before_flush(now_ns: int) -> None:
    """Counts that have come in or are due go along."""
    for key, moe in list(_models.items()):
        try:
            moe.look(now_ns)
        except Exception as error:  # a device that is lost; the other models are read on
            give_up(key, error)


def give_up(key: int, error: Exception) -> None:
    """Read a model's counts no more, and say why."""
    forget(key)
    THIS.warnings.append(f"MoE routing is no longer read: {type(error).__name__}: {error}"[:MOST_REASON])
    THIS.dirty = True


def at_exit() -> None:
    """The counts up to it."""
    for key, moe in list(_models.items()):
        try:
            moe.last_look()
        except Exception as error:
            give_up(key, error)


def after_fork() -> None:
    """A forked child has no model yet."""
    global _models_met, _next_flush_ns
    _slots.clear()
    _keys_in_graph.clear()
    _models.clear()
    _runners.clear()
    _models_met = _next_flush_ns = 0


if THIS.settings.moe_traced:
    traced.use_own_compile_cache()

HOOKS = (
    Hook(
        "moe_worker.load_model", "moe_routing", GPU_WORKER, "Worker.load_model", AROUND, loading_begins, model_loaded,
        (SELF,),
    ),
    Hook(
        "v1_runner.moe_pass", "moe_routing", V1_RUNNER, "GPUModelRunner.execute_model", AROUND, pass_begins, pass_ends,
        (SELF, "scheduler_output"),
    ),
    Hook(
        "v2_runner.moe_pass", "moe_routing", V2_RUNNER, "GPUModelRunner.execute_model", AROUND, pass_begins, pass_ends,
        (SELF, "scheduler_output"),
    ),
    Hook(
        ROUTER_HOOK, "moe_routing", BASE_ROUTER, f"BaseRouter.{COUNTED_METHOD}", AHEAD, ids_chosen, None,
        (SELF, "topk_ids"), optional=True,
    ),
)  # fmt: skip
