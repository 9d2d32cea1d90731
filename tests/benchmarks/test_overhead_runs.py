"""Every benchmark at its smallest size: it runs, and what it times is real."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from overhead import cli, places, registry
from overhead.samples import Measurement, Target

ONE_PROCESS = ("python_start", "scheduler_step", "scheduler_all", "graph_replay", "step_writes", "engine_replaying")


def run(name: str, folder: Path) -> Measurement:
    places.make_importable()
    return cli.run_child(registry.find(name), "tiny", folder)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Measurement]:
    """The benchmarks that start no server; two at a time, since most of it is vLLM's import."""
    with ThreadPoolExecutor(2) as pool:
        folders = [tmp_path_factory.mktemp(name) for name in ONE_PROCESS]
        return dict(zip(ONE_PROCESS, pool.map(run, ONE_PROCESS, folders), strict=True))


def side(measurement: Measurement, name: str, on: bool = True) -> list[float]:
    figure = next(figure for figure in measurement.figures if figure.name == name)
    return figure.profiled if on else figure.bare


@pytest.mark.parametrize("name", ONE_PROCESS)
def test_every_sample_is_a_number_and_sides_have_the_same_length(name: str, measured: dict[str, Measurement]) -> None:
    assert measured[name].figures
    for figure in measured[name].figures:
        assert figure.profiled and len(figure.bare) in (0, len(figure.profiled))
        assert all(map(math.isfinite, (*figure.profiled, *figure.bare)))


def targets(measurement: Measurement) -> dict[str, Target]:
    return {figure.name: figure.target for figure in measurement.figures if figure.target}


def test_the_targets_are_those_of_the_project(measured: dict[str, Measurement]) -> None:
    assert {name: targets(measurement) for name, measurement in measured.items() if targets(measurement)} == {
        "python_start": {"python -c pass": Target(3.0)},
        "scheduler_step": {
            "per engine step": Target(5.0, held_at=32.0),
            "added by the KV cache tracker, against vLLM's collector at 1.0": Target(1.0, held_at=4.0),
            "added by all default trackers, against vLLM's collector at 1.0": Target(1.0, held_at=8.0),
        },
        "scheduler_all": {"per engine step": Target(10.0, held_at=60.0)},
        "graph_replay": {"one replaying call": Target(0.5)},
        "step_writes": {"one engine step": Target(10.0, held_at=20.0)},
    }


def test_a_start_takes_as_long_as_an_interpreter_does(measured: dict[str, Measurement]) -> None:
    for on in (True, False):
        assert all(2 < value < 5000 for value in side(measured["python_start"], "python -c pass", on))


def test_the_hooks_are_in_on_one_side_and_out_on_the_other(measured: dict[str, Measurement]) -> None:
    """A call that does nothing on the device costs less than a call with a hook around it, in the best rounds at least."""
    calls = measured["graph_replay"]
    assert min(side(calls, "one replaying call")) > min(side(calls, "one replaying call", on=False)) > 0.05
    assert min(side(measured["scheduler_step"], "per engine step", on=False)) > 20
    assert min(side(measured["engine_replaying"], "per engine step", on=False)) > 100


def test_a_step_writes_in_the_worker_and_in_the_scheduler(measured: dict[str, Measurement]) -> None:
    writes = measured["step_writes"]
    for name in ("its worker's part", "its scheduler's part", "of which write(2)"):
        assert min(side(writes, name)) > 0.3
    assert min(side(writes, "one engine step")) > max(
        min(side(writes, "its worker's part")), min(side(writes, "of which write(2)"))
    )
    assert writes.facts["file system"]


def test_real_servers(tmp_path: Path) -> None:
    found = run("end_to_end", tmp_path)
    rates = [side(found, name) for name in ("output tokens per second", "bare again (noise), output tokens per second")]
    rates.append(side(found, "output tokens per second", on=False))
    assert [len(one) for one in rates] == [2, 2, 2] and len({tuple(one) for one in rates}) == 3
    assert {tuple(figure.groups) for figure in found.figures} == {(0, 0)}
    assert min(side(found, "output tokens per second", on=False)) > 1
    assert min(side(found, "CPU time of the server's processes per output token", on=False)) > 0
    assert targets(found) == {"output tokens per second": Target(0.995, "ratio", held_at=0.90)}
    assert int(found.facts["engine steps recorded"]) > 10


def test_a_benchmark_that_fails_says_why(tmp_path: Path) -> None:
    broken = registry.find("python_start")._replace(environment={"PYTHONHASHSEED": "nonsense"})
    places.make_importable()
    with pytest.raises(cli.BenchmarkFailed, match=r"python_start ended with 1:(.|\n)*PYTHONHASHSEED must be"):
        cli.run_child(broken, "tiny", tmp_path)
