"""From samples to verdicts: statistics on known data, the gate on made-up results, and the documents' figures."""

from __future__ import annotations

import json
import random
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import environment
import pytest
from overhead import cli, places, registry, render, results, table, verdict
from overhead.reference import Yardstick
from overhead.samples import Figure, Measurement, Target, read, write
from overhead.summary import summarise
from overhead.turns import turn_about
from overhead.verdict import BEYOND_GATE, INFORMATION, MET, NOT_MET, judge

PROGRAM = environment.ROOT / "benchmarks" / "overhead"


def figure(effect: str, profiled: list[float], bare: list[float], target: Target | None = None) -> Figure:
    return Figure("figure", "us", effect, profiled, bare, target)


# -- statistics ---------------------------------------------------------------------------------------------------------


def test_the_effect_is_the_median_over_rounds_and_not_the_difference_of_medians() -> None:
    """Drift that both sides of a round share cancels; the difference of the medians would be 0 here."""
    summary = summarise(figure("difference", [11, 21, 35, 44, 31], [10, 20, 31, 43, 33]))
    assert summary.estimate == 1
    assert summary.of_minima == 1
    assert (summary.profiled.min, summary.profiled.median, summary.profiled.max) == (11, 31, 44)
    assert summary.bare is not None and summary.bare.median == 31
    assert summary.samples == 5


@pytest.mark.parametrize(
    ("effect", "expected"), [("percent", 10.0), ("ratio", 1.1), ("times", 1.1), ("difference", 2.0), ("value", 22.0)]
)
def test_every_effect_on_sides_of_a_constant_ratio(effect: str, expected: float) -> None:
    bare = [10.0, 20.0, 40.0]
    profiled = [11.0, 22.0, 44.0]
    assert summarise(figure(effect, profiled, bare)).estimate == pytest.approx(expected)


def test_chance_that_a_group_shares_is_in_the_interval() -> None:
    """Each server of a start has its own speed: sixty rounds of five pairs are not sixty pairs."""
    dice = random.Random(7)
    covered = covered_without = 0
    for _ in range(12):
        biases = [dice.gauss(0, 5) for _ in range(5)]
        groups = [number for number in range(5) for _ in range(12)]
        profiled = [100 + biases[group] + dice.gauss(0, 2) for group in groups]
        one = figure("difference", profiled, [100.0] * 60)
        summary = summarise(one._replace(groups=groups))
        assert summary.estimate == summarise(one).estimate
        covered += summary.low <= 0 <= summary.high
        covered_without += summarise(one).low <= 0 <= summarise(one).high
    assert covered >= 9 > covered_without


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    dice = random.Random(11)
    covered = 0
    for _ in range(100):
        bare = [dice.gauss(100, 10) for _ in range(60)]
        profiled = [value + dice.gauss(3, 2) for value in bare]
        summary = summarise(figure("difference", profiled, bare))
        assert summary.low <= summary.estimate <= summary.high
        covered += summary.low <= 3 <= summary.high
    assert 88 <= covered <= 99


def test_an_interval_gets_narrower_with_rounds_and_one_outlier_does_not_move_it() -> None:
    dice = random.Random(5)
    noise = [dice.gauss(1, 0.2) for _ in range(400)]
    few = summarise(figure("value", noise[:25], []))
    many = summarise(figure("value", noise, []))
    disturbed = summarise(figure("value", [*noise[:-1], 1e6], []))
    assert many.high - many.low < (few.high - few.low) / 2
    assert disturbed.high - disturbed.low < 1.1 * (many.high - many.low)


def test_the_same_samples_give_the_same_interval() -> None:
    dice = random.Random(2)
    values = [dice.gauss(1, 0.2) for _ in range(200)]
    assert summarise(figure("value", values, [])) == summarise(figure("value", values, []))


def test_without_something_to_compare_with_there_is_one_side() -> None:
    summary = summarise(figure("value", [3.0, 1.0, 2.0], []))
    assert (summary.estimate, summary.bare, summary.of_minima) == (2.0, None, None)


@pytest.mark.parametrize(("profiled", "bare"), [([], []), ([1.0, 2.0], [1.0])])
def test_sides_that_do_not_fit_are_refused(profiled: list[float], bare: list[float]) -> None:
    with pytest.raises(ValueError, match="samples beside"):
        summarise(figure("difference", profiled, bare))


def test_each_side_comes_first_as_often_as_the_other() -> None:
    orders = [turn_about(number) for number in range(10)]
    assert orders.count((True, False)) == orders.count((False, True)) == 5


# -- verdicts -----------------------------------------------------------------------------------------------------------

AT_MOST_10 = Target(10.0)
RATIO = Target(0.995, "ratio")


@pytest.mark.parametrize(
    ("target", "estimate", "high", "expected"),
    [
        (AT_MOST_10, 10.0, 12.0, MET),
        (AT_MOST_10, 10.1, 12.0, NOT_MET),
        (AT_MOST_10, 15.0, 99.0, NOT_MET),  # the median counts, not the interval
        (AT_MOST_10, 15.1, 15.2, BEYOND_GATE),
        (RATIO, 0.996, 1.01, MET),
        (RATIO, 0.98, 0.991, NOT_MET),  # the interval reaches 0.99
        (RATIO, 0.98, 0.989, BEYOND_GATE),
        (None, 1e9, 1e9, INFORMATION),
    ],
)
def test_verdicts(target: Target | None, estimate: float, high: float, expected: str) -> None:
    assert judge(target, estimate, high) == expected


def made_up(**verdicts_by_benchmark: Figure) -> dict[str, Any]:
    """Results with one figure for each benchmark named."""
    found = results.empty()
    for name, one in verdicts_by_benchmark.items():
        about = {"size": "quick", "date": "2026-11-25", "command": "python benchmarks/overhead", "seconds": 1.0}
        found["benchmarks"][name] = results.entry(f"title of {name}", Measurement([one], {"disk": "ext4"}), about)
    return found


PASSES = figure("difference", [12.0, 13.0, 14.0], [10.0, 11.0, 12.0], Target(3.0))
FALLS_SHORT = PASSES._replace(target=Target(1.9))
FAILS = PASSES._replace(target=Target(1.3))
BELOW = figure("ratio", [95.0, 96.0, 97.0], [100.0, 100.0, 100.0], RATIO)
TOUCHES = figure("ratio", [95.0, 96.0, 99.5], [100.0, 100.0, 100.0], RATIO)


def test_the_gate_is_open_for_targets_that_are_met_or_missed_by_less_than_half(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.judge(made_up(step_writes=PASSES, graph_replay=FALLS_SHORT, end_to_end=TOUCHES)) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("one", "words"),
    [
        (FAILS, "2 us (2 to 2) where at most 1.3 us is the target, and the gate is at 1.95: 1.5 times the target"),
        (BELOW, "0.96 x (0.95 to 0.97) where at least 0.995 x is the target, and the gate is at 0.99: an interval"),
    ],
)
def test_the_gate_closes_with_a_sentence(one: Figure, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.judge(made_up(step_writes=PASSES, end_to_end=one)) == cli.EXIT_BEYOND_GATE
    err = capsys.readouterr().err
    assert f"bench: beyond the gate: end_to_end, figure: {words}" in err
    assert err.count("\n") == 1


ON_A_SLOW_MACHINE = FAILS._replace(yardstick=Yardstick("a bare step", [10.0, 30.0, 20.0], 10.0))


@pytest.mark.parametrize(
    ("bare", "slowness", "expected"),
    [
        ([10.0, 30.0, 20.0], 2.0, MET),  # 2 us here are 1 us there, where 1.3 is the target
        ([12.5, 12.5, 12.5], 1.25, NOT_MET),
        ([10.1, 10.1, 10.1], 1.01, BEYOND_GATE),
        ([1.0, 1.0, 1.0], 1.0, BEYOND_GATE),  # a fast machine gets no smaller target, and no larger one
    ],
)
def test_a_target_in_microseconds_is_one_of_the_targets_machine(
    bare: list[float], slowness: float, expected: str
) -> None:
    one = FAILS._replace(yardstick=Yardstick("a bare step", bare, 10.0))
    shown = made_up(step_writes=one)["benchmarks"]["step_writes"]["figures"][0]
    assert (shown["verdict"], shown["yardstick"]["slowness"]) == (expected, pytest.approx(slowness))
    assert shown["effect"]["estimate"] == 2.0  # what was measured stays what it is


def test_both_speeds_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = made_up(step_writes=ON_A_SLOW_MACHINE)
    assert "| 2.00 µs | 2.00 to 2.00 | 1.00 µs (here 2.0x slower) | met |" in render.overhead_page(found)
    assert "figure: 1.00 µs at the targets' speed; a bare step takes 2 times as long here" in table.text(found)
    slow = ON_A_SLOW_MACHINE._replace(target=Target(0.5))
    assert cli.judge(made_up(step_writes=slow)) == cli.EXIT_BEYOND_GATE
    assert (
        "(2 to 2), 1 us at the targets' speed, of which this machine takes 2 times as long," in capsys.readouterr().err
    )


@pytest.mark.parametrize(("second", "expected"), [(PASSES, 0), (FAILS, 1)])
def test_what_is_beyond_the_gate_is_measured_once_more(
    second: Figure, expected: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    measured: list[str] = []

    def measure(benchmark: Any, size: str) -> dict[str, Any]:
        again = benchmark.name in measured
        measured.append(benchmark.name)
        one = PASSES if benchmark.name != "step_writes" else second if again else FAILS
        entry = dict(made_up(**{benchmark.name: one})["benchmarks"][benchmark.name])
        return entry | {"figures": 2 * entry["figures"]}  # two figures of one benchmark are no reason to run it thrice

    monkeypatch.setattr(cli, "measure", measure)
    before = places.RESULTS.read_bytes()
    assert cli.main(["--quick", "--gate", "--only", "step_writes,graph_replay"]) == expected
    assert measured == ["step_writes", "graph_replay", "step_writes"]
    assert "beyond the gate, measured once more: step_writes" in capsys.readouterr().err
    assert places.RESULTS.read_bytes() == before


def test_the_gate_runs_every_benchmark_with_a_target() -> None:
    kept = json.loads(places.RESULTS.read_text())["benchmarks"]
    with_target = [name for name, one in kept.items() if any(shown["target"] for shown in one["figures"])]
    assert cli.parse(["--gate"]).only == with_target


# -- results and documents ----------------------------------------------------------------------------------------------


def test_samples_survive_the_way_from_the_child(tmp_path: Path) -> None:
    measurement = Measurement([PASSES, ON_A_SLOW_MACHINE, figure("value", [1.5], [])], {"file system": "ext4"})
    write(tmp_path / "result.json", measurement)
    assert read(tmp_path / "result.json") == measurement


def test_results_of_another_machine_are_not_mixed_in() -> None:
    old, new = made_up(step_writes=PASSES), made_up(graph_replay=PASSES)
    assert list(results.merge(old, new)["benchmarks"]) == ["step_writes", "graph_replay"]
    new["machine"] = {**new["machine"], "cores": 999}
    with pytest.raises(ValueError, match="results of another machine"):
        results.merge(old, new)


def test_a_partial_run_keeps_what_other_benchmarks_gave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "results.json"
    results.save(target, made_up(end_to_end=TOUCHES, step_writes=FAILS))
    fresh = made_up(step_writes=PASSES)["benchmarks"]["step_writes"]
    monkeypatch.setattr(cli, "measure", lambda benchmark, size: fresh)
    assert cli.main(["--only", "step_writes", "--json", str(target)]) == 0
    kept = results.load(target)["benchmarks"]
    assert list(kept) == ["step_writes", "end_to_end"]  # in the order of the list
    assert kept["step_writes"] == fresh
    assert kept["end_to_end"]["figures"][0]["verdict"] == NOT_MET


def test_only_what_is_between_the_markers_is_written(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{render.BEGIN}\nold\n{render.END}\nafter\n")
    render.render(made_up(step_writes=FAILS), (render.Document(page, render.overhead_page),))
    text = page.read_text()
    assert text.startswith(f"before\n{render.BEGIN}\n") and text.endswith(f"{render.END}\nafter\n")
    assert "old" not in text
    row = (
        "| title of step_writes: figure | at most 1.3 µs | 2.00 µs | 2.00 to 2.00 | - | **not met, beyond the gate** |"
    )
    assert row in text
    assert "12.0 / 13.0 (12.5 to 13.5) | 10.0 / 11.0 (10.5 to 11.5) | 2.00 µs (2.00 to 2.00) | 2.00 | 3 |" in text
    page.write_text("no markers")
    with pytest.raises(ValueError, match="there is no"):
        render.render(made_up(step_writes=FAILS), (render.Document(page, render.overhead_page),))


@pytest.mark.parametrize("document", render.DOCUMENTS, ids=lambda document: document.path.name)
def test_the_documents_say_what_results_json_gives(document: render.Document) -> None:
    kept = json.loads(places.RESULTS.read_text())
    text = document.path.read_text()
    assert text == render.between_markers(text, document.text(kept))


def test_results_json_is_of_a_full_run_of_every_benchmark() -> None:
    kept = json.loads(places.RESULTS.read_text())
    assert list(kept["benchmarks"]) == [benchmark.name for benchmark in registry.BENCHMARKS]
    for name, one in kept["benchmarks"].items():
        assert one["size"] == "full" and one["date"] and one["command"]
        for shown in one["figures"]:
            times = verdict.slowness(shown) or 1
            again = judge(
                _target(shown["target"]), shown["effect"]["estimate"] / times, shown["effect"]["high"] / times
            )
            assert shown["verdict"] == again
            is_counted_once = name == "step_instructions" or shown["name"].startswith("own account")
            assert shown["samples"] >= (1 if is_counted_once else 10)
    assert all(kept["machine"].values()) and all(kept["versions"].values())


def _target(kept: dict[str, Any] | None) -> Target | None:
    return kept and Target(kept["limit"], kept["rule"], kept["held_at"])


def test_the_gate_is_that_of_the_project() -> None:
    assert verdict.GATE_FACTOR == 1.5 and verdict.RATIO_GATE == 0.99


def test_the_table_for_a_terminal_has_every_figure() -> None:
    lines = table.text(made_up(step_writes=FAILS, end_to_end=TOUCHES)).splitlines()
    assert lines[1] == "step_writes: title of step_writes"
    assert " ".join(lines[2].split()) == "figure [us] 13.0 11.0 2.00 µs 2.00 to 2.00 1.3 beyond the gate"
    assert len({line.index("to") for line in (lines[2], lines[5])}) <= 2
    assert statistics.median(len(line) for line in lines) < 160


def test_help_has_an_example_and_an_unknown_benchmark_is_named() -> None:
    shown = subprocess.run([sys.executable, str(PROGRAM), "--help"], capture_output=True, text=True, check=True)
    assert "python benchmarks/overhead --quick --only graph_replay" in shown.stdout
    wrong = subprocess.run(
        [sys.executable, str(PROGRAM), "--only", "speed"], capture_output=True, text=True, check=False
    )
    assert wrong.returncode == 2 and "speed is none of python_start, " in wrong.stderr
