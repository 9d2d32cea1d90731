"""Which layers of a model are MoE layers, their numbers, and which of their routers cannot be counted."""

from __future__ import annotations

import sys
import types
from types import SimpleNamespace
from typing import Any

import pytest

from profilemate.probe import install
from profilemate.probe.hook import HookState, put_in
from profilemate.trackers.moe_routing import hooks, layers


class Router:
    """As vLLM's routers are, for what is read of them."""

    top_k = 2
    global_num_experts = 10

    def _apply_eplb_mapping(self, topk_ids: Any) -> Any:
        return topk_ids


def opaque(*arguments: Any) -> None:
    """Stands for a torch operator, which is no Python function."""


class Operator:
    """An object that is called, as `torch.ops.vllm.moe_forward` is."""


def moe(**more: Any) -> Any:
    """A module with a router of its own."""
    config = SimpleNamespace(num_logical_experts=8, moe_parallel_config=SimpleNamespace(is_sequence_parallel=False))
    return SimpleNamespace(**{"router": Router(), "moe_config": config, "_forward_entry": Operator(), **more})


def model(**modules: Any) -> Any:
    """A model by the names of its modules; a point is written as two underscores."""
    named = [(name.replace("__", "."), module) for name, module in modules.items()]
    return SimpleNamespace(named_modules=lambda: iter(named))


def config(mode: int = 0, device: str = "cuda", **parallel: Any) -> Any:
    """What is read of vLLM's configuration."""
    return SimpleNamespace(
        compilation_config=SimpleNamespace(mode=mode),
        device_config=SimpleNamespace(device_type=device),
        parallel_config=SimpleNamespace(**parallel),
    )


def only(module: Any, configuration: Any) -> layers.MoeLayer:
    (found,) = layers.layers_of(model(model__layers__7__mlp__experts=module), configuration)
    return found


def test_a_dense_model_has_none() -> None:
    assert layers.layers_of(model(model__layers__0__mlp=SimpleNamespace(gate_up_proj=1)), config()) == []


def test_layers_have_the_models_numbers() -> None:
    first, second = moe(layer_name="model.layers.3.mlp.experts"), moe()
    found = layers.layers_of(model(anything=first, model__layers__5__mlp__experts=second), config())
    assert [(layer.layer_idx, layer.key) for layer in found] == [(3, id(first.router)), (5, id(second.router))]
    assert {(layer.router, layer.num_experts, layer.top_k, layer.unseen) for layer in found} == {("Router", 8, 2, "")}


def test_two_in_one_layer_are_numbered_in_their_order() -> None:
    found = layers.layers_of(model(layers__4__first=moe(), layers__4__second=moe()), config())
    assert [layer.layer_idx for layer in found] == [0, 1]


def test_a_router_that_two_modules_hold_counts_once() -> None:
    module = moe()
    assert len(layers.layers_of(model(layers__0__mlp=module, layers__0__mlp__experts=module), config())) == 1


@pytest.mark.parametrize(
    ("module", "configuration", "word"),
    [
        (moe(), config(), ""),
        (moe(), config(mode=3), ""),
        (moe(_forward_entry=opaque), config(mode=0), ""),
        (moe(_forward_entry=opaque), config(mode=2), layers.TRACED),
        (moe(_forward_entry=None), config(mode=3, device="cpu"), layers.TRACED),
        (moe(_forward_entry=None), config(mode=3), ""),
        (moe(is_monolithic=True), config(), layers.MONOLITHIC),
        (moe(quant_method=SimpleNamespace(is_monolithic=True)), config(), layers.MONOLITHIC),
        (moe(), config(enable_dbo=True), layers.MICRO_BATCHES),
        (moe(), config(prefill_context_parallel_size=2), layers.CONTEXT_PARALLEL),
        (moe(router=SimpleNamespace(top_k=2)), config(), layers.OTHER_ROUTER),
    ],
)
def test_what_cannot_be_counted(module: Any, configuration: Any, word: str) -> None:
    assert only(module, configuration).unseen == word


def test_sequence_parallel_routers_see_a_part_of_the_tokens() -> None:
    module = moe()
    module.moe_config.moe_parallel_config.is_sequence_parallel = True
    assert only(module, config()).unseen == layers.SEQUENCE_PARALLEL


def test_a_model_with_experts_and_no_layer_that_is_known_says_so() -> None:
    known = SimpleNamespace(model_config=SimpleNamespace(get_num_experts=lambda: 32))
    (layer,) = hooks.unknown_layers(known)
    assert (layer.num_experts, layer.unseen) == (32, layers.OTHER_ROUTER)
    assert hooks.unknown_layers(SimpleNamespace(model_config=SimpleNamespace(get_num_experts=lambda: 0))) == []
    assert hooks.unknown_layers(SimpleNamespace()) == []


# -- the hook on the routers --------------------------------------------------------------------------------------------


@pytest.fixture
def router_hook(monkeypatch: pytest.MonkeyPatch) -> HookState:
    """The hook in a module as vLLM's."""
    made: Any = types.ModuleType("made")
    made.BaseRouter = type("BaseRouter", (), {"_apply_eplb_mapping": lambda self, topk_ids: topk_ids})
    state = HookState(next(hook for hook in hooks.HOOKS if hook.name == hooks.ROUTER_HOOK))
    put_in(state, made)
    monkeypatch.setitem(sys.modules, hooks.BASE_ROUTER, made)
    monkeypatch.setitem(install.states, hooks.ROUTER_HOOK, state)
    return state


def is_wrapped() -> bool:
    return hasattr(sys.modules[hooks.BASE_ROUTER].BaseRouter._apply_eplb_mapping, "profilemate_hook")


def test_the_hook_is_out_while_a_model_loads_and_stays_out_where_it_would_be_traced(router_hook: HookState) -> None:
    assert is_wrapped()
    hooks.loading_begins(None)
    assert not is_wrapped() and router_hook.state == "taken_out"
    assert hooks.watch_routers(are_traced=True)
    assert not is_wrapped() and "trace" in router_hook.reason
    hooks.loading_begins(None)
    assert hooks.watch_routers(are_traced=False)
    assert is_wrapped() and router_hook.state == "put_in" and router_hook.reason == ""


def test_a_hook_that_was_switched_off_stays_so(router_hook: HookState) -> None:
    for _ in range(5):
        router_hook.fail()
    hooks.loading_begins(None)
    assert not hooks.watch_routers(are_traced=False)
    assert router_hook.state == "switched_off"


def test_a_device_that_is_lost_stops_the_reading_and_not_the_flush(monkeypatch: pytest.MonkeyPatch) -> None:
    class Runner:
        """A runner of vLLM's."""

    def lost(now_ns: int) -> bool:
        raise RuntimeError("the device is lost")

    runner = Runner()
    moe = hooks.MoeModel(0, [], None)
    monkeypatch.setattr(moe, "look", lost)
    monkeypatch.setattr(hooks.THIS, "warnings", [])
    hooks.remember(runner, moe)
    hooks.before_flush(1)
    hooks.before_flush(2)
    assert hooks.THIS.warnings == ["MoE routing is no longer read: RuntimeError: the device is lost"]


def test_a_model_is_forgotten_with_its_runner() -> None:
    class Runner:
        """A runner of vLLM's."""

    runner, other = Runner(), Runner()
    for one in (runner, other):
        hooks.remember(one, hooks.MoeModel(0, [], None))
    key = id(runner)
    del one, runner
    assert key not in hooks._models and set(hooks._models) == {id(other)}
    hooks.after_fork()
    assert not hooks._models and not hooks._runners
