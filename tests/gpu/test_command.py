"""The command: machines without a GPU, with a pretend one, results that are kept and merged."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import environment
import pytest
from gpu_check import cli, machine, record, surroundings
from gpu_check.compare import Check
from gpu_check.stages import STAGES, Sides, Stage, Surroundings, Target
from gpu_check.surroundings import EngineFailed, OutOfTime, Run

PROGRAM = environment.ROOT / "benchmarks" / "gpu_check"
CARD = "NVIDIA Pretend 80GB"
FAKE_TORCH = """
__version__ = "2.11.0+cu130"

class version:
    cuda = {cuda!r}

class cuda:
    @staticmethod
    def is_available():
        return {available}

    @staticmethod
    def get_device_properties(index):
        import types
        return types.SimpleNamespace(name={card!r}, major=9, minor=0, total_memory=80 << 30)
"""


def run(*arguments: str, cwd: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        arguments,
        env=environment.clean() | env,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=environment.HANGS_SECONDS,
        check=False,
    )


def fake_torch(folder: Path, available: bool = True, cuda: str | None = "13.0") -> str:
    """A folder with a torch that claims a card, for PYTHONPATH."""
    (folder / "torch").mkdir(parents=True)
    text = FAKE_TORCH.format(cuda=cuda, available=available, card=CARD)
    (folder / "torch" / "__init__.py").write_text(text)
    return str(folder)


# -- the machine --------------------------------------------------------------------------------------------------------


def test_without_a_gpu_it_says_so_in_one_sentence_and_has_its_own_exit_code(tmp_path: Path) -> None:
    path = fake_torch(tmp_path, available=False)
    (tmp_path / "tmp").mkdir()
    env = {"PYTHONPATH": path, "TMPDIR": str(tmp_path / "tmp")}
    done = run(sys.executable, str(PROGRAM), "--json", str(tmp_path / "gpu.json"), **env)
    assert done.returncode == cli.NO_GPU == 3
    assert done.stdout == "gpu-check: no GPU was checked: PyTorch 2.11.0+cu130 sees no CUDA device on this machine.\n"
    assert done.stderr == ""
    assert not (tmp_path / "gpu.json").exists()
    assert list((tmp_path / "tmp").iterdir()) == []


def test_this_machines_own_pytorch_is_asked() -> None:
    if Path("/dev/nvidiactl").exists():
        pytest.skip("this machine has an NVIDIA GPU: make gpu-check does more than say that there is none")
    done = run(sys.executable, str(PROGRAM))
    assert done.returncode == cli.NO_GPU
    assert done.stdout.count("\n") == 1
    assert f"PyTorch {importlib.metadata.version('torch')} sees no CUDA device" in done.stdout


@pytest.mark.parametrize(("available", "code"), [(False, 0), (True, 2)])
def test_make_does_not_fail_where_there_is_no_gpu_and_fails_where_there_is_one_it_cannot_use(
    tmp_path: Path, available: bool, code: int
) -> None:
    path = fake_torch(tmp_path, available=available)
    (tmp_path / "python").write_text(f'#!/bin/sh\nPYTHONPATH={path} exec {sys.executable} -S "$@"\n')
    (tmp_path / "python").chmod(0o755)
    done = run("make", "-s", "gpu-check", f"GPU_PYTHON={tmp_path}/python", cwd=environment.ROOT)
    assert done.returncode == code, done.stderr
    assert ("no GPU was checked" in done.stdout) is not available


def test_a_python_without_pytorch_has_no_gpu(tmp_path: Path) -> None:
    env = environment.clean() | {"PYTHONPATH": "", "PYTHONNOUSERSITE": "1"}
    (tmp_path / "python").write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    (tmp_path / "python").chmod(0o755)
    with pytest.raises(machine.NoGpu, match="PyTorch cannot be imported here \\(No module named 'torch'\\)"):
        machine.find(str(tmp_path / "python"), env)


def test_a_card_is_described_by_pytorch_and_the_driver_by_nvidia_smi(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = fake_torch(tmp_path / "site")
    (tmp_path / "site" / "vllm.py").write_text("")
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho 580.159.04\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    found = machine.find(env=environment.clean() | {"PYTHONPATH": path})
    wanted = {
        "card": CARD,
        "driver": "580.159.04",
        "cuda": "13.0",
        "torch": "2.11.0+cu130",
        "compute_capability": "9.0",
    }
    assert {name: found[name] for name in wanted} == wanted
    assert found["memory_bytes"] == 80 << 30


FOUND = {"torch": "2.11", "cuda": "13.0", "card": CARD, "vllm": True}


def test_a_gpu_of_another_make_or_without_vllm_is_told_apart() -> None:
    assert machine.judge(FOUND) == FOUND
    with pytest.raises(machine.NoGpu, match="not a CUDA build"):
        machine.judge({**FOUND, "cuda": None})
    with pytest.raises(machine.CannotRun, match="vLLM cannot be imported"):
        machine.judge({**FOUND, "vllm": False})


def test_a_python_that_breaks_is_no_machine_without_a_gpu(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise SystemExit('driver mismatch')")
    with pytest.raises(machine.CannotRun, match="driver mismatch"):
        machine.find(env=environment.clean() | {"PYTHONPATH": str(tmp_path)})


# -- a whole run, with pretend stages -----------------------------------------------------------------------------------


def pretend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **outcomes: bool | Exception) -> None:
    """A card, and stages that end as told."""
    found = {**FOUND, "driver": "580", "python": "3.12", "compute_capability": "9.0", "memory_bytes": 80 << 30}
    monkeypatch.setattr(machine, "find", lambda env: found)
    monkeypatch.setattr(surroundings.Surroundings, "mend_numba", lambda around: False)
    for name, outcome in outcomes.items():
        monkeypatch.setitem(STAGES, name, Stage("v1", "FULL", ("FULL",), *pretend_stage(tmp_path / name, outcome)))


def pretend_stage(folder: Path, outcome: bool | Exception) -> tuple[Any, Any]:
    def measure(stage: Stage, target: Target, around: Surroundings) -> Sides:
        if isinstance(outcome, (OutOfTime, EngineFailed)):
            raise outcome
        folder.mkdir()
        return Sides([Run(folder, {"vllm": "0.26.0"}, 0, 1.0)], [])

    def judge(stage: Stage, sides: Sides) -> list[Check]:
        if isinstance(outcome, Exception):
            raise outcome
        return [Check("replays", bool(outcome), "5 and 5", {"main": 5}), Check("memory", None, "unknown", {})]

    return measure, judge


def check(tmp_path: Path, *arguments: str) -> int:
    return cli.main(["--json", str(tmp_path / "gpu.json"), "--work", str(tmp_path / "work"), *arguments])


def kept(tmp_path: Path) -> dict[str, Any]:
    return dict(json.loads((tmp_path / "gpu.json").read_text())["cards"])


def test_a_result_has_the_card_the_versions_the_date_and_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pretend(tmp_path, monkeypatch, v1=True, v2=True)
    assert check(tmp_path, "--only", "v1,v2") == cli.HELD
    stages = kept(tmp_path)[CARD]
    assert list(stages) == ["v1", "v2"]
    result = stages["v1"]
    assert result["command"] == "python3 benchmarks/gpu_check --only v1"
    assert result["machine"]["driver"] == "580"
    assert result["vllm"] == "0.26.0"
    assert result["date"].startswith("20") and result["date"].endswith("+00:00")
    assert result["checks"]["replays"] == {"holds": True, "says": "5 and 5", "main": 5}
    assert str(tmp_path) not in json.dumps(stages)
    assert "holds  replays" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("outcome", "code"),
    [(False, cli.NOT_HELD), (EngineFailed("exit 1"), cli.COULD_NOT_RUN), (OutOfTime("3 s left"), cli.COULD_NOT_RUN),
     (KeyError("captured"), cli.COULD_NOT_RUN)],
)  # fmt: skip
def test_a_stage_that_fails_is_told_and_the_others_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], outcome: Any, code: int
) -> None:
    pretend(tmp_path, monkeypatch, v1=outcome, v2=True)
    assert check(tmp_path, "--only", "v1,v2") == code
    assert kept(tmp_path)[CARD]["v2"]["holds"] is True
    assert ("v1" in kept(tmp_path)[CARD]) is (outcome is False)
    out = capsys.readouterr().out
    assert ("FAILS  replays" in out) is (outcome is False)
    assert ("could not be" in out) is (outcome is not False)


def test_a_file_that_nothing_can_be_merged_into_is_told_before_the_gpu_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pretend(tmp_path, monkeypatch, v1=True)
    (tmp_path / "gpu.json").write_text("[]")
    assert check(tmp_path, "--only", "v1") == cli.COULD_NOT_RUN
    assert "gpu.json is not a record" in capsys.readouterr().err
    assert (tmp_path / "gpu.json").read_text() == "[]"
    assert not (tmp_path / "v1").exists()


def test_an_unknown_stage_is_refused_with_the_names_that_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--only", "v1,v3"])
    assert "v3 is no stage; there are v1, v2" in capsys.readouterr().err


# -- the record ---------------------------------------------------------------------------------------------------------


def a_record(card: str, **dates: str) -> dict[str, Any]:
    return {"format": 1, "cards": {card: {stage: {"date": date, "holds": True} for stage, date in dates.items()}}}


def test_merging_keeps_other_cards_and_stages_and_the_newer_result(tmp_path: Path) -> None:
    path = tmp_path / "gpu.json"
    record.save(path, a_record("H100", v1="2026-01-02", v2="2026-01-02"))
    record.save(path, a_record("H100", v1="2026-01-03", v2="2026-01-01"))
    record.save(path, a_record("H200", v1="2026-01-01"))
    cards = record.load(path)["cards"]
    dates = {card: {stage: result["date"] for stage, result in stages.items()} for card, stages in cards.items()}
    assert dates == {"H100": {"v1": "2026-01-03", "v2": "2026-01-02"}, "H200": {"v1": "2026-01-01"}}


def test_a_failed_replacement_leaves_the_old_record_and_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "gpu.json"
    record.save(path, a_record("H100", v1="2026-01-02"))
    before = path.read_bytes()

    def refuse(*arguments: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="no space"):
        record.save(path, a_record("H100", v1="2026-01-03"))
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["gpu.json"]


def test_results_of_another_machine_are_merged_by_the_command(tmp_path: Path) -> None:
    brought = tmp_path / "brought.json"
    brought.write_text(json.dumps(a_record("H100", v1="2026-01-02")))
    arguments = (sys.executable, str(PROGRAM), "--json", str(tmp_path / "gpu.json"), "--merge")
    done = run(*arguments, str(brought))
    assert (done.returncode, done.stdout) == (0, "H100: v1 merged into gpu.json\n")
    assert record.load(tmp_path / "gpu.json") == a_record("H100", v1="2026-01-02")
    missing = run(*arguments, str(tmp_path / "none.json"))
    assert missing.returncode == cli.COULD_NOT_RUN and "there is no" in missing.stderr


# -- which engines a stage runs -----------------------------------------------------------------------------------------


class Engines:
    """In place of Surroundings: notes which engines were asked for and gives them answers."""

    def __init__(self, answers_with: list[int]) -> None:
        self.answers_with = answers_with
        self.asked: list[bool] = []
        self.specifications: list[dict[str, Any]] = []

    def run(self, name: str, spec: dict[str, Any], profiled: bool, env: dict[str, str]) -> Run:
        self.asked.append(profiled)
        self.specifications.append(spec)
        return Run(Path(name), {"answers": {"a": self.answers_with if profiled else [1]}}, 0, 1.0)


A_TARGET = Target(Path("wide"), Path("small"), 32_000, {"attention_backend": "TRITON_ATTN"}, {})


@pytest.mark.parametrize(("answers", "asked"), [([1], [False, True]), ([2], [False, True, False])])
def test_a_second_engine_without_runs_only_where_answers_differ(answers: list[int], asked: list[bool]) -> None:
    engines: Any = Engines(answers)
    sides = STAGES["v2"].measure(STAGES["v2"], A_TARGET, engines)
    assert engines.asked == asked
    assert (len(sides.with_us), len(sides.without)) == (1, len(asked) - 1)
    first = engines.specifications[0]
    assert all(specification == first for specification in engines.specifications)
    assert first["llm"]["attention_backend"] == "TRITON_ATTN"
    assert first["model"] == "wide"


def test_throughput_engines_take_turns_and_the_first_alternates() -> None:
    engines: Any = Engines([1])
    sides = STAGES["throughput"].measure(STAGES["throughput"], A_TARGET, engines)
    assert engines.asked == [False, True, True, False, False, True]
    assert len(sides.with_us) == len(sides.without) == 3
    assert engines.specifications[0]["model"] == "small"


# -- engine processes ---------------------------------------------------------------------------------------------------


def around(tmp_path: Path, script: str, seconds: float = 60.0) -> Surroundings:
    return Surroundings(tmp_path, tmp_path / "cache", time.monotonic() + seconds, (sys.executable, "-c", script))


WRITE_ENVIRONMENT = "import json, os, sys; json.dump(dict(os.environ), open(sys.argv[2], 'w'))"


def test_the_two_sides_differ_by_profilemate_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inherited = os.pathsep.join([str(environment.ROOT), "/somewhere/site"])
    monkeypatch.setenv("PYTHONPATH", inherited)
    monkeypatch.setenv("PROFILEMATE_TRACKERS", "kv_cache")
    monkeypatch.setenv("VLLM_ENABLE_PROFILING", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    these = around(tmp_path, WRITE_ENVIRONMENT)
    bare = these.run("bare", {}, False, {"VLLM_USE_V2_MODEL_RUNNER": "0"}).result
    ours = these.run("ours", {}, True, {"VLLM_USE_V2_MODEL_RUNNER": "0"}).result
    benchmarks = str(environment.ROOT / "benchmarks")
    assert bare["PYTHONPATH"].split(os.pathsep) == [benchmarks, "/somewhere/site"]
    assert ours["PYTHONPATH"].split(os.pathsep) == [str(environment.ROOT), benchmarks, "/somewhere/site"]
    assert bare["HF_HUB_OFFLINE"] == "0"  # what the user set stays
    assert not {"PROFILEMATE_TRACKERS", "VLLM_ENABLE_PROFILING"} & (bare.keys() | ours.keys())
    assert bare["VLLM_USE_FLASHINFER_SAMPLER"] == "0"
    different = {name for name in bare.keys() | ours.keys() if bare.get(name) != ours.get(name)} - {"PWD"}
    assert different == {"PYTHONPATH", "PROFILEMATE_ENABLE", "PROFILEMATE_DIR", "PROFILEMATE_NETWORK_FS"}


def test_an_engine_without_a_result_is_told_with_the_end_of_its_log(tmp_path: Path) -> None:
    with pytest.raises(EngineFailed, match=r"ended with 7 .*\n.*out of memory"):
        around(tmp_path, "print('out of memory', flush=True); raise SystemExit(7)").run("one", {}, False, {})


def test_an_engine_that_wrote_its_result_counts_however_it_ended(tmp_path: Path) -> None:
    script = "import sys; open(sys.argv[2], 'w').write('{}'); raise SystemExit(9)"
    assert around(tmp_path, script).run("one", {}, False, {}).code == 9


def test_a_hanging_engine_is_ended_with_its_children(tmp_path: Path) -> None:
    script = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"open({str(tmp_path / 'child')!r}, 'w').write(str(child.pid))\n"
        "time.sleep(600)\n"
    )
    began = time.monotonic()
    with pytest.raises(EngineFailed, match="ended with None"):
        around(tmp_path, script, seconds=3.0).run("one", {}, False, {})
    assert time.monotonic() - began < 30
    child = int((tmp_path / "child").read_text())
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and _runs(child):
        time.sleep(0.05)
    assert not _runs(child)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_no_engine_starts_that_would_not_end_in_time(tmp_path: Path) -> None:
    these = around(tmp_path, WRITE_ENVIRONMENT, seconds=10.0)
    these.longest_seconds = 60.0
    with pytest.raises(OutOfTime, match="an engine took 60 s"):
        these.run("one", {}, False, {})
    assert these.runs == 0


@pytest.mark.parametrize("works", [True, False])
def test_numba_gets_a_stand_in_only_where_it_does_not_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, works: bool
) -> None:
    site = tmp_path / "site"
    site.mkdir()
    names = "get_num_threads = jit = njit = prange = set_num_threads = None"
    (site / "numba.py").write_text(names if works else "raise ImportError('Numba needs NumPy 2.3 or less')")
    monkeypatch.setenv("PYTHONPATH", str(site))
    script = "import json, numba, sys; json.dump(vars(numba).get('__version__'), open(sys.argv[2], 'w'))"
    these = around(tmp_path / "work", script)
    these.work.mkdir()
    assert these.mend_numba() is not works
    assert these.run("one", {}, False, {}).result == (None if works else "0.65.0")
