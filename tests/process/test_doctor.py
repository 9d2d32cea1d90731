"""`profilemate doctor` names each way to get an empty session, with a remedy and exit code 1."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import environment
import pytest
from pretend_vllm import Write
from small_disk import small_disk

from profilemate.cli import doctor as doctor_command
from profilemate.cli.checks import folder, plugin, ray, start
from profilemate.cli.checks import vllm as vllm_checks
from profilemate.cli.interpreter import ignores_python_path, script_interpreter
from profilemate.cli.main import main
from profilemate.probe import folders

DOCTOR = """
import sys
sys.path.insert(0, sys.argv[1])
from profilemate.cli import doctor
from profilemate.cli.main import main
wanted = sys.argv[2].split()
doctor.CHECKS = tuple(check for check in doctor.CHECKS if not wanted or check.__name__ in wanted)
sys.exit(main(["doctor", "--json"]))
"""
START, SWITCH, PLUGIN, COMMAND = (
    "our_sitecustomize_runs",
    "profiling_is_on",
    "plugin_is_reachable",
    "vllm_command_reaches_us",
)


def doctor(
    path: list[Path], tmp_path: Path, wanted: str = "", options: tuple[str, ...] = (), **more: str
) -> tuple[int, dict[str, list[dict[str, str]]]]:
    """Exit code and findings, by name, of all checks or of the wanted ones: the last one takes seconds."""
    env = environment.clean() | {
        "PYTHONPATH": os.pathsep.join(map(str, path)),
        "PROFILEMATE_DIR": str(tmp_path / "p"),
        **more,
    }
    done = subprocess.run(
        [sys.executable, *options, "-c", DOCTOR, str(environment.ROOT), wanted],
        env=env, cwd=environment.ROOT, capture_output=True, text=True, timeout=environment.HANGS_SECONDS, check=False,
    )  # fmt: skip
    found: dict[str, list[dict[str, str]]] = {}
    for check in json.loads(done.stdout):
        found.setdefault(check["name"], []).append(check)
    return done.returncode, found


def statuses(found: dict[str, list[dict[str, str]]], name: str) -> set[str]:
    return {check["status"] for check in found[name]}


def test_all_is_well_with_the_real_vllm(tmp_path: Path) -> None:
    code, found = doctor([environment.ROOT], tmp_path)
    assert code == 0
    assert all(statuses(found, name) == {"ok"} for name in ("switch", "settings", "start", "folder", "vllm", "hooks"))
    assert "0.32.0" in found["vllm"][0]["text"]


def test_a_chained_sitecustomize_is_named(tmp_path: Path, vllm: Path, write: Write) -> None:
    other = write({"sitecustomize.py": ""}, "other")
    code, found = doctor([environment.ROOT, vllm, other], tmp_path, START)
    assert code == 0 and str(other / "sitecustomize.py") in found["start"][0]["text"]


@pytest.mark.parametrize(
    ("case", "check", "words"),
    [
        ("python-path-lost", START, "PYTHONPATH does not name"),
        ("other-first", START, "another sitecustomize runs first"),
        ("switched-off", SWITCH, "switches profiling off"),
        ("unwritable", "folder_can_be_written", "cannot be made"),
        ("no-room", "folder_can_be_written", "less than is left alone"),
        ("relative-path", START, "by a relative path"),
        ("no-trackers", "settings_are_good", "all trackers are off"),
        ("vllm-ignores-the-path", COMMAND, "ignores PYTHONPATH"),
        ("hooks-do-not-fit", "hooks_fit", "no hook of cuda_graphs fits"),
    ],
)
def test_each_way_to_an_empty_session_is_a_failure(
    tmp_path: Path, vllm: Path, write: Write, case: str, check: str, words: str
) -> None:
    other = write({"sitecustomize.py": ""}, "other")
    (tmp_path / "file").write_text("")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "vllm").write_text(f"#!{sys.executable} -sE\n")
    (tmp_path / "bin" / "vllm").chmod(0o755)
    path = {
        "python-path-lost": [vllm],
        "other-first": [other, environment.ROOT, vllm],
        "relative-path": [Path("."), vllm],
    }
    more = {
        "switched-off": {"VLLM_ENABLE_PROFILING": "0"},
        "unwritable": {"PROFILEMATE_DIR": str(tmp_path / "file" / "p")},
        "no-trackers": {"PROFILEMATE_TRACKERS": ","},
        "vllm-ignores-the-path": {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"},
        "no-room": {"PROFILEMATE_DISK_FLOOR": "1000000G"},
    }
    code, found = doctor(path.get(case, [environment.ROOT, vllm]), tmp_path, check, **more.get(case, {}))
    assert code == 1
    failures = [entry for entries in found.values() for entry in entries if entry["status"] == "failure"]
    assert any(words in entry["text"] and entry["remedy"] for entry in failures), found


@pytest.mark.parametrize(
    ("options", "words", "remedy"),
    [
        (("-S",), "runs with -S, so no sitecustomize runs", "start it without -S"),
        (("-I",), "runs with -I, which makes it ignore PYTHONPATH", "PROFILEMATE_ENABLE=1"),
        (("-E",), "runs with -E, which makes it ignore PYTHONPATH", "PROFILEMATE_ENABLE=1"),
        (("-S", "-E"), "runs with -S, so no sitecustomize runs", "start it without -S"),
    ],
)
def test_a_python_started_as_doctor_is_does_not_start_us(
    tmp_path: Path, vllm: Path, options: tuple[str, ...], words: str, remedy: str
) -> None:
    code, found = doctor([environment.ROOT, vllm], tmp_path, START, options)
    (check,) = found["start"]
    assert code == 1 and check["status"] == "failure"
    assert words in check["text"] and remedy in check["remedy"]


def test_options_that_do_no_harm_are_no_finding(tmp_path: Path, vllm: Path) -> None:
    code, found = doctor([environment.ROOT, vllm], tmp_path, START, ("-s", "-B"))
    assert code == 0 and statuses(found, "start") == {"ok"}


ENTRY_POINT = {
    "profilemate-0.dist-info/METADATA": "Metadata-Version: 2.1\nName: profilemate\nVersion: 0\n",
    "profilemate-0.dist-info/entry_points.txt": "[vllm.general_plugins]\nprofilemate = profilemate.plugin:register\n",
}


@pytest.mark.parametrize(
    ("more", "status", "lacks"),
    [
        ({"PROFILEMATE_ENABLE": "1"}, "ok", ""),
        ({}, "failure", "the installed plugin lacks PROFILEMATE_ENABLE=1"),
        (
            {"PROFILEMATE_ENABLE": "1", "VLLM_PLUGINS": "lora"},
            "failure",
            "the installed plugin lacks profilemate in VLLM_PLUGINS=lora",
        ),
        ({"VLLM_PLUGINS": ""}, "failure", "lacks PROFILEMATE_ENABLE=1 and profilemate in VLLM_PLUGINS="),
        ({"PROFILEMATE_ENABLE": "1", "VLLM_PLUGINS": "lora, profilemate"}, "ok", ""),
    ],
)
def test_where_only_the_plugin_could_start_what_it_lacks_is_named(
    tmp_path: Path, vllm: Path, write: Write, more: dict[str, str], status: str, lacks: str
) -> None:
    installed = write(ENTRY_POINT, "installed")
    code, found = doctor([installed, vllm], tmp_path, f"{START} {PLUGIN}", **more)
    (check,) = found["start"]
    assert (check["status"], code) == (status, int(status == "failure")) and lacks in check["remedy"]
    filtered = more.get("VLLM_PLUGINS") in ("lora", "")
    assert statuses(found, "plugin") == {"warning" if filtered else "ok"}


def test_a_filter_does_not_matter_where_the_path_works(tmp_path: Path, vllm: Path) -> None:
    code, found = doctor([environment.ROOT, vllm], tmp_path, f"{START} {PLUGIN}", VLLM_PLUGINS="lora")
    assert code == 0 and statuses(found, "start") == {"ok"} and statuses(found, "plugin") == {"warning"}


@pytest.mark.parametrize("name", ["PROFILEMATE_ENABLE", "VLLM_ENABLE_PROFILING"])
def test_a_switch_that_is_off_is_the_one_failure(tmp_path: Path, vllm: Path, name: str) -> None:
    """The way in is looked at all the same, and is not blamed."""
    code, found = doctor([environment.ROOT, vllm], tmp_path, f"{START} {SWITCH}", **{name: "0"})
    (check,) = found["switch"]
    assert code == 1 and (check["status"], check["remedy"]) == ("failure", f"unset {name}")
    assert statuses(found, "start") == {"ok"}


@pytest.mark.parametrize(("options", "words"), [("ro", "cannot be written"), ("rw", "No space left")])
def test_a_disk_that_takes_nothing_is_a_failure(tmp_path: Path, vllm: Path, options: str, words: str) -> None:
    with small_disk(tmp_path / "disk", "size=64k") as disk:
        (disk.seen / "p").mkdir()
        with contextlib.suppress(OSError):
            (disk.seen / "ballast").write_bytes(b"x" * (60 << 10))
            (disk.seen / "ballast2").write_bytes(b"x" * (60 << 10))
        disk.remount(options)
        code = (
            "import os; from profilemate.cli.checks import folder; "
            "print(*folder.folder_can_be_written(os.environ)[0], sep='|')"
        )
        env = environment.clean() | {"PROFILEMATE_DIR": str(disk.path / "p"), "PROFILEMATE_DISK_FLOOR": "0"}
        done = subprocess.run(
            [*disk.prefix, sys.executable, "-c", code],
            env=env | {"PYTHONPATH": str(environment.ROOT)},
            capture_output=True, text=True, timeout=environment.HANGS_SECONDS, check=False,
        )  # fmt: skip
        _, status, text, remedy = done.stdout.strip().split("|")
        assert status == "failure" and words in text and "PROFILEMATE_DIR" in remedy
        assert list((disk.seen / "p").iterdir()) == []


@pytest.mark.parametrize(("kind", "code"), [("nfs4", 1), ("fuse.sshfs", 1), ("9p", 1), ("ext4", 0), ("tmpfs", 0)])
def test_the_exit_code_is_that_of_the_worst_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], kind: str, code: int
) -> None:
    """A pretended table of mounts says that the folder is on this file system."""
    (tmp_path / "mountinfo").write_text(f"22 1 0:1 / / rw - {kind} none rw\n")
    monkeypatch.setattr(folders, "MOUNTS", str(tmp_path / "mountinfo"))
    monkeypatch.setattr(doctor_command, "CHECKS", (folder.folder_can_be_written,))
    monkeypatch.setenv("PROFILEMATE_DIR", str(tmp_path / "p"))
    monkeypatch.setenv("PROFILEMATE_DISK_FLOOR", "0")
    assert main(["doctor"]) == code
    out = capsys.readouterr().out
    assert ("PROFILEMATE_NETWORK_FS=1" in out) == bool(code) and (kind in out) == (kind != "ext4")
    monkeypatch.setenv("PROFILEMATE_NETWORK_FS", "1")
    assert main(["doctor"]) == 0


def test_in_memory_a_quarter_of_the_floor_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = os.statvfs(tmp_path)
    more = {"PROFILEMATE_DIR": str(tmp_path), "PROFILEMATE_DISK_FLOOR": str(2 * found.f_bavail * found.f_frsize)}
    for kind, status in (("ext4", "failure"), ("tmpfs", "warning")):
        monkeypatch.setattr(folder.folders, "mount_type", lambda path, kind=kind: kind)
        assert [check.status for check in folder.folder_can_be_written(more)] == [status]


def test_a_filter_that_leaves_the_plugin_out_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugin, "plugin_entry", lambda: True)
    (check,) = plugin.plugin_is_reachable({"VLLM_PLUGINS": "lora_resolver"})
    assert check.status == "warning" and "VLLM_PLUGINS" in check.text
    assert not plugin.plugin_starts({"VLLM_PLUGINS": "lora_resolver", "PROFILEMATE_ENABLE": "1"})
    assert plugin.plugin_starts({"VLLM_PLUGINS": "profilemate", "PROFILEMATE_ENABLE": "1"})
    assert not plugin.plugin_starts({})


@pytest.mark.parametrize("answer", [None, {"found": False}])
def test_a_python_without_vllm_is_a_failure(monkeypatch: pytest.MonkeyPatch, answer: dict[str, object] | None) -> None:
    monkeypatch.setattr(vllm_checks, "ask_child", lambda code, environ: answer)
    (check,) = vllm_checks.vllm_is_installed({})
    assert (
        check.status == "failure" and "has no vllm" in check.text and "the Python that runs the server" in check.remedy
    )


@pytest.mark.parametrize(
    ("version", "said"),
    [
        ("0.33.1", ""), ("0.11.0", ""), ("0.34.0rc1", "newer than every"), ("1.2", "newer than every"),
        ("0.10.2", "older than every"), ("dev", ""),
    ],
)  # fmt: skip
def test_a_vllm_that_nobody_looked_at_is_named(monkeypatch: pytest.MonkeyPatch, version: str, said: str) -> None:
    answer = {"found": True, "where": "x", "version": version, "distributions": []}
    monkeypatch.setattr(vllm_checks, "ask_child", lambda code, environ: answer)
    (check,) = vllm_checks.vllm_is_installed({})
    assert check.status == "ok" and said in check.text and ("checked" in check.text) == bool(said)


def test_a_bad_setting_is_a_warning(tmp_path: Path) -> None:
    (check,) = start.settings_are_good({"PROFILEMATE_LOG_INTERVAL": "soon"})
    assert check.status == "warning" and "PROFILEMATE_LOG_INTERVAL" in check.text


def test_a_symlinked_checkout_is_ours(tmp_path: Path, vllm: Path) -> None:
    (tmp_path / "link").symlink_to(environment.ROOT)
    _, found = doctor([tmp_path / "link", vllm], tmp_path, START)
    assert statuses(found, "start") == {"ok"}


def test_the_users_own_profiling_config_counts(tmp_path: Path, vllm: Path, checkout: Path) -> None:
    file = checkout / "sitecustomize.py"
    text = file.read_text().replace('"/tmp/vllm_profiling"', repr(str(tmp_path / "mine")))
    file.write_text(text.replace("ENABLE_KV_CACHE_TRACKING = True", "ENABLE_KV_CACHE_TRACKING = False"))
    env = environment.clean() | {"PYTHONPATH": f"{checkout}:{vllm}"}
    done = subprocess.run(
        [sys.executable, "-m", "profilemate", "doctor"],
        env=env, cwd=checkout, capture_output=True, text=True, timeout=environment.HANGS_SECONDS, check=False,
    )  # fmt: skip
    assert f"ok       folder: sessions go to {tmp_path / 'mine'}, " in done.stdout
    assert "warning  settings: kv_cache is off" in done.stdout


def test_text_has_one_line_per_check_and_its_remedy_below(tmp_path: Path, vllm: Path) -> None:
    env = environment.clean() | {"PYTHONPATH": str(vllm), "PROFILEMATE_DIR": str(tmp_path / "p")}
    done = subprocess.run(
        [sys.executable, "-m", "profilemate", "doctor"],
        env=env, cwd=environment.ROOT, capture_output=True, text=True, timeout=environment.HANGS_SECONDS, check=False,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    (number,) = [n for n, line in enumerate(lines) if line.startswith("FAILURE  start: ")]
    assert done.returncode == 1 and lines[number + 1].startswith("         -> ")
    assert all(line.startswith(("ok       ", "warning  ", "FAILURE  ", "         -> ")) for line in lines)
    assert list((tmp_path / "p").iterdir()) == []


def test_a_vllm_command_of_another_python_is_a_warning(tmp_path: Path) -> None:
    script = tmp_path / "vllm"
    script.write_text("#!/opt/other/bin/python\n")
    script.chmod(0o755)
    (check,) = start.vllm_command_reaches_us({"PATH": str(tmp_path)})
    assert check.status == "warning" and "/opt/other/bin/python" in check.remedy
    script.write_text(f"#!{sys.executable}\n")
    (check,) = start.vllm_command_reaches_us({"PATH": str(tmp_path)})
    assert check.status == "ok"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("#!/a/bin/python3\nimport x", ["/a/bin/python3"]),
        ("#! /a/bin/python3.11 -I", ["/a/bin/python3.11", "-I"]),
        ("#!/usr/bin/env -S python-of-nowhere -E", ["python-of-nowhere", "-E"]),
        ("#!/bin/sh\n'''exec' \"/a b/bin/python\" -sE \"$0\" \"$@\"\n' '''", ["/a b/bin/python", "-sE"]),
        ("#!/bin/bash\nexec x", []),
        ("\x7fELF", []),
        ("", []),
        ("#!/usr/bin/env", []),
    ],
)
def test_the_first_lines_of_a_script_tell_its_python(tmp_path: Path, text: str, words: list[str]) -> None:
    (tmp_path / "script").write_text(text)
    assert script_interpreter(tmp_path / "script") == words
    assert ignores_python_path(words[1:]) == bool({"-I", "-E", "-sE"} & set(words))


@pytest.mark.parametrize(
    ("version", "release"),
    [("0.17.1", (0, 17)), ("0.28.1rc1.dev491+g462fdb097.das.x", (0, 28)), ("dev", ()), ("0.1.dev1+gabc", ()), ("", ())],
)
def test_odd_versions(version: str, release: tuple[int, ...]) -> None:
    assert vllm_checks.release(version) == release


@pytest.mark.parametrize(("version", "dark"), [("0.17.1", True), ("0.18.0", False), ("dev", False)])
def test_what_ray_needs(monkeypatch: pytest.MonkeyPatch, version: str, dark: bool) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(ray, "ask_child", lambda code, environ: {"version": version})
    monkeypatch.setattr(ray, "plugin_entry", lambda: False)
    found = ray.ray_needs({"VLLM_PROFILING_DIR": "/x"})
    text = " ".join(check.text for check in found)
    assert found[0].status == "warning" and found[0].remedy
    assert "VLLM_RAY_EXTRA_ENV_VARS_TO_COPY" in text and "--fail-on-environ-validation" in text
    assert ("stay dark" in text) == dark


def test_a_folder_on_the_network_is_a_failure_and_in_memory_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind, status in (("nfs4", "failure"), ("tmpfs", "warning"), ("ext4", "ok")):
        monkeypatch.setattr(folder.folders, "mount_type", lambda path, kind=kind: kind)
        (check,) = folder.folder_can_be_written({"PROFILEMATE_DIR": str(tmp_path), "PROFILEMATE_DISK_FLOOR": "1"})
        assert check.status == status
