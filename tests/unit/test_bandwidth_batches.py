"""Sums of a batch against a count token by token, peaks of devices, and a measured copy."""

from __future__ import annotations

import random
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from known_models import LLAMA_3_8B

from profilemate.trackers.bandwidth import batch_sums, copy_speed, devices

# -- sums of a batch ----------------------------------------------------------------------------------------------------


def scheduled(
    new: list[tuple[int, int]], old: list[tuple[int, int]], drafts: dict[str, list[int]] | None = None
) -> Any:
    """A SchedulerOutput with these (tokens, computed before) per request."""
    counts = {f"new{n}": count for n, (count, _) in enumerate(new)}
    counts |= {f"old{n}": count for n, (count, _) in reversed(list(enumerate(old)))}
    return SimpleNamespace(
        num_scheduled_tokens=counts,
        total_num_scheduled_tokens=sum(counts.values()),
        scheduled_new_reqs=[
            SimpleNamespace(req_id=f"new{n}", num_computed_tokens=before) for n, (_, before) in enumerate(new)
        ],
        scheduled_cached_reqs=SimpleNamespace(
            req_ids=[f"old{n}" for n in range(len(old))], num_computed_tokens=[before for _, before in old]
        ),
        scheduled_spec_decode_tokens=drafts or {},
    )


def by_token(new: list[tuple[int, int]], old: list[tuple[int, int]], window: int) -> tuple[int, ...]:
    """The same sums, one token and one position at a time."""
    kv = prompt = pairs = products = in_window = window_pairs = 0
    for is_new, (count, before) in [(True, one) for one in new] + [(False, one) for one in old]:
        read: set[int] = set()
        for position in range(before, before + count):
            pairs += position + 1
            seen = range(max(0, position - window + 1), position + 1)
            window_pairs += len(seen)
            read |= set(seen)
        kv += before + count
        prompt += before + count if is_new or count > 1 else 0
        products += count * (before + count)
        in_window += len(read)
    return kv, prompt, pairs, products, in_window, window_pairs, len(new) + len(old)


@pytest.mark.parametrize("seed", range(60))
def test_sums_equal_a_count_by_token(seed: int) -> None:
    """Decode steps alone or beside new prompts, and chunks of older prompts among them."""
    dice = random.Random(seed)
    window = dice.choice([1, 5, 64])
    new = [(dice.randint(1, 90), dice.choice([0, 3, 80])) for _ in range(dice.choice([0, 1, 3]))]
    counts = dice.choice([[1], [1, 1, 1, 4, 70]])
    old = [(dice.choice(counts), dice.randint(0, 150)) for _ in range(dice.randint(0, 8))]
    expected = by_token(new, old, window)
    assert batch_sums.cells(scheduled(new, old), window) == ",".join(map(str, expected))
    without = [str(value) for value in expected]
    assert batch_sums.cells(scheduled(new, old), 0) == ",".join([*without[:4], "", "", without[6]])


def test_plain_decode_takes_no_request_by_itself() -> None:
    """The way without a look at the requests gives the same as the one that looks at each."""
    old = [(1, 10), (1, 99), (1, 500)]
    batch = scheduled([], old)
    batch.num_scheduled_tokens = batch.scheduled_spec_decode_tokens = None
    assert batch_sums.cells(batch, 64) == ",".join(map(str, by_token([], old, 64)))


def test_drafted_tokens_have_rows_of_logits() -> None:
    cells = batch_sums.cells(scheduled([], [(4, 20), (1, 7)], {"old0": [5, 6, 7]}), 0)
    assert cells.split(",")[-1] == "5"


# -- devices ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "gigabytes", "tflops"),
    [
        ("NVIDIA H100 80GB HBM3", 3350, 989), ("NVIDIA H100 PCIe", 2000, 756), ("NVIDIA H100 NVL", 3900, 835),
        ("NVIDIA H200", 4800, 989), ("NVIDIA A100-SXM4-40GB", 1555, 312), ("NVIDIA A100-PCIE-40GB", 1555, 312),
        ("NVIDIA A100-SXM4-80GB", 2039, 312), ("NVIDIA A100 80GB PCIe", 1935, 312), ("NVIDIA L40S", 864, 362),
        ("NVIDIA L4", 300, 121), ("NVIDIA B200", 8000, 2250), ("AMD_Instinct_MI300X_OAM", 5300, 1307),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None, None), ("GRID A100-40GB", None, None), ("cpu", None, None),
        ("NVIDIA GeForce RTX 4090", None, None), ("", None, None),
    ],
)  # fmt: skip
def test_peaks_of_known_devices(name: str, gigabytes: float | None, tflops: float | None) -> None:
    peak = devices.peak_of({"device_name": name}, LLAMA_3_8B)
    assert (peak.gb_per_second, peak.tflops) == (gigabytes, tflops)
    assert (peak.source == "unknown device") == (gigabytes is None)


def test_the_peak_is_that_of_the_type_in_which_is_computed() -> None:
    def peak(**more: Any) -> float | None:
        return devices.peak_of({"device_name": "NVIDIA H200"}, {**LLAMA_3_8B, **more}).tflops

    assert (peak(), peak(quantization="fp8"), peak(quantization="awq"), peak(dtype="torch.float32")) == (
        989, 1979, 989, None,
    )  # fmt: skip
    a100 = devices.peak_of({"device_name": "NVIDIA A100-SXM4-80GB"}, {**LLAMA_3_8B, "quantization": "fp8"})
    assert a100.tflops == 312


def test_a_measured_copy_is_the_peak() -> None:
    peak = devices.peak_of({"device_name": "cpu", "copied_bytes_per_second": 20_000_000_000}, LLAMA_3_8B)
    assert (peak.gb_per_second, peak.tflops, peak.source) == (20.0, None, "measured copy")


class FakeTensor:
    def __init__(self, told: list[str]) -> None:
        self.told = told

    def copy_(self, other: Any) -> None:
        self.told.append("copy")


@pytest.mark.parametrize(("kind", "per_copy"), [("cuda", ["wait", "copy", "wait"]), ("cpu", ["copy"])])
def test_a_copy_is_timed_to_its_end(monkeypatch: pytest.MonkeyPatch, kind: str, per_copy: list[str]) -> None:
    """The fastest of five takes 2 s here; a copy reads and writes 256 MiB. The device's memory is given back."""
    told: list[str] = []
    torch = SimpleNamespace(
        uint8="uint8", zeros=lambda size, **options: FakeTensor(told), zeros_like=lambda source: FakeTensor(told),
        cuda=SimpleNamespace(synchronize=lambda: told.append("wait"), empty_cache=lambda: told.append("empty")),
    )  # fmt: skip
    times = iter([0.0, 5.0, 10.0, 12.0, 20.0, 23.0, 30.0, 34.0, 40.0, 43.0])
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setattr(copy_speed.time, "perf_counter", lambda: next(times))
    assert copy_speed.measure(SimpleNamespace(type=kind)) == 1 << 28
    assert told == [*(per_copy * 5), *(["empty"] if kind == "cuda" else [])]
