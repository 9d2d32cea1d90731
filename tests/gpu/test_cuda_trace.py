"""The reader of torch profiler traces, on a real file of kineto's and on hand-made GPU events, good and odd."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import environment
import pytest
from gpu_check import cuda_trace
from kineto_events import kernel, launch, noise, runtime

MAKE_TRACE = """
import sys, torch
from pathlib import Path
from gpu_check.window import TorchWindow, bounds

matrix = torch.rand(64, 64)
result, (began, ended) = bounds(TorchWindow(), Path(sys.argv[1]), lambda: float((matrix @ matrix).relu().sum()))
assert result > 0 and ended > began
"""


@pytest.fixture(scope="module")
def host_trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trace that this machine's torch profiler wrote through the check's own window."""
    path = tmp_path_factory.mktemp("trace") / "trace.json.gz"
    env = environment.clean() | {"PYTHONPATH": str(environment.ROOT / "benchmarks")}
    subprocess.run(
        [sys.executable, "-c", MAKE_TRACE, str(path)],
        env=env,
        check=True,
        timeout=environment.HANGS_SECONDS,
        capture_output=True,
    )
    return path


def spans(trace: cuda_trace.Trace) -> list[tuple[int, int, int]]:
    return [(one.kernels, one.first_start_ns, one.last_end_ns) for one in trace.launches]


def test_a_real_trace_of_the_host_has_its_time_base_and_no_launch(host_trace: Path) -> None:
    trace = cuda_trace.read(host_trace)
    assert trace.base_ns > 0
    assert (trace.launches, trace.device_events, dict(trace.unusable)) == ([], 0, {})
    assert not trace.synchronisations
    with gzip.open(host_trace, "rt") as file:
        assert any(event.get("cat") == "cpu_op" for event in json.load(file)["traceEvents"])


def test_gpu_events_beside_real_ones_of_the_host_are_found(host_trace: Path, tmp_path: Path) -> None:
    with gzip.open(host_trace, "rt") as file:
        document = json.load(file)
    start = 4_737_707_233_277.202
    document["traceEvents"] += [launch(start, 11), kernel(start + 30, 100.5, 11), kernel(start + 131, 9, 11)]
    path = tmp_path / "trace.json"
    path.write_text(json.dumps(document, indent=2))
    (one,) = cuda_trace.read(path).launches
    assert one.kernels == 2
    assert one.last_end_ns - one.first_start_ns == 110_000


def test_each_launch_gets_the_kernels_of_its_correlation_in_the_order_of_the_launches() -> None:
    trace = summarised(
        *noise(1.0),
        launch(200, 8), launch(100, 7),
        kernel(150, 10, 7), kernel(161, 4, 7, cat="gpu_memcpy"), kernel(140, 2, 7, cat="gpu_memset"),
        kernel(400, 50, 8),
        kernel(300, 5, 99),
    )  # fmt: skip
    assert spans(trace) == [(3, 140_000, 165_000), (1, 400_000, 450_000)]
    assert trace.device_events == 5
    assert trace.launched_kernels == 4
    assert not trace.unusable


def summarised(*events: Any) -> cuda_trace.Trace:
    return cuda_trace.summarise(list(events))


def test_nanoseconds_survive_in_a_file_with_sixteen_digits(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    path.write_text(json.dumps({"traceEvents": [launch("A", 1), kernel("B", "C", 1)]}).replace('"A"', "1790857026123456.001")
                    .replace('"B"', "1790857026123456.789").replace('"C"', "0.211"))  # fmt: skip
    (one,) = cuda_trace.read(path).launches
    assert (one.start_ns, one.first_start_ns, one.last_end_ns) == (
        1_790_857_026_123_456_001, 1_790_857_026_123_456_789, 1_790_857_026_123_457_000,
    )  # fmt: skip


def test_whole_microseconds_of_older_profilers_and_a_bare_list_are_read(tmp_path: Path) -> None:
    path = tmp_path / "trace.json.gz"
    with gzip.open(path, "wt") as file:
        json.dump([launch(1_700_000_000_000_000, 5, dur=8), kernel(1_700_000_000_000_020, 30, 5)], file)
    trace = cuda_trace.read(path)
    assert trace.base_ns == 0
    assert spans(trace) == [(1, 1_700_000_000_000_020_000, 1_700_000_000_000_050_000)]


ODD = {
    "a launch without correlation": ([launch(1, None)], 1, 0, {"graph launch without correlation": 1}),
    "a launch without arguments": ([{**launch(1, 2), "args": None}], 1, 0, {"graph launch without correlation": 1}),
    "a kernel without correlation": (
        [launch(1, 2), kernel(5, 1, None)], 1, 0, {"device work without correlation": 1},
    ),
    "correlations as text": ([launch(1, "2"), kernel(5, 1, "2")], 1, 1, {}),
    "a correlation that is no number": (
        [launch(1, "x"), kernel(5, 1, 2)], 1, 0, {"graph launch without correlation": 1},
    ),
    "correlations beyond 64 bits": ([launch(1, 2**70 + 1), kernel(5, 1, 2**70 + 1), kernel(9, 1, 2**70)], 1, 1, {}),
    "one correlation twice": (
        [launch(1, 2), launch(3, 2), kernel(5, 1, 2)], 2, 0, {"graph launches with one correlation": 2},
    ),
    "a negative duration": ([launch(1, 2), kernel(5, -1, 2), kernel(7, 1, 2)], 1, 1, {"negative duration": 1}),
    "no duration at all": ([launch(1, 2), kernel(5, 0, 2)], 1, 1, {}),
    "no time": ([launch(1, 2), {**kernel(5, 1, 2), "ts": None}], 1, 0, {"without a time": 1}),
    "a time that is text": ([launch(1, 2), kernel("soon", 1, 2)], 1, 0, {"without a time": 1}),
    "a time that is not finite": ([launch(1, 2), kernel(float("nan"), 1, 2)], 1, 0, {"without a time": 1}),
    "an infinite duration": ([launch(1, 2), kernel(5, float("inf"), 2)], 1, 0, {"without a time": 1}),
    "begin and end events": ([launch(1, 2), {**launch(3, 4), "ph": "B"}], 1, 0, {"not a complete event": 1}),
    "things that are no events": ([None, 7, "cudaGraphLaunch", [], launch(1, 2)], 1, 0, {}),
    "a kernel of that name": ([{**kernel(1, 1, 2), "name": "cudaGraphLaunch"}], 0, 0, {}),
    "a name with a version": ([runtime("cudaGraphLaunch_v10000", 1, 2), kernel(5, 1, 2)], 1, 1, {}),
    "another call that launches": ([runtime("cudaLaunchKernel", 1, 2), kernel(5, 1, 2)], 0, 0, {}),
    "the runtime's and the driver's view of one launch": (
        [launch(1, 2), runtime("cuGraphLaunch", 2, 3, cat="cuda_driver"), kernel(5, 1, 2)], 1, 1, {},
    ),
    "the driver's view alone": ([runtime("cuGraphLaunch", 1, 2, cat="cuda_driver"), kernel(5, 1, 2)], 1, 1, {}),
}  # fmt: skip


@pytest.mark.parametrize("case", ODD)
def test_what_is_odd_is_counted_by_reason_and_the_rest_is_used(case: str) -> None:
    events, launches, kernels, unusable = ODD[case]
    trace = cuda_trace.summarise(events)
    assert (len(trace.launches), trace.launched_kernels, dict(trace.unusable)) == (launches, kernels, unusable)


def test_synchronising_calls_are_counted_by_name() -> None:
    trace = summarised(
        runtime("cudaStreamSynchronize", 1, 1), runtime("cudaStreamSynchronize", 9, 2),
        runtime("cudaEventSynchronize", 20, 3), runtime("cudaDeviceSynchronize_v3020", 30, 4),
        runtime("cuCtxSynchronize", 40, 5, cat="cuda_driver"),
        runtime("cudaEventQuery", 50, 6), runtime("cudaEventRecord", 60, 7), runtime("cudaStreamWaitEvent", 70, 8),
        *noise(80.0),
    )  # fmt: skip
    assert trace.synchronisations == {
        "cudaStreamSynchronize": 2,
        "cudaEventSynchronize": 1,
        "cudaDeviceSynchronize_v3020": 1,
        "cuCtxSynchronize": 1,
    }


def _gzip_cut_short() -> bytes:
    return gzip.compress(json.dumps({"traceEvents": [launch(1, 2)] * 99}).encode())[:-20]


UNREADABLE = {
    "empty.json": b"",
    "text.json": b"not a trace",
    "cut.json": b'{"traceEvents": [{"ph": "X", ',
    "cut.json.gz": _gzip_cut_short(),
    "plain.json.gz": b'{"traceEvents": []}',
    "other.json": b'{"events": []}',
    "number.json": b"7",
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_a_file_that_is_no_trace_is_refused_with_its_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(UNREADABLE[name])
    with pytest.raises(cuda_trace.TraceError, match=name):
        cuda_trace.read(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(cuda_trace.TraceError, match=r"gone\.json"):
        cuda_trace.read(tmp_path / "gone.json")


def test_line_breaks_in_kernel_names_and_bytes_that_are_no_text_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    text = json.dumps({"traceEvents": [{**kernel(5, 1, 2), "name": "@"}, launch(1, 2)]})
    path.write_bytes(text.replace("@", "a\nb\t").encode() + b" ")
    assert cuda_trace.read(path).launched_kernels == 1
    path.write_bytes(text.encode().replace(b"@", b"\xff\xfe"))
    assert cuda_trace.read(path).launched_kernels == 1
