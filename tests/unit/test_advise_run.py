"""The frame of the advice: topics, failures, flags beside a configuration, what is predicted and what came of it."""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from advise_steps import BOTH, add_requests, add_steps, plain_step
from environment import ROOT
from session_builder import SessionBuilder

from profilemate.advise import TOPICS, flags, run, verify
from profilemate.advise.finding import ACT, FINE, LOOK, THIN, Evidence, Finding, Gain, Verdict
from profilemate.advise.record import findings_record, plain
from profilemate.advise.text import WIDTH, gain_text, number_text, print_check, print_findings
from profilemate.frames.session import Session
from profilemate.session.errors import SessionError


def made(name: str, level: str = ACT, **cells: Any) -> Finding:
    return Finding(name.split(".")[0], name, level, f"Title of {name}", "It says so.", **cells)


@pytest.fixture
def topics(monkeypatch: pytest.MonkeyPatch) -> dict[str, ModuleType]:
    """Stand-ins for all topics, which find nothing."""
    modules = {name: ModuleType(name) for name in TOPICS}
    for module in modules.values():
        module.advise = lambda session: []  # type: ignore[attr-defined]
    monkeypatch.setattr(run, "topic_module", modules.__getitem__)
    return modules


def set_findings(module: ModuleType, *found: Finding) -> None:
    module.advise = lambda session: list(found)  # type: ignore[attr-defined]


@pytest.fixture
def empty(session: SessionBuilder) -> Session:
    return Session(session.path)


# -- running ------------------------------------------------------------------------------------------------------------


def test_all_topics_have_a_module() -> None:
    assert run.topics() == TOPICS


def test_what_to_act_on_comes_first_then_the_order_of_topics(empty: Session, topics: dict[str, ModuleType]) -> None:
    set_findings(topics["healthy_ranges"], made("healthy_ranges.a", ACT), made("healthy_ranges.b", FINE))
    set_findings(topics["capture_sizes"], made("capture_sizes.a", FINE), made("capture_sizes.b", THIN))
    set_findings(topics["lengths"], made("lengths.a", LOOK), made("lengths.b", ACT), made("lengths.c", "unheard of"))
    heard: list[str] = []
    names = [one.name for one in run.findings(empty, on_topic=heard.append)]
    assert names == [
        "lengths.b", "healthy_ranges.a", "lengths.a", "capture_sizes.b", "capture_sizes.a", "healthy_ranges.b", "lengths.c",
    ]  # fmt: skip
    assert heard == list(TOPICS)


def test_only_wanted_topics_run(empty: Session, topics: dict[str, ModuleType]) -> None:
    set_findings(topics["lengths"], made("lengths.a"))
    set_findings(topics["scheduling"], made("scheduling.a"))
    assert [one.name for one in run.findings(empty, ["scheduling"])] == ["scheduling.a"]


@pytest.mark.parametrize(
    "error", [ZeroDivisionError("division by zero"), SessionError("no such table"), KeyError("x"), MemoryError()]
)
def test_a_topic_that_fails_loses_no_other(empty: Session, topics: dict[str, ModuleType], error: Exception) -> None:
    def fail(session: Session) -> list[Finding]:
        raise error

    topics["capture_sizes"].advise = fail  # type: ignore[attr-defined]
    set_findings(topics["lengths"], made("lengths.a", FINE))
    failed, other = run.findings(empty)
    assert (failed.name, failed.level, other.name) == ("capture_sizes.failed", LOOK, "lengths.a")
    assert run.has_failed(failed) and not run.has_failed(other)
    assert type(error).__name__ in failed.says or str(error) in failed.says
    assert "Traceback" not in failed.says
    assert failed.numbers["exception"] == type(error).__name__


def test_a_panic_of_polars_is_one_too(empty: Session, topics: dict[str, ModuleType]) -> None:
    """Polars raises it beside Exception."""
    import polars

    def fail(session: Session) -> list[Finding]:
        raise polars.exceptions.PanicException("a hole")

    topics["lengths"].advise = fail  # type: ignore[attr-defined]
    assert [one.name for one in run.findings(empty)] == ["lengths.failed"]


def test_a_user_who_interrupts_is_heard(empty: Session, topics: dict[str, ModuleType]) -> None:
    def interrupt(session: Session) -> list[Finding]:
        raise KeyboardInterrupt

    topics["lengths"].advise = interrupt  # type: ignore[attr-defined]
    with pytest.raises(KeyboardInterrupt):
        run.findings(empty)


def test_a_missing_package_is_one_pip_line(empty: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(SessionError, match=r"needs the package scipy: pip install 'profilemate\[report\]'"):
        run.findings(empty)


# -- flags --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "settings"),
    [
        ("--max-num-seqs 64", [("--max-num-seqs", 64, "max_num_seqs")]),
        ("--max-num-seqs=64", [("--max-num-seqs", 64, "max_num_seqs")]),
        ("--cudagraph-capture-sizes 1 2 4", [("--cudagraph-capture-sizes", [1, 2, 4], "cudagraph_capture_sizes")]),
        ("--gpu-memory-utilization 0.92", [("--gpu-memory-utilization", 0.92, "gpu_memory_utilization")]),
        ("--kv-cache-dtype fp8", [("--kv-cache-dtype", "fp8", "cache_dtype")]),
        ("--no-enable-prefix-caching", [("--no-enable-prefix-caching", False, "enable_prefix_caching")]),
        ("--enable-prefix-caching", [("--enable-prefix-caching", True, "enable_prefix_caching")]),
        ("--long-prefill-token-threshold 512", [("--long-prefill-token-threshold", 512, "")]),
        (
            """-cc '{"cudagraph_mode": "FULL", "mode": 3}' --max-num-seqs 8""",
            [("--compilation-config cudagraph_mode", "FULL", "cudagraph_mode"), ("--compilation-config mode", 3, ""),
             ("--max-num-seqs", 8, "max_num_seqs")],
        ),
        ("--compilation-config.cudagraph_mode=PIECEWISE",
         [("--compilation-config.cudagraph_mode", "PIECEWISE", "cudagraph_mode")]),
        ("--compilation-config nonsense", [("--compilation-config", "nonsense", "")]),
        ("", []),
    ],
)  # fmt: skip
def test_flags_are_read(line: str, settings: list[tuple[str, Any, str]]) -> None:
    assert [(one.flag, one.value, one.key) for one in flags.settings([line])] == settings


@pytest.mark.parametrize(
    ("advised", "after", "told"),
    [
        (("--max-num-seqs 64",), {"max_num_seqs": 64}, []),
        (("--max-num-seqs 64",), {"max_num_seqs": 32},
         ["--max-num-seqs 64 was advised; the other session was run with 32"]),
        (("--max-num-seqs 64",), {}, ["--max-num-seqs 64 was advised; the other session does not tell its max_num_seqs"]),
        (("--cudagraph-capture-sizes 1 2 4",), {"cudagraph_capture_sizes": [4, 2, 1]}, []),
        (("--cudagraph-capture-sizes 8",), {"cudagraph_capture_sizes": [8]}, []),
        (("--cudagraph-capture-sizes 1 2 4",), {"cudagraph_capture_sizes": [1, 2]},
         ["--cudagraph-capture-sizes 1 2 4 was advised; the other session was run with 1 2"]),
        (("--gpu-memory-utilization 0.92",), {"gpu_memory_utilization": 0.9200000001}, []),
        (("--kv-cache-dtype fp8",), {"cache_dtype": "fp8"}, []),
        (("--no-enable-prefix-caching",), {"enable_prefix_caching": True},
         ["--no-enable-prefix-caching False was advised; the other session was run with True"]),
        (("--max-num-seqs 64", "--long-prefill-token-threshold 9"), {"max_num_seqs": 64}, []),
        (("--long-prefill-token-threshold 9",), {"max_num_seqs": 64},
         ["--long-prefill-token-threshold 9: a session does not record this setting, so it cannot be told whether it was set"]),
    ],
)  # fmt: skip
def test_differences_from_what_was_advised(advised: tuple[str, ...], after: dict[str, Any], told: list[str]) -> None:
    assert flags.differences(made("lengths.a", flags=advised), after) == told


def test_changes_without_what_follows_from_others() -> None:
    before = {"max_num_seqs": 8, "num_gpu_blocks": 100, "gpu_memory_utilization": 0.8, "model": "m"}
    after = {"max_num_seqs": 8, "num_gpu_blocks": 200, "gpu_memory_utilization": 0.9, "model": "m"}
    assert flags.changes(before, after) == {"gpu_memory_utilization": (0.8, 0.9)}
    assert flags.changes({"num_gpu_blocks": 1}, {"num_gpu_blocks": 2}) == {"num_gpu_blocks": (1, 2)}


# -- verify -------------------------------------------------------------------------------------------------------------


GAIN = Gain("waiting", "requests", 9, 4, 3, 5, "by hand")


def observing(module: ModuleType, value: float) -> None:
    module.verify = lambda finding, after: [  # type: ignore[attr-defined]
        Verdict(finding.name, gain.quantity, gain.unit, gain.expected, gain.low, gain.high, value, "seen")
        for gain in finding.gains
    ]


@pytest.fixture
def pair(session: SessionBuilder) -> tuple[Session, Session]:
    """One session, and one with 32 sequences and another model length."""
    add_steps(session, [plain_step()])
    after = SessionBuilder(session.path.parent, "session_20251124_170000")
    add_steps(after, [plain_step()], max_num_seqs=32, max_model_len=512)
    return Session(session.path), Session(after.path)


@pytest.mark.parametrize(("value", "holds"), [(3, True), (5, True), (2.99, False), (5.01, False), (math.nan, False)])
def test_a_prediction_holds_within_its_range(
    pair: tuple[Session, Session], topics: dict[str, ModuleType], value: float, holds: bool
) -> None:
    set_findings(topics["lengths"], made("lengths.a", flags=("--max-num-seqs 32",), gains=(GAIN,)))
    observing(topics["lengths"], value)
    check = verify.check(*pair)
    assert [verdict.holds for verdict in check.verdicts] == [holds]
    assert check.all_hold is holds
    assert check.also_changed == {"max_model_len": (4096, 512)}, "max_num_seqs was advised"


def test_a_session_without_the_advice_is_refused(pair: tuple[Session, Session], topics: dict[str, ModuleType]) -> None:
    set_findings(topics["lengths"], made("lengths.a", flags=("--max-num-seqs 16",), gains=(GAIN,)))
    observing(topics["lengths"], 4)
    with pytest.raises(SessionError) as refused:
        verify.check(*pair)
    assert "lengths.a: --max-num-seqs 16 was advised; the other session was run with 32" in str(refused.value)


def test_what_was_not_applied_is_left_out_and_told(
    pair: tuple[Session, Session], topics: dict[str, ModuleType]
) -> None:
    set_findings(
        topics["lengths"],
        made("lengths.a", flags=("--max-num-seqs 32",), gains=(GAIN,)),
        made("lengths.b", flags=("--max-num-batched-tokens 64",), gains=(GAIN,)),
        made("lengths.c", gains=(GAIN,)),
        made("lengths.d", flags=("--max-num-seqs 32",)),
    )
    observing(topics["lengths"], 4)
    check = verify.check(*pair)
    assert [verdict.name for verdict in check.verdicts] == ["lengths.a"], "d predicts nothing"
    assert [one.name for one in check.skipped] == ["lengths.b", "lengths.c"]
    assert run.verdicts(*pair) == list(check.verdicts)


def test_nothing_predicted_is_refused(pair: tuple[Session, Session], topics: dict[str, ModuleType]) -> None:
    with pytest.raises(SessionError, match="nothing was predicted"):
        verify.check(*pair)


def test_a_topic_may_judge_for_itself_what_was_applied(
    pair: tuple[Session, Session], topics: dict[str, ModuleType]
) -> None:
    set_findings(topics["lengths"], made("lengths.a", gains=(GAIN,)))
    observing(topics["lengths"], 4)
    topics["lengths"].differences = lambda finding, after: []  # type: ignore[attr-defined]
    assert verify.check(*pair).all_hold
    topics["lengths"].differences = lambda finding, after: ["another world"]  # type: ignore[attr-defined]
    with pytest.raises(SessionError, match=r"lengths\.a: another world"):
        verify.check(*pair)


def test_a_verdict_that_fails_loses_no_other(pair: tuple[Session, Session], topics: dict[str, ModuleType]) -> None:
    for name in ("lengths", "scheduling"):
        set_findings(topics[name], made(f"{name}.a", flags=("--max-num-seqs 32",), gains=(GAIN,)))
    observing(topics["lengths"], 4)

    def fail(finding: Finding, after: Session) -> list[Verdict]:
        raise ValueError("odd")

    topics["scheduling"].verify = fail  # type: ignore[attr-defined]
    check = verify.check(*pair)
    assert [verdict.name for verdict in check.verdicts] == ["lengths.a"]
    assert [(one.name, one.reasons) for one in check.skipped] == [("scheduling.a", ("it ended with ValueError: odd",))]


# -- text and JSON ------------------------------------------------------------------------------------------------------


LONG = made(
    "lengths.long",
    flags=("--cudagraph-capture-sizes " + " ".join(map(str, range(1, 60))),),
    alternatives=("--max-num-seqs 8",),
    gains=(GAIN, Gain("padding", "", 0.5, 0.25, 0.25, 0.25, "")),
    evidence=(Evidence("engine_steps", 1, "all"), Evidence("requests", 12345)),
    to_be_sure="Be sure. " * 30,
    numbers={"a": 1},
)


def printed(*found: Finding) -> list[str]:
    file = io.StringIO()
    print_findings("A heading", found, file)
    return file.getvalue().splitlines()


def test_text_fits_eighty_columns_but_for_what_is_copied() -> None:
    lines = printed(LONG, made("lengths.b", FINE))
    long = [line for line in lines if len(line) > WIDTH]
    assert long == [f"   Set: {LONG.command_line}"]
    assert "   Or: --max-num-seqs 8" in lines
    assert lines[0] == "A heading"
    assert lines[1] == "2 findings: 1 to act on, 1 fine"
    assert "1. act: Title of lengths.long" in lines
    assert "2. fine: Title of lengths.b" in lines
    assert "   Gain: waiting: 9 now, 4 requests expected (3 to 5; by hand)" in lines
    assert "   Gain: padding: 0.5 now, 0.25 expected (exactly)" in lines
    assert "   Evidence: engine_steps, 1 row (all); requests, 12,345 rows" in lines


def test_text_has_no_control_characters_and_no_markup() -> None:
    lines = printed(replace(made("lengths.a", flags=("--model [red]\x1b[31mx",)), says="[bold]a\x1bb\n\tc"))
    text = "\n".join(lines)
    assert "\x1b" not in text
    assert "[bold]a?b??c" in text
    assert "[red]?[31mx" in text


def test_no_finding_is_no_error() -> None:
    assert printed() == ["A heading", "0 findings"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (1234567, "1,234,567"), (0.12345, "0.123"), (1234.5, "1,234"), (12.0, "12"), (math.nan, "unknown"),
     (math.inf, "unknown"), (-3.5, "-3.5")],
)  # fmt: skip
def test_numbers_of_the_text(value: float, text: str) -> None:
    assert number_text(value) == text


def test_a_gain_without_unit_and_how() -> None:
    assert gain_text(Gain("x", "", 1, 2, 2, 2, "")) == "x: 1 now, 2 expected (exactly)"


def test_the_text_of_a_check() -> None:
    file = io.StringIO()
    verdicts = (Verdict("lengths.a", "waiting", "requests", 4, 3, 5, 6, "seen"),)
    skipped = (verify.Skipped("lengths.b", ("not so",)),)
    print_check("B", verify.Check(verdicts, skipped, {"model": ("a", ["b", "c"])}), file)
    assert file.getvalue().splitlines() == [
        "B", "0 of 1 predictions hold", "", "1. does not hold: waiting (lengths.a)",
        "   predicted 4 requests (3 to 5), observed 6 requests", "   seen", "", "Not looked up:", "   lengths.b: not so", "",
        "These settings differ too, and no prediction knows of it:", "   model: a before, b c after",
    ]  # fmt: skip


def test_json_is_plain_whatever_a_topic_puts_in() -> None:
    import numpy

    odd = {
        "nan": math.nan, "inf": -math.inf, "float": 1 / 3, "numpy": numpy.float64(2.5), "count": numpy.int64(7),
        "flag": numpy.bool_(True), "tuple": (1, 2.0), "set": {"b", "a"}, "path": Path("x"), 3: None, "array": numpy.arange(3),
    }  # fmt: skip
    assert json.loads(json.dumps(plain(odd))) == {
        "nan": None, "inf": None, "float": 0.333333, "numpy": 2.5, "count": 7, "flag": True, "tuple": [1, 2.0],
        "set": ["a", "b"], "path": "x", "3": None, "array": [0, 1, 2],
    }  # fmt: skip


def test_the_record_has_everything(empty: Session, topics: dict[str, ModuleType]) -> None:
    set_findings(topics["lengths"], LONG)
    record = findings_record(empty, ["lengths"], run.findings(empty))
    (found,) = record["findings"]
    assert set(found) == {
        "number", "topic", "name", "level", "title", "says", "evidence", "flags", "command_line", "alternatives", "gains",
        "to_be_sure", "numbers",
    }  # fmt: skip
    assert (record["schema"], record["topics"], record["failed_topics"]) == (1, ["lengths"], [])
    assert found["gains"][0] == {
        "quantity": "waiting", "unit": "requests", "now": 9, "expected": 4, "low": 3, "high": 5, "how": "by hand",
    }  # fmt: skip


# -- real topics on odd sessions ----------------------------------------------------------------------------------------


def odd_sessions(session: SessionBuilder, kind: str) -> None:
    """What no topic may stumble over."""
    if kind == "nameless":
        session.nameless("EngineCore")
    elif kind == "no_configuration":
        session.process("EngineCore").rows(BOTH, {"time_ns": 1, "engine": 0, "step": 1})
    elif kind == "two_engines":
        for _ in range(2):
            add_steps(session, [plain_step(waiting=n % 3) for n in range(60)])
    elif kind == "front_end_alone":
        add_requests(session, [(1, 0, "abort"), (0, 1, "stop")])
    elif kind == "odd_configuration":
        add_steps(session, [plain_step()], max_num_seqs="many", block_size=0, num_gpu_blocks=-1, max_model_len=True)


@pytest.mark.parametrize(
    "kind", ["empty", "nameless", "no_configuration", "two_engines", "front_end_alone", "odd_configuration"]
)
@pytest.mark.parametrize("topic", ["lengths", "scheduling", "healthy_ranges"])
def test_no_topic_stumbles_over_an_odd_session(session: SessionBuilder, kind: str, topic: str) -> None:
    odd_sessions(session, kind)
    found = run.findings(Session(session.path), [topic])
    assert [one.says for one in found if run.has_failed(one)] == []
    assert found
    assert all(one.level in (THIN, FINE, LOOK) and not one.flags for one in found)


def test_the_guide_names_every_topic_finding_and_key(empty: Session, topics: dict[str, ModuleType]) -> None:
    from profilemate.advise import block_ages, healthy_ranges, lengths
    from profilemate.advise.engine import concurrency, host_time, interference, limits, preemption_cost, queue_growth

    guide = (ROOT / "docs" / "advice.md").read_text()
    modules = (
        block_ages,
        healthy_ranges,
        lengths,
        concurrency,
        host_time,
        interference,
        limits,
        preemption_cost,
        queue_growth,
    )
    assert [name for name in (*TOPICS, *(module.NAME for module in modules)) if name not in guide] == []
    set_findings(topics["lengths"], LONG)
    record = findings_record(empty, ["lengths"], run.findings(empty))
    schema = guide.partition("## JSON")[2]
    keys = {*record, *record["findings"][0], *record["findings"][0]["gains"][0], *record["findings"][0]["evidence"][0]}
    assert {key for key in keys if key not in schema} == set()
