"""Put every hook into the real vLLM modules, pickle what vLLM pickles, take the hooks out again, and write down what was seen.

    real_hooks.py OUT.json MODEL

A child that was forked before ProfileMate came pickles and unpickles the same objects: it is the process without.
"""

from __future__ import annotations

import inspect
import json
import os
import pickle
import sys
from collections.abc import Callable
from importlib import import_module
from multiprocessing import Pipe
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "driver"), str(ROOT / "demo" / "standin")]

Objects = dict[str, Any]
LOOKS = ("__module__", "__name__", "__qualname__", "__doc__", "__defaults__", "__kwdefaults__")


def targets() -> list[tuple[str, Any, str]]:
    """Name, owner and attribute of every hook of ours that fits this vLLM; imports the modules, puts nothing in."""
    from profilemate.probe import fit, hook

    found = []
    for each in fit.all_hooks():
        module = import_module(each.module)
        if not hook.misfit(each, module):
            found.append((each.name, *hook.owner_and_name(module, each.target)))
    return found


def make_objects(model: str) -> Objects:
    """Objects that vLLM sends between its processes: arguments, configuration, a request, a scheduled batch, an output."""
    import trace as traces

    import drive
    from vllm.engine.arg_utils import EngineArgs

    options = drive.parse(["--requests", "4"])
    entries = traces.synthetic_trace(7, 4)
    scheduler = drive.make_scheduler(options, max(len(entry.prompt) + entry.output_length for entry in entries))
    driver = drive.Driver(scheduler, drive.Requests(entries, options.block_size), options)
    driver._arrivals()
    driver._schedule()
    scheduled, output = driver.in_flight[0]
    arguments = EngineArgs(model=model, load_format="dummy")
    return {
        "EngineArgs": arguments,
        "VllmConfig": scheduler.vllm_config,
        "KVCacheConfig": scheduler.kv_cache_config,
        "SamplingParams": driver.added[0].sampling_params,
        "SchedulerOutput": scheduled,
        "ModelRunnerOutput": output,
    }


def picklers() -> dict[str, Callable[[Any], bytes]]:
    """The ways in which vLLM and its executors pickle."""
    import cloudpickle

    return {"pickle": pickle.dumps, "cloudpickle": cloudpickle.dumps}


def is_imported_name(owner: Any, attribute: str) -> bool:
    """Whether a module has the target from another one: a pickle would name the other, where there is no hook."""
    return inspect.ismodule(owner) and vars(owner)[attribute].__module__ != owner.__name__


def all_pickles(objects: Objects, places: list[tuple[str, Any, str]]) -> dict[str, bytes]:
    """Every object, every class that has a hook, and every target by reference."""
    subjects = {**objects, "bound method": objects["EngineArgs"].create_engine_config}
    for name, owner, attribute in places:
        if not is_imported_name(owner, attribute):
            subjects[f"target of {name}"] = getattr(owner, attribute)
        if inspect.isclass(owner):
            subjects[f"class of {name}"] = owner
    return {f"{way}: {name}": dump(subject) for way, dump in picklers().items() for name, subject in subjects.items()}


def load_all(pickles: dict[str, bytes]) -> dict[str, str]:
    """The type of what each pickle holds."""
    return {name: type(pickle.loads(data)).__qualname__ for name, data in pickles.items()}


def child_without(connection: Any, objects: Objects, places: list[tuple[str, Any, str]]) -> None:
    """Send our own pickles, then load those that come."""
    try:
        connection.send(all_pickles(objects, places))
        connection.send(load_all(connection.recv()))
    finally:
        connection.close()
        os._exit(0)


def snapshot(places: list[tuple[str, Any, str]]) -> dict[int, tuple[Any, dict[str, Any]]]:
    """All attributes of every class and module that gets a hook."""
    return {id(owner): (owner, dict(vars(owner))) for _, owner, _ in places}


def changed(before: dict[int, tuple[Any, dict[str, Any]]]) -> list[str]:
    """Attributes that are other objects than in the snapshot, or were not there."""
    different = []
    for owner, attributes in before.values():
        now = vars(owner)
        where = f"{getattr(owner, '__module__', '')}.{owner.__name__}"
        different += [f"{where}.{name}" for name in attributes if now.get(name) is not attributes[name]]
        different += [f"{where}.{name} is new" for name in now if name not in attributes]
    return different


def unlike(before: dict[int, tuple[Any, dict[str, Any]]], places: list[tuple[str, Any, str]]) -> list[str]:
    """Wrapped targets whose name, document, defaults or signature are not the original's."""
    found = []
    for name, owner, attribute in places:
        original, wrapped = before[id(owner)][1][attribute], vars(owner)[attribute]
        same = all(getattr(original, look) == getattr(wrapped, look) for look in LOOKS)
        if not same or inspect.signature(original) != inspect.signature(wrapped):
            found.append(name)
    return found


def factors() -> dict[str, str]:
    """What vLLM hashes of the environment."""
    import vllm.envs

    return {name: repr(value) for name, value in vllm.envs.compile_factors().items()}


def through_ray(model: str, config: Any) -> dict[str, Any]:
    """The environment that a worker under Ray compiles with: the driver asks for our variables to be copied first."""
    from vllm.engine.arg_utils import EngineArgs
    from vllm.v1.worker.worker_base import WorkerWrapperBase

    EngineArgs(model=model, load_format="dummy", distributed_executor_backend="ray")
    asked_for = os.environ.get("VLLM_RAY_EXTRA_ENV_VARS_TO_COPY", "")
    wrapper: Any = WorkerWrapperBase()
    wrapper.vllm_config = config
    wrapper.worker = SimpleNamespace(init_device=lambda: None, vllm_config=config)
    wrapper.init_device()
    return {"asked_for": asked_for, "factors": factors()}


def main() -> None:
    """Run it all and write the result."""
    out, model = Path(sys.argv[1]), sys.argv[2]
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    from cuda_graph_standin import driver as graph_driver

    from profilemate import boot, plugin
    from profilemate.probe import install

    graph_driver.install()  # torch's CPU build has no CUDAGraph class to hook
    places, objects = targets(), make_objects(model)
    bare_factors, bare_pickles = factors(), all_pickles(objects, places)
    before = snapshot(places)
    aliases = {name: vars(owner)[attribute] for name, owner, attribute in places}
    here, there = Pipe()
    child = os.fork()
    if child == 0:
        here.close()
        child_without(there, objects, places)
    there.close()
    childs_pickles = here.recv()

    os.environ["PROFILEMATE_ENABLE"] = (
        "1"  # not before: vLLM has loaded its plugins by now, the installed one among them
    )
    install.begin()
    install.install_late_hooks()
    wrapped = snapshot(places)
    boot.start()  # type: ignore[no-untyped-call]
    plugin.register()
    install.begin()
    result: dict[str, Any] = {
        "states": {name: [state.state, state.reason] for name, state in install.states.items()},
        "places": [name for name, _, _ in places],
        "imported_names": [name for name, owner, attribute in places if is_imported_name(owner, attribute)],
        "hooked": changed(before),
        "changed_by_a_second_start": changed(wrapped),
        "unlike": unlike(before, places),
        "factors": {"before": bare_factors, "after": factors()},
    }
    pickles = all_pickles(objects, places)
    here.send(pickles)
    result["pickles"] = {
        "count": len(pickles),
        "different": [name for name, data in pickles.items() if data != bare_pickles[name]],
        "kinds": load_all(pickles),
        "loaded_from_the_child": load_all(childs_pickles),
        "loaded_by_the_child": here.recv(),
        "targets": [
            name
            for name, owner, attribute in places
            if not is_imported_name(owner, attribute)
            and pickle.loads(pickles[f"pickle: target of {name}"]) is not vars(owner)[attribute]
        ],
    }
    os.waitpid(child, 0)
    result["ray"] = through_ray(model, objects["VllmConfig"])
    install.remove_all()
    result["left_changed"] = changed(before)
    result["aliases_changed"] = [
        name for name, owner, attribute in places if vars(owner)[attribute] is not aliases[name]
    ]
    out.write_text(json.dumps(result))


if __name__ == "__main__":
    main()
